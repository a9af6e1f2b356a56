//! What the parents gave, as a handler reads it.

use serde::de::DeserializeOwned;

use crate::model::{Input, JobState};

/// The results of the parents of a job, by what its call named them.
#[derive(Clone, Debug, Default)]
pub struct Inputs(pub(super) Vec<Input>);

/// Why an input is not there as the handler wants it.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// No parent has this name.
    #[error("the job has no parent named {0:?}")]
    Unknown(String),
    /// The parent did not complete.
    #[error("the parent {0:?} is {1}")]
    NotCompleted(String, JobState),
    /// The results of all parents together are over 8 MiB, and this one was left out.
    #[error("the result of {0:?} was left out: all inputs together are over 8 MiB")]
    Omitted(String),
    /// The result does not fit the type.
    #[error("the result of {0:?}: {1}")]
    Unfit(String, serde_json::Error),
}

impl Inputs {
    /// The result of a completed parent, as a type of the handler's. A parent that gave none gives
    /// JSON's null.
    ///
    /// # Errors
    ///
    /// See [`InputError`]; `?` in a handler makes it a failed execution.
    pub fn get<T: DeserializeOwned>(&self, reference: &str) -> Result<T, InputError> {
        let name = || reference.to_owned();
        let input = self.iter().find(|input| input.reference == reference);
        let input = input.ok_or_else(|| InputError::Unknown(name()))?;
        if input.state != JobState::Completed {
            return Err(InputError::NotCompleted(name(), input.state));
        }
        if input.omitted {
            return Err(InputError::Omitted(name()));
        }
        let text = input.result.as_ref().map_or("null", |result| result.get());
        serde_json::from_str(text).map_err(|error| InputError::Unfit(name(), error))
    }

    /// The same, and `None` for a parent that did not complete: of a job that waits for any of
    /// them, or goes on without one.
    ///
    /// # Errors
    ///
    /// See [`InputError`].
    pub fn find<T: DeserializeOwned>(&self, reference: &str) -> Result<Option<T>, InputError> {
        match self.get(reference) {
            Ok(result) => Ok(Some(result)),
            Err(InputError::NotCompleted(..)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All parents, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Input> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;

    fn input(reference: &str, state: JobState, result: Option<&str>) -> Input {
        Input {
            reference: reference.to_owned(),
            parent: Uuid::nil(),
            state,
            result: result.map(|text| RawValue::from_string(text.to_owned()).unwrap()),
            omitted: false,
        }
    }

    #[test]
    fn an_input_is_typed_or_says_why_not() {
        let mut large = input("large", JobState::Completed, None);
        large.omitted = true;
        let inputs = Inputs(vec![
            input("rows", JobState::Completed, Some("7")),
            input("silent", JobState::Completed, None),
            input("lost", JobState::Discarded, None),
            large,
        ]);
        assert_eq!(inputs.get::<i32>("rows").unwrap(), 7);
        assert_eq!(inputs.find::<i32>("rows").unwrap(), Some(7));
        assert_eq!(inputs.find::<i32>("lost").unwrap(), None);
        inputs.get::<()>("silent").unwrap();
        let said = |name: &str| inputs.get::<i32>(name).unwrap_err().to_string();
        assert_eq!(said("lost"), "the parent \"lost\" is discarded");
        assert_eq!(said("other"), "the job has no parent named \"other\"");
        assert!(said("large").starts_with("the result of \"large\" was left out"));
        assert!(said("silent").starts_with("the result of \"silent\": invalid type: null"));
        assert!(inputs.find::<i32>("other").is_err());
    }
}
