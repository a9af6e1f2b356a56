//! What the database says, next to what the oracle says.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use uuid::Uuid;

use super::model::{Model, Name, State};
use super::ops::name_of;
use crate::harness::sql::column;

/// What can be seen of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) state: State,
    pub(super) attempt: i32,
    pub(super) cause: Option<Name>,
}

pub(super) type Sight = BTreeMap<Name, Seen>;

pub(super) async fn look(client: &Client) -> Sight {
    let sql = "select id, state, attempt, cause from jobs";
    let rows = client.query(sql, &[]).await.expect("jobs are readable");
    let seen = rows.iter().map(|row| {
        let seen = Seen {
            state: read_state(row.get(1)),
            attempt: row.get(2),
            cause: row.get::<_, Option<Uuid>>(3).map(name_of),
        };
        (name_of(row.get(0)), seen)
    });
    seen.collect()
}

fn read_state(word: &str) -> State {
    match word {
        "blocked" => State::Blocked,
        "scheduled" => State::Scheduled,
        "ready" => State::Ready,
        "running" => State::Running,
        "completed" => State::Completed,
        "cancelled" => State::Cancelled,
        "discarded" => State::Discarded,
        other => panic!("no state is called {other}"),
    }
}

impl Model {
    /// The jobs that are not as the oracle says, in words.
    pub(super) fn differences(&self, sight: &Sight) -> Vec<String> {
        let mut found = Vec::new();
        for (name, seen) in sight {
            if !self.has(*name) {
                found.push(format!("job {name} is {seen:?}, and should not exist"));
                continue;
            }
            let job = self.job(*name);
            let is_legal = match seen.cause {
                Some(cause) => job.causes.contains(&cause),
                None => job.causes.is_empty(),
            };
            if (seen.state, seen.attempt) != (job.state, job.attempt) || !is_legal {
                found.push(format!(
                    "job {name} is {seen:?}, and should be {:?}, attempt {}, cause one of {:?}",
                    job.state, job.attempt, job.causes
                ));
            }
        }
        let missing = self.names().filter(|name| !sight.contains_key(name));
        found.extend(missing.map(|name| format!("job {name} does not exist")));
        found
    }
}

pub(super) async fn violations(client: &Client) -> Vec<String> {
    column(client, "select v::text from verify() v where v.violations > 0").await
}

/// Forgets all jobs.
pub(super) async fn clear(client: &Client) {
    let tables = [
        "jobs",
        "ready",
        "scheduled",
        "blocked",
        "dependencies",
        "links",
        "tickets",
        "executions",
        "grants",
        "workers",
        "unique_keys",
    ];
    let deletes: String = tables.iter().map(|table| format!("delete from {table};")).collect();
    client.batch_execute(&deletes).await.expect("tables can be emptied");
}
