//! Calls that name what they are about, said once more where the first outcome is unknown.

use super::{Error, Recovery};
use crate::model::Code;

/// The outcome of a call that is harmless twice. Where no answer came it is said again, once; what
/// the second try cannot tell stays unknown.
pub(super) async fn known<T, F>(mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let doubt = match call().await {
        Err(error @ Error::InDoubt(_)) => error,
        answer => return answer,
    };
    if let Recovery::Repeat(pause) = doubt.recovery() {
        tokio::time::sleep(pause).await;
    }
    match call().await {
        Err(error) if !is_verdict(&error) => Err(doubt),
        answer => answer,
    }
}

/// Whether the error says something of the first try too: a rule was broken, then as now.
pub(super) fn is_verdict(error: &Error) -> bool {
    error.code().is_some_and(|code| code != Code::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt() -> Error {
        Error::InDoubt("cut".into())
    }

    fn refused(code: Code) -> Error {
        Error::Refused { code, message: String::new(), detail: None, hint: None }
    }

    /// The outcome where the tries end so, and how many there were.
    async fn outcome(tries: Vec<Result<u8, Error>>) -> (Result<u8, Error>, usize) {
        let all = tries.len();
        let mut tries = tries.into_iter();
        let outcome = known(|| std::future::ready(tries.next().expect("no more tries"))).await;
        (outcome, all - tries.len())
    }

    #[tokio::test]
    async fn what_is_unknown_is_asked_once_more() {
        let (outcome, tries) = outcome(vec![Err(doubt()), Ok(1)]).await;
        assert_eq!((outcome.expect("known"), tries), (1, 2));
    }

    #[tokio::test]
    async fn what_is_known_is_not() {
        for first in [Ok(1), Err(Error::Unavailable("".into())), Err(Error::Locked("".into()))] {
            assert_eq!(outcome(vec![first, Ok(2)]).await.1, 1);
        }
    }

    #[tokio::test]
    async fn only_a_verdict_of_the_second_try_speaks_for_the_first() {
        for second in [doubt(), Error::Locked("".into()), Error::PoolExhausted, refused(Code::Busy)]
        {
            let (outcome, _) = outcome(vec![Err(doubt()), Err(second)]).await;
            assert!(matches!(outcome, Err(Error::InDoubt(_))));
        }
        let (outcome, _) = outcome(vec![Err(doubt()), Err(refused(Code::Invalid))]).await;
        assert_eq!(outcome.expect_err("refused").code(), Some(Code::Invalid));
    }
}
