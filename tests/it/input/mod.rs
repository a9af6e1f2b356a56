//! What is sent to the queue by mistake or by malice, at each of its doors: SQL, HTTP, and the calls
//! of workers. The cases are data; each door has a test that runs all that it has.

mod calls;
mod cases;
mod cost;
mod hostile;
mod jobs;
mod requests;
mod work;

use serde_json::Value;
use tokio_postgres::error::DbError;

use crate::harness::Answer;

/// The error of a statement that must be refused with this SQLSTATE, or one of `A|B`, where versions
/// of Postgres differ; ours bring DETAIL and HINT.
#[track_caller]
fn refusal(shown: &str, answer: Result<(), tokio_postgres::Error>, code: &str) -> DbError {
    let error = match answer {
        Ok(()) => panic!("{shown}: was not refused with {code}"),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{shown}: {error:?}")).clone(),
    };
    let given = error.code().code();
    assert!(code.split('|').any(|one| one == given), "{shown}: not {code}: {error:?}");
    if given.starts_with("RL") {
        assert!(error.detail().is_some_and(|detail| detail.chars().count() <= 200), "{shown}");
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{shown}");
    }
    error
}

/// The body of an answer that must have this status, and be a problem with its code if it is none
/// of success.
#[track_caller]
fn answered(shown: &str, answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{shown}: {answer:?}");
    let code = match status {
        400 => "malformed",
        404 => "RL404",
        413 => "RL413",
        415 => "unsupported_media_type",
        422 => "RL422",
        _ => return answer.json(status),
    };
    answer.problem(status, code)
}
