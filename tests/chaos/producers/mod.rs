//! Producers: a process each, with calls of its own from the plan and a ledger of what it was told.

mod http;
mod library;
mod sql;

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use serde_json::json;
use uuid::Uuid;

use crate::ledger::{self, Ledger};
use crate::plan::{self, Call, DOORS, Door, Manner};
use crate::run::{Run, Slip, until};

/// No call takes longer; what it has not answered by then is unknown.
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(100);

/// What a call was told.
pub(crate) enum Answer {
    /// Stored; the ids, in the order of the jobs.
    Ack(Vec<Uuid>),
    /// Not stored, for this reason; the same again would be refused too.
    Refused(String),
    /// Not stored, since that was what the caller wanted.
    RolledBack,
    /// Perhaps stored, perhaps not.
    Unknown(String),
}

/// The connection of a producer.
enum Sender {
    Sql(Box<sql::Sender>),
    Http(Box<http::Sender>),
    Library(Box<library::Sender>),
}

impl Sender {
    async fn send(&self, call: &Call, life: u64) -> Answer {
        let sending = async {
            match self {
                Sender::Sql(sender) => sender.send(call, life).await,
                Sender::Http(sender) => sender.send(call, life).await,
                Sender::Library(sender) => sender.send(call, life).await,
            }
        };
        let answer = tokio::time::timeout(PATIENCE, sending).await;
        answer.unwrap_or_else(|_| Answer::Unknown("no answer in time".to_owned()))
    }
}

/// The name of a producer's ledger.
pub(crate) fn name(slot: usize) -> String {
    format!("producer-{slot}")
}

/// Makes the calls of one producer; those that its ledger has answered are behind it.
pub(crate) async fn run(run: Run, slot: usize) -> Result<()> {
    let done: HashSet<usize> = ledger::lines(&run.folder, &name(slot))
        .filter(|line| matches!(line["e"].as_str(), Some("ack" | "refused" | "rolled_back")))
        .filter_map(|line| usize::try_from(line["call"].as_u64()?).ok())
        .collect();
    let ledger = Ledger::open(&run.folder, &name(slot));
    let sender = match DOORS[slot] {
        Door::Sql => Sender::Sql(Box::new(sql::Sender::new(&run, &name(slot)))),
        Door::Http => Sender::Http(Box::new(http::Sender::new(&run))),
        Door::Library => Sender::Library(Box::new(library::Sender::new(&run, &name(slot))?)),
    };
    let calls: Vec<Call> = plan::calls(&run)
        .into_iter()
        .filter(|call| call.producer == slot && !done.contains(&call.number))
        .collect();
    let alone = |call: &Call| !call.is_single() || DOORS[slot] != Door::Library;
    // Calls of the library that are made at once share statements.
    for together in calls.chunk_by(|one, next| !alone(one) && !alone(next)) {
        for few in together.chunks(8) {
            until(few[0].due(&run)).await;
            join_all(few.iter().map(|call| make(&run, &sender, &ledger, call))).await;
        }
    }
    Ok(())
}

/// Makes one call, again and again until its outcome is known.
async fn make(run: &Run, sender: &Sender, ledger: &Ledger, call: &Call) {
    let mut life = 0;
    loop {
        ledger.note("begin", json!({"call": call.number, "life": life}));
        match sender.send(call, life).await {
            Answer::Ack(ids) => {
                return ledger.note("ack", json!({"call": call.number, "ids": ids}));
            }
            Answer::Refused(code) => {
                return ledger.note("refused", json!({"call": call.number, "code": code}));
            }
            Answer::RolledBack => return ledger.note("rolled_back", json!({"call": call.number})),
            Answer::Unknown(why) => {
                ledger.note("unknown", json!({"call": call.number, "why": why}));
                // Nothing of this is ever committed.
                if call.manner == Manner::RolledBack {
                    return ledger.note("rolled_back", json!({"call": call.number}));
                }
                if run.slip == Some(Slip::NewIdsAfterUnknown) {
                    life += 1;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What a refusal of the database means to a caller.
fn judged(error: &tokio_postgres::Error) -> Answer {
    match error.code() {
        Some(code) if is_final(code.code()) => Answer::Refused(code.code().to_owned()),
        _ => Answer::Unknown(error.to_string()),
    }
}

/// Whether a code of ours says that the same call would be refused again.
fn is_final(code: &str) -> bool {
    matches!(code, "RL404" | "RL409" | "RL413" | "RL422")
}
