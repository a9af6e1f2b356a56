//! Values that must not be printed.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// What stands where a secret was.
const HIDDEN: &str = "***";

/// A value that `Debug` and `Display` hide.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Ok(Secret(value.to_owned()))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Where Postgres is, as a URL or as `key=value` pairs; printed without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The connection string itself, password and all.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it, as when a variable is passed on empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.trim().is_empty()
    }

    fn redacted(&self) -> String {
        let hidden_pairs = hide_password_pairs(&self.0);
        match hidden_pairs.split_once("://") {
            Some((scheme, rest)) => format!("{scheme}://{}", hide_userinfo(rest)),
            None => hidden_pairs,
        }
    }
}

/// Hides the password in `user:password@host/...`; it may itself contain `@`, `/` or `?`.
fn hide_userinfo(rest: &str) -> String {
    let parts = rest.rfind('@').map(|at| rest.split_at(at));
    match parts.and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
        Some((user, host)) => format!("{user}:{HIDDEN}{host}"),
        None => rest.to_owned(),
    }
}

/// Hides the value of `password=...`, in a URL's query and among `key=value` pairs.
///
/// Whatever follows a quoted or spaced password goes too: better too little than a secret.
fn hide_password_pairs(text: &str) -> String {
    let Some(at) = text.to_ascii_lowercase().find("password") else {
        return text.to_owned();
    };
    let after = at + "password".len();
    let rest = text[after..].trim_start();
    if !rest.starts_with('=') {
        return text.to_owned();
    }
    format!("{}={HIDDEN}", &text[..after])
}

impl FromStr for DatabaseUrl {
    type Err = Infallible;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Ok(DatabaseUrl(value.to_owned()))
    }
}

impl From<&str> for DatabaseUrl {
    fn from(value: &str) -> Self {
        DatabaseUrl(value.to_owned())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        DatabaseUrl::from(url).to_string()
    }

    #[test]
    fn a_password_is_hidden_wherever_it_stands() {
        assert_eq!(shown("postgres://ann:s3cret@db:5432/app"), "postgres://ann:***@db:5432/app");
        assert_eq!(shown("postgres://ann:s3@c/r?et@db/app"), "postgres://ann:***@db/app");
        assert_eq!(
            shown("postgres://db/app?password=s3cret&x=y"),
            "postgres://db/app?password=***"
        );
        assert_eq!(shown("host=db password = 's3 cret' user=ann"), "host=db password=***");
        for url in ["postgres://a:s3cret@b/c?d=e@f", "PASSWORD=s3cret", "postgres://a:s3cret@"] {
            assert!(!shown(url).contains("s3cret"), "{url}");
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for url in ["postgres://ann@db/app", "postgresql:///app?host=/run/x", "host=db dbname=app"]
        {
            assert_eq!(shown(url), url);
        }
        assert_eq!(format!("{:?}", Secret("x".to_owned())), "***");
    }
}
