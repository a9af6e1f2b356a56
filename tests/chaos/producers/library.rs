//! A producer that uses the library: the engine, whose calls share statements, and the client
//! inside a transaction of its own.

use anyhow::Result;
use rowlock::config::Settings;
use rowlock::db;
use rowlock::engine::Engine;
use rowlock::model::OnParentFailure;
use rowlock::shutdown::Shutdown;
use rowlock::{Client, NewJob};
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use super::{Answer, is_final};
use crate::database::connect;
use crate::plan::{self, Call, Manner, PlannedJob, reference};
use crate::run::{Run, Slip};

/// Its engine, and what it needs for transactions of its own.
pub(super) struct Sender {
    run: Run,
    name: String,
    engine: Engine,
    idle: Mutex<Option<tokio_postgres::Client>>,
}

impl Sender {
    pub(super) fn new(run: &Run, name: &str) -> Result<Self> {
        let queue = Settings::default().queue;
        let engine = Engine::open(&run.options(name, 4), &queue, &Shutdown::new())?;
        Ok(Sender { run: run.clone(), name: name.to_owned(), engine, idle: Mutex::new(None) })
    }

    pub(super) async fn send(&self, call: &Call, life: u64) -> Answer {
        let jobs = call.jobs.iter().map(|job| self.job(call, job, life)).collect();
        match call.manner {
            Manner::WithOrder | Manner::RolledBack => self.transact(call, jobs).await,
            _ => told(self.engine.enqueue(jobs).await),
        }
    }

    async fn transact(&self, call: &Call, jobs: Vec<NewJob>) -> Answer {
        let unknown = |error: tokio_postgres::Error| Answer::Unknown(error.to_string());
        let idle = self.idle.lock().await.take().filter(|client| !client.is_closed());
        let mut connection = match idle {
            Some(connection) => connection,
            None => match connect(&self.run.url, &self.name).await {
                Ok(connection) => connection,
                Err(error) => return Answer::Unknown(error.to_string()),
            },
        };
        let transaction = match connection.transaction().await {
            Ok(transaction) => transaction,
            Err(error) => return unknown(error),
        };
        let order = "insert into chaos.orders values ($1) on conflict do nothing";
        if self.run.slip != Some(Slip::NewIdsAfterUnknown)
            && let Err(error) = transaction.execute(order, &[&(call.number as i64)]).await
        {
            return unknown(error);
        }
        let answer = told(Client::default().enqueue(&transaction, &jobs).await);
        if call.manner == Manner::RolledBack {
            return transaction.rollback().await.map_or_else(unknown, |()| Answer::RolledBack);
        }
        match (answer, transaction.commit().await) {
            (Answer::Ack(ids), Ok(())) => {
                *self.idle.lock().await = Some(connection);
                Answer::Ack(ids)
            }
            (Answer::Ack(_), Err(error)) => unknown(error),
            (answer, _) => answer,
        }
    }

    fn job(&self, call: &Call, job: &PlannedJob, life: u64) -> NewJob {
        let options = plan::Options::of(&self.run, job.n);
        let args = RawValue::from_string(format!("{{\"n\":{}}}", job.n)).expect("JSON");
        let mut new = NewJob::from_raw("work", args)
            .queue(options.queue)
            .id(self.run.id(job.n, life))
            .reference(reference(job.n));
        new.priority = options.priority;
        new.run_at = options.run_at;
        new.unique_key = options.has_key.then(|| format!("key {} {life}", job.n));
        for parent in &job.parents {
            new = if call.is_outside(*parent) {
                new.depends_on(self.run.id(*parent, life))
            } else {
                new.depends_on(reference(*parent).as_str())
            };
        }
        if job.parents.is_empty() {
            return new;
        }
        new.on_parent_failure(if job.goes_on {
            OnParentFailure::Continue
        } else {
            OnParentFailure::Cancel
        })
    }
}

fn told(answer: Result<Vec<rowlock::client::Enqueued>, db::Error>) -> Answer {
    match answer {
        Ok(jobs) => Answer::Ack(jobs.into_iter().map(|job| job.job_id).collect()),
        Err(error) => match error.code() {
            Some(code) if is_final(&code.to_string()) => Answer::Refused(code.to_string()),
            _ => Answer::Unknown(error.chain()),
        },
    }
}
