//! Classes of database errors, and what to do about each.

use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use super::tls::Fault;
use crate::model::Code;

/// A database error by class; the source chain holds what Postgres or the driver said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A function of ours refused, with its code.
    #[error("{code}: {message}")]
    Refused {
        /// Which contract was broken, or why it cannot be now.
        code: Code,
        /// One sentence.
        message: String,
        /// What was found, if the function says.
        detail: Option<String>,
        /// What to do, if the function says.
        hint: Option<String>,
    },
    /// The connection string cannot be used.
    #[error("the database url cannot be used: {0}")]
    Url(String),
    /// No connection, or it broke before anything was done, or Postgres has no room: too many
    /// connections, a full disk.
    #[error("the database is not available")]
    Unavailable(#[source] Source),
    /// The statement was sent and no answer came: it may have been done, or not. In a transaction
    /// of the caller's own, whose COMMIT was not sent yet, it was not.
    #[error("the outcome is unknown: no answer came to what was sent")]
    InDoubt(#[source] Source),
    /// All connections of the pool were in use for as long as one may wait.
    #[error("all connections of the pool are in use")]
    PoolExhausted,
    /// So many calls wait that one more is not taken; it was not begun.
    #[error("too many calls wait for the database")]
    Overloaded,
    /// The statement ran longer than it may.
    #[error("the statement ran longer than it may")]
    Timeout(#[source] Source),
    /// Somebody else held a lock for longer than one may wait.
    #[error("a lock was held for longer than the statement may wait")]
    Locked(#[source] Source),
    /// Two transactions got into each other's way; nothing of this one was done.
    #[error("the transaction collided with another one")]
    Conflict(#[source] Source),
    /// Anything else: a bug, a missing privilege.
    #[error("the statement failed")]
    Other(#[source] Source),
}

/// What lies beneath a class.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// What to do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Try the same again after this pause, which the caller lets grow.
    Retry(Duration),
    /// It may have been done: after this pause try the same again if that is harmless twice, since
    /// an id, a key or a token names what it is about.
    Repeat(Duration),
    /// The same would happen again.
    GiveUp,
}

impl Error {
    /// Whether to try again, and how soon.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Error::Conflict(_) => Recovery::Retry(Duration::from_millis(5)),
            Error::Locked(_) => Recovery::Retry(Duration::from_millis(20)),
            Error::PoolExhausted => Recovery::Retry(Duration::from_millis(50)),
            Error::Unavailable(_) => Recovery::Retry(Duration::from_millis(200)),
            Error::InDoubt(_) => Recovery::Repeat(Duration::from_millis(200)),
            Error::Refused { code: Code::Busy, .. } | Error::Overloaded => {
                Recovery::Retry(Duration::from_millis(100))
            }
            Error::Refused { .. } | Error::Url(_) | Error::Timeout(_) | Error::Other(_) => {
                Recovery::GiveUp
            }
        }
    }

    /// Whether it is about what was said, so that the same is refused again: a value that is not
    /// valid, a constraint, or an error that somebody's trigger raised. Not every other error of the
    /// class is: catalogs change, files cannot be written for a while.
    #[must_use]
    pub fn is_of_content(&self) -> bool {
        let Error::Other(source) = self else { return self.code().is_some() };
        let found = source.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.code());
        found.is_some_and(|state| ["22", "23", "54", "P0"].contains(&&state.code()[..2]))
    }

    /// The code, if a function of ours refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether only a change of certificates or settings can help: encryption is asked for, and the
    /// server has none or cannot prove who it is.
    #[must_use]
    pub fn is_encryption(&self) -> bool {
        matches!(self, Error::Unavailable(source) if source.is::<Fault>())
    }

    /// The error with everything beneath it, on one line, for a log.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }

    /// What lies beneath, on one line; the error itself where nothing does.
    pub(crate) fn beneath(&self) -> String {
        std::error::Error::source(self).map_or_else(|| self.to_string(), chain)
    }

    /// The same for another caller, with words in place of what lies beneath.
    pub(crate) fn copy(&self) -> Self {
        let beneath = || -> Source { self.beneath().into() };
        match self {
            Error::Refused { code, message, detail, hint } => Error::Refused {
                code: *code,
                message: message.clone(),
                detail: detail.clone(),
                hint: hint.clone(),
            },
            Error::Url(reason) => Error::Url(reason.clone()),
            Error::Unavailable(_) => Error::Unavailable(beneath()),
            Error::InDoubt(_) => Error::InDoubt(beneath()),
            Error::PoolExhausted => Error::PoolExhausted,
            Error::Overloaded => Error::Overloaded,
            Error::Timeout(_) => Error::Timeout(beneath()),
            Error::Locked(_) => Error::Locked(beneath()),
            Error::Conflict(_) => Error::Conflict(beneath()),
            Error::Other(_) => Error::Other(beneath()),
        }
    }

    /// The error of a statement that was sent, and whose effect would have been kept: where no
    /// server answered, but a pooler or nobody, it may have been.
    pub(crate) fn of_sent(error: tokio_postgres::Error) -> Self {
        let state = error.code().map(SqlState::code);
        let answered = state.is_some_and(|code| !code.starts_with("08") && code != "40003");
        match Error::from(error) {
            Error::Unavailable(source) if !answered => Error::InDoubt(source),
            error => error,
        }
    }

    /// No answer came in time.
    pub(crate) fn unanswered(deadline: Duration, doubt: bool) -> Self {
        let source = format!("no answer within {} s", deadline.as_secs_f64()).into();
        if doubt { Error::InDoubt(source) } else { Error::Unavailable(source) }
    }

    /// The database is away, for a reason that only words can name.
    pub(crate) fn unavailable(reason: &'static str) -> Self {
        Error::Unavailable(reason.into())
    }
}

/// An error with everything beneath it, on one line, for a log: without what Postgres may have put
/// into it of the values it met. Those are in Postgres's own log.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        match error.downcast_ref::<DbError>() {
            Some(error) => text.push_str(&without_values(error)),
            None => text.push_str(&error.to_string()),
        }
        next = error.source();
    }
    text
}

