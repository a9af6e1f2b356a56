//! The name of the schema that holds one Rowlock.

use std::fmt;
use std::str::FromStr;

/// A schema's name, simple enough to stand in SQL text: `[a-z_][a-z0-9_]{0,49}`.
///
/// Fifty characters leave room for the roles that are named after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaName(String);

/// Why a schema's name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema name {name:?} is refused: {reason}")]
pub struct BadSchemaName {
    name: String,
    reason: &'static str,
}

impl SchemaName {
    /// The bare name, which is also the NOTIFY channel.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as an SQL identifier, quoted since it may be a keyword.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }

    /// The name of a role of this Rowlock: `owner`, `service`, `producer`, `worker`, `observer`.
    #[must_use]
    pub fn role(&self, duty: &str) -> String {
        format!("{}_{duty}", self.0)
    }
}

impl FromStr for SchemaName {
    type Err = BadSchemaName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| Err(BadSchemaName { name: name.to_owned(), reason });
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'_' | b'0'..=b'9');
        if !(1..=50).contains(&name.len()) {
            return refuse("it must have 1 to 50 characters");
        }
        if !name.bytes().all(plain) || name.as_bytes()[0].is_ascii_digit() {
            return refuse("it must match [a-z_][a-z0-9_]*");
        }
        if name.starts_with("pg_") || name == "information_schema" {
            return refuse("it belongs to Postgres");
        }
        if name == "public" {
            return refuse("others may create objects there; name a schema of its own");
        }
        Ok(SchemaName(name.to_owned()))
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_names_are_taken() {
        for name in ["rowlock", "_a9", "user", &"x".repeat(50)] {
            let schema: SchemaName = name.parse().unwrap();
            assert_eq!(schema.quoted(), format!("\"{name}\""));
            assert!(schema.role("producer").len() <= 63);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "x".repeat(51);
        for name in ["", &long, "9a", "A", "a-b", "a b", "a\"b", "é", "pg_x", "public", "a;b"] {
            assert!(name.parse::<SchemaName>().is_err(), "{name}");
        }
    }
}
