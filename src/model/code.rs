//! The SQLSTATEs that Rowlock's functions raise, with their meaning.

use std::fmt;

/// One broken contract or refusal, named by its SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// `RL001`
    Stale,
    /// `RL025`
    WrongIsolation,
    /// `RL404`
    NotFound,
    /// `RL409`
    Conflict,
    /// `RL413`
    TooLarge,
    /// `RL422`
    Invalid,
    /// `RL429`
    Busy,
}

impl Code {
    /// Every code, by SQLSTATE.
    pub const ALL: &'static [Code] = &[
        Code::Stale,
        Code::WrongIsolation,
        Code::NotFound,
        Code::Conflict,
        Code::TooLarge,
        Code::Invalid,
        Code::Busy,
    ];

    /// The SQLSTATE as Postgres sends it.
    #[must_use]
    pub const fn sqlstate(self) -> &'static str {
        match self {
            Code::Stale => "RL001",
            Code::WrongIsolation => "RL025",
            Code::NotFound => "RL404",
            Code::Conflict => "RL409",
            Code::TooLarge => "RL413",
            Code::Invalid => "RL422",
            Code::Busy => "RL429",
        }
    }

    /// The code of a SQLSTATE, if it is one of ours.
    #[must_use]
    pub fn from_sqlstate(sqlstate: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.sqlstate() == sqlstate)
    }

    /// A few words for a heading; stable, so that people can search for them.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Code::Stale => "Stale token",
            Code::WrongIsolation => "Wrong isolation level",
            Code::NotFound => "No such job or workflow",
            Code::Conflict => "Belongs to another job",
            Code::TooLarge => "Too large",
            Code::Invalid => "Not valid",
            Code::Busy => "Refused for now",
        }
    }

    /// The HTTP status of an answer with this code.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Code::Stale | Code::Conflict => 409,
            // The service chooses the isolation level, so the fault is its own.
            Code::WrongIsolation => 500,
            Code::NotFound => 404,
            Code::TooLarge => 413,
            Code::Invalid => 422,
            Code::Busy => 429,
        }
    }

    /// What happened and what to do, for the error's page in the documentation.
    #[must_use]
    pub const fn doc(self) -> &'static str {
        match self {
            Code::Stale => {
                "The token does not hold this job any more: its lease ran out and another worker \
                 has it, or the execution has already ended in another way. Drop the result."
            }
            Code::WrongIsolation => {
                "The verb needs READ COMMITTED. With an older snapshot it would miss children that \
                 were attached meanwhile. Call it in a transaction of that level."
            }
            Code::NotFound => {
                "HTTP's answer where there is none of that id, or no longer: finished jobs are \
                 pruned when their retention has passed. The SQL functions answer an unknown id \
                 with a verdict (`unknown`, `stale`), and refuse a parent that does not exist with \
                 `RL422`."
            }
            Code::Conflict => {
                "The id, or the unique key, belongs to another job, and the content differs; or \
                 the id of a workflow has other jobs or another name. The same content would have \
                 been answered with the job that exists."
            }
            Code::TooLarge => {
                "The args, the result or the call is over its limit. Store the data elsewhere and \
                 send a reference, or split the call."
            }
            Code::Invalid => {
                "A name, number, time or graph is not acceptable; the detail names it. Nothing was \
                 stored, and the same call will be refused again."
            }
            Code::Busy => {
                "The jobs are being worked on by others at this moment. Nothing changed; try again \
                 shortly."
            }
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.sqlstate())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_sqlstate() {
        for code in Code::ALL {
            assert_eq!(Code::from_sqlstate(code.sqlstate()), Some(*code));
            assert!(code.doc().ends_with('.'));
        }
        assert_eq!(Code::from_sqlstate("RL999"), None);
        assert_eq!(Code::from_sqlstate("40001"), None);
    }

    #[test]
    fn codes_that_name_a_status_have_it() {
        for code in Code::ALL {
            let number: u16 = code.sqlstate()[2..].parse().unwrap();
            if 400 <= number {
                assert_eq!(code.http_status(), number);
            }
        }
    }

    #[test]
    fn the_page_on_sql_has_the_same_table() {
        let page = include_str!("../../docs/SQL.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `RL")).collect();
        let own: Vec<String> = Code::ALL
            .iter()
            .map(|code| {
                let (title, status) = (code.title(), code.http_status());
                format!("| `{code}` | {title} | {status} | {} |", code.doc())
            })
            .collect();
        assert_eq!(rows, own);
    }
}
