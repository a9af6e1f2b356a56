//! A worker that calls the functions: as a program in any language would.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use tokio::sync::{Mutex, Semaphore};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Handling, Held, Task, start_all};
use super::sleep::Sleeper;
use crate::database::connect;
use crate::ledger::Ledger;
use crate::run::{Behaviour, QUEUES, Run, Slip, micros};

const SLOTS: usize = 6;
const PAUSE: Duration = Duration::from_millis(100);
/// A statement that is not answered by then is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A worker and its connections, which are shared and opened anew when they broke.
struct Worker {
    run: Run,
    name: String,
    ledger: Ledger,
    desk: Desk,
    idle: Mutex<Vec<Client>>,
}

pub(super) async fn work(run: Run, name: String, ledger: Ledger) -> Result<()> {
    let desk = Desk::new(&run, &ledger);
    let worker = Arc::new(Worker { run, name, ledger, desk, idle: Mutex::default() });
    let beating = worker.clone();
    tokio::spawn(async move { beating.beat().await });
    let mut sleeper = Sleeper::new(&worker.run, &worker.name, &worker.ledger);
    let slots = Arc::new(Semaphore::new(SLOTS));
    loop {
        let free = slots.available_permits();
        if free == 0 {
            drop(slots.acquire().await?);
            continue;
        }
        let (asked, tasks) = match worker.acquire(free).await {
            Ok(tasks) => (free, tasks),
            Err(_) => {
                worker.desk.gave_up();
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let is_short = tasks.len() < asked;
        start_all(&slots, tasks, |task, stop| {
            let worker = worker.clone();
            async move { worker.execute(task, stop).await }
        })
        .await?;
        if is_short {
            sleeper.sleep().await;
        } else {
            sleeper.wake().await;
        }
    }
}

impl Worker {
    /// A connection to use, and to give back only if nothing went wrong on it.
    async fn client(&self) -> Result<Client> {
        while let Some(client) = self.idle.lock().await.pop() {
            if !client.is_closed() {
                return Ok(client);
            }
        }
        connect(&self.run.url, &self.name).await
    }

    async fn acquire(&self, asked: usize) -> Result<Vec<(Task, CancellationToken)>> {
        let call_number = self.desk.next_call();
        let client = self.client().await?;
        let sql = "select job_id, attempt, token, (args ->> 'n')::bigint
             from rowlock.acquire($1, $2, $3, lease => $4::text::interval, name => $5,
                call_number => $6)";
        let queues: &[&str] = &QUEUES;
        let (count, lease) = (i32::try_from(asked)?, self.lease());
        let sent = micros();
        let asking = async {
            let worker = &self.desk.worker;
            client.query(sql, &[worker, &queues, &count, &lease, &self.name, &call_number]).await
        };
        let rows = tokio::time::timeout(PATIENCE, asking).await??;
        let tasks: Vec<Task> = rows
            .iter()
            .map(|row| Task {
                held: Held { job: row.get(0), attempt: row.get(1), token: row.get(2) },
                n: usize::try_from(row.get::<_, i64>(3)).expect("a number of the plan"),
            })
            .collect();
        let stops = self.desk.acquired(sent, asked, &tasks);
        self.idle.lock().await.push(client);
        Ok(tasks.into_iter().zip(stops).collect())
    }

    fn lease(&self) -> String {
        format!("{} milliseconds", self.run.lease.as_millis())
    }

    /// Extends the lease for as long as the process lives.
    async fn beat(&self) {
        loop {
            tokio::time::sleep(self.run.lease / 4).await;
            if self.heartbeat().await.is_err() {
                self.desk.check_deadline();
            }
        }
    }

    async fn heartbeat(&self) -> Result<()> {
        let (held, seen_call) = self.desk.list();
        let (jobs, attempts, tokens) = columns(&held);
        let client = self.client().await?;
        let sql = "select verdict from rowlock.heartbeat($1, $2, $3, $4,
                lease => $5::text::interval, seen_call => $6)";
        let sent = micros();
        let lease = self.lease();
        let beating = async {
            let worker = &self.desk.worker;
            client.query(sql, &[worker, &jobs, &attempts, &tokens, &lease, &seen_call]).await
        };
        let rows = tokio::time::timeout(self.run.lease / 4, beating).await??;
        let verdicts = held.into_iter().zip(rows.iter().map(|row| row.get(0)));
        self.desk.beaten(sent, &verdicts.collect::<Vec<_>>());
        self.idle.lock().await.push(client);
        Ok(())
    }

    async fn execute(&self, task: Task, stop: CancellationToken) {
        let Task { held, n } = task;
        let mut handling = Handling::start(&self.ledger, held.job, held.attempt);
        let behaviour = handling.handle(&self.run, n, &stop).await;
        drop(handling);
        // Told to stop: lost, or asked to by an operator; then its end says so.
        let behaviour = behaviour.unwrap_or(Behaviour::Complete);
        // Until it is answered, or is not this worker's any more.
        while self.desk.has(&held) {
            let telling = async {
                if behaviour == Behaviour::Complete && Run::has_effect(n) {
                    self.complete_with_effect(&held, n).await
                } else {
                    self.finish(&held, behaviour).await
                }
            };
            // A connection may be silent for ever.
            if let Ok(Ok(verdict)) = tokio::time::timeout(PATIENCE, telling).await {
                self.desk.told(&held, &verdict);
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.desk.drop(&held);
    }

    /// The completion and the effect in one transaction. Where the outcome of its commit is
    /// unknown, the effect tells: it has the name of this execution.
    async fn complete_with_effect(&self, held: &Held, n: usize) -> Result<String> {
        let mut client = self.client().await?;
        let seen = "select exists (select from chaos.effects where job = $1 and attempt = $2)";
        let is_apart = self.run.slip == Some(Slip::EffectApart);
        if !is_apart && client.query_one(seen, &[&held.job, &held.attempt]).await?.get::<_, bool>(0)
        {
            return Ok("completed".to_owned());
        }
        let effect = "insert into chaos.effects values ($1, $2, $3, $4)";
        let number = n as i64;
        if is_apart {
            client.execute(effect, &[&number, &held.job, &held.attempt, &self.name]).await?;
        }
        let transaction = client.transaction().await?;
        let sql = "select rowlock.complete_or_raise($1, $2, $3, $4)";
        let Held { job, attempt, token } = held;
        let ended = transaction.query_one(sql, &[&self.desk.worker, job, attempt, token]).await;
        let is_completed: bool = match ended {
            Ok(row) => row.get(0),
            Err(error) if error.code().is_some_and(|code| code.code() == "RL001") => {
                return Ok("stale".to_owned());
            }
            Err(error) => return Err(error.into()),
        };
        if is_completed && !is_apart {
            transaction.execute(effect, &[&number, job, attempt, &self.name]).await?;
        }
        transaction.commit().await?;
        self.idle.lock().await.push(client);
        Ok(if is_completed { "completed" } else { "cancelled" }.to_owned())
    }

    async fn finish(&self, held: &Held, behaviour: Behaviour) -> Result<String> {
        let client = self.client().await?;
        let (jobs, attempts, tokens) = columns(&[*held]);
        let worker = &self.desk.worker;
        let until = [SystemTime::now() + PAUSE];
        let discard = [behaviour == Behaviour::Discard];
        let sql = |verb: &str, more: &str| {
            format!("select verdict from rowlock.{verb}($1, $2, $3, $4{more})")
        };
        let finishing = async {
            match behaviour {
                Behaviour::Complete => {
                    client
                        .query_one(&sql("complete", ""), &[worker, &jobs, &attempts, &tokens])
                        .await
                }
                Behaviour::Snooze => {
                    let sql = sql("snooze", ", $5");
                    client
                        .query_one(&sql, &[worker, &jobs, &attempts, &tokens, &until.as_slice()])
                        .await
                }
                Behaviour::Fail | Behaviour::Discard => {
                    let sql = sql("fail", ", array['as planned'], $5, $6");
                    let (at, discard) = (until.as_slice(), discard.as_slice());
                    client
                        .query_one(&sql, &[worker, &jobs, &attempts, &tokens, &at, &discard])
                        .await
                }
            }
        };
        let verdict = finishing.await?.get(0);
        self.idle.lock().await.push(client);
        Ok(verdict)
    }
}

type Columns = (Vec<uuid::Uuid>, Vec<i32>, Vec<uuid::Uuid>);

fn columns(held: &[Held]) -> Columns {
    let jobs = held.iter().map(|held| held.job).collect();
    let attempts = held.iter().map(|held| held.attempt).collect();
    (jobs, attempts, held.iter().map(|held| held.token).collect())
}
