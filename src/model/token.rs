//! The right to finish one execution.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Whoever holds it may finish the execution, so it is never printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(Uuid);

impl Token {
    /// A token as the database or a client sent it.
    #[must_use]
    pub const fn new(value: Uuid) -> Self {
        Token(value)
    }

    /// The value, to be sent to the database or a worker and nowhere else.
    #[must_use]
    pub const fn expose(self) -> Uuid {
        self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl FromStr for Token {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_printed() {
        let token = Token::new(Uuid::from_u128(0xfeed));
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(token.expose().to_string().parse(), Ok(token));
    }
}