/// DETAIL has whole rows, and the message of a data exception the value.
fn without_values(error: &DbError) -> String {
    match error.code().code() {
        code if code.starts_with("22") => {
            format!("{}: {code}, a value is not valid", error.severity())
        }
        code => format!("{}: {} ({code})", error.severity(), error.message()),
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(refusal) = error.as_db_error().and_then(refusal) {
            return refusal;
        }
        if let Some(fault) = Fault::of(&error) {
            return Error::Unavailable(fault.into());
        }
        match class(&error) {
            Class::Unavailable => Error::Unavailable(error.into()),
            Class::Timeout => Error::Timeout(error.into()),
            Class::Locked => Error::Locked(error.into()),
            Class::Conflict => Error::Conflict(error.into()),
            Class::Other => Error::Other(error.into()),
        }
    }
}

fn refusal(error: &DbError) -> Option<Error> {
    Some(Error::Refused {
        code: Code::from_sqlstate(error.code().code())?,
        message: error.message().to_owned(),
        detail: error.detail().map(str::to_owned),
        hint: error.hint().map(str::to_owned),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Unavailable,
    Timeout,
    Locked,
    Conflict,
    Other,
}

fn class(error: &tokio_postgres::Error) -> Class {
    use std::error::Error as _;
    // The queue of notifications is full, which refuses every commit that notifies.
    if error.as_db_error().is_some_and(|found| found.routine() == Some("PreCommit_Notify")) {
        return Class::Unavailable;
    }
    match error.code() {
        Some(state) => class_of_state(state),
        None if error.is_closed() => Class::Unavailable,
        // A connect time-out has no source and no other mark than its text.
        None if error.to_string().contains("timeout") => Class::Unavailable,
        None if error.source().is_some_and(|source| source.is::<std::io::Error>()) => {
            Class::Unavailable
        }
        None => Class::Other,
    }
}

fn class_of_state(state: &SqlState) -> Class {
    match state.code() {
        "40001" | "40P01" => Class::Conflict,
        "55P03" => Class::Locked,
        // Of the statement, or of the transaction since 17.
        "57014" | "25P04" => Class::Timeout,
        // Shutting down, starting up, a rest that was too long, and a primary that became a
        // standby: another connection, a little later, will do.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25006" => Class::Unavailable,
        // Whether it was done is unknown, says the server.
        "40003" => Class::Unavailable,
        // No connection, and a disk or a memory that is full: nothing was done, and what is wrong
        // with it is not the statement.
        "58030" => Class::Unavailable,
        code if code.starts_with("08") || code.starts_with("53") => Class::Unavailable,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(code: &str) -> Class {
        class_of_state(&SqlState::from_code(code))
    }

    #[test]
    fn sqlstates_fall_into_classes() {
        assert_eq!(class_of("40P01"), Class::Conflict);
        assert_eq!(class_of("40001"), Class::Conflict);
        assert_eq!(class_of("55P03"), Class::Locked);
        assert_eq!(class_of("57014"), Class::Timeout);
        assert_eq!(class_of("57P01"), Class::Unavailable);
        for code in ["08006", "53100", "53300", "58030"] {
            assert_eq!(class_of(code), Class::Unavailable);
        }
        assert_eq!(class_of("42501"), Class::Other);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert_eq!(Error::Url(String::new()).recovery(), Recovery::GiveUp);
        assert_eq!(Error::Timeout("".into()).recovery(), Recovery::GiveUp);
        assert!(matches!(Error::PoolExhausted.recovery(), Recovery::Retry(_)));
        assert!(matches!(Error::InDoubt("".into()).recovery(), Recovery::Repeat(_)));
        let refused =
            |code| Error::Refused { code, message: String::new(), detail: None, hint: None };
        for code in Code::ALL {
            let again = matches!(refused(*code).recovery(), Recovery::Retry(_));
            assert_eq!(again, *code == Code::Busy);
        }
    }

    #[test]
    fn a_copy_says_the_same() {
        let beneath = Error::Timeout("too slow".into());
        let error = Error::Unavailable(beneath.into());
        assert_eq!(error.copy().chain(), error.chain());
        assert!(matches!(error.copy(), Error::Unavailable(_)));
        assert_eq!(Error::Overloaded.copy().to_string(), Error::Overloaded.to_string());
        let refused = Error::Refused {
            code: Code::Invalid,
            message: "no".to_owned(),
            detail: Some("7".to_owned()),
            hint: None,
        };
        assert_eq!(format!("{:?}", refused.copy()), format!("{refused:?}"));
    }

    #[test]
    fn a_refusal_reads_well() {
        let error = Error::Refused {
            code: Code::NotFound,
            message: "no job 7".to_owned(),
            detail: None,
            hint: None,
        };
        assert_eq!(error.to_string(), "RL404: no job 7");
        assert_eq!(error.code(), Some(Code::NotFound));
    }
}
