//! A worker that speaks to the service, as docs/HTTP.md describes it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Handling, Held, Task, start_all};
use crate::http::post;
use crate::ledger::Ledger;
use crate::run::{Behaviour, QUEUES, Run, micros};

const SLOTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(100);
const WAIT: u64 = 1_000;

struct Worker {
    run: Run,
    name: String,
    ledger: Ledger,
    desk: Desk,
}

pub(super) async fn work(run: Run, name: String, ledger: Ledger) -> Result<()> {
    let desk = Desk::new(&run, &ledger);
    let worker = Arc::new(Worker { run, name, ledger, desk });
    let beating = worker.clone();
    tokio::spawn(async move { beating.beat().await });
    let slots = Arc::new(Semaphore::new(SLOTS));
    loop {
        let free = slots.available_permits();
        if free == 0 {
            drop(slots.acquire().await?);
            continue;
        }
        let Ok(tasks) = worker.acquire(free).await else {
            worker.desk.gave_up();
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        start_all(&slots, tasks, |task, stop| {
            let worker = worker.clone();
            async move { worker.execute(task, stop).await }
        })
        .await?;
    }
}

impl Worker {
    async fn ask(&self, path: &str, body: Value) -> Result<Value> {
        let (status, answer) = post(&self.run.service, path, &[], &body.to_string()).await?;
        ensure!(status == 200, "{status} {answer}");
        Ok(answer)
    }

    fn lease(&self) -> String {
        format!("{}ms", self.run.lease.as_millis())
    }

    async fn acquire(&self, asked: usize) -> Result<Vec<(Task, CancellationToken)>> {
        let sent = micros();
        let answer = self.ask(
            "/v1/acquire",
            json!({
                "worker": self.desk.worker, "queues": QUEUES, "max_jobs": asked, "name": self.name,
                "lease": self.lease(), "call_number": self.desk.next_call(), "wait_ms": WAIT,
            }),
        );
        let answer = answer.await?;
        let task = |job: &Value| -> Option<Task> {
            Some(Task {
                held: Held {
                    job: job["job_id"].as_str()?.parse().ok()?,
                    attempt: job["attempt"].as_i64()?.try_into().ok()?,
                    token: job["token"].as_str()?.parse().ok()?,
                },
                n: job["args"]["n"].as_u64()?.try_into().ok()?,
            })
        };
        let jobs = answer["jobs"].as_array().context("no jobs")?;
        let tasks: Option<Vec<Task>> = jobs.iter().map(task).collect();
        let tasks = tasks.context("a job that is none")?;
        let stops = self.desk.acquired(sent, asked, &tasks);
        Ok(tasks.into_iter().zip(stops).collect())
    }

    async fn beat(&self) {
        loop {
            tokio::time::sleep(self.run.lease / 4).await;
            let beating = tokio::time::timeout(self.run.lease / 4, self.heartbeat()).await;
            if !matches!(beating, Ok(Ok(()))) {
                self.desk.check_deadline();
            }
        }
    }

    async fn heartbeat(&self) -> Result<()> {
        let (held, seen_call) = self.desk.list();
        let sent = micros();
        let path = format!("/v1/workers/{}/heartbeat", self.desk.worker);
        let executions: Vec<Value> = held.iter().map(named).collect();
        let body = json!({"executions": executions, "lease": self.lease(), "seen_call": seen_call});
        let answer = self.ask(&path, body).await?;
        let verdicts = answer["executions"].as_array().context("no verdicts")?.iter();
        let verdicts =
            verdicts.map(|verdict| verdict["verdict"].as_str().unwrap_or("none").to_owned());
        self.desk.beaten(sent, &held.into_iter().zip(verdicts).collect::<Vec<_>>());
        Ok(())
    }

    async fn execute(&self, task: Task, stop: CancellationToken) {
        let Task { held, n } = task;
        let mut handling = Handling::start(&self.ledger, held.job, held.attempt);
        let behaviour = handling.handle(&self.run, n, &stop).await;
        drop(handling);
        let behaviour = behaviour.unwrap_or(Behaviour::Complete);
        while self.desk.has(&held) {
            match self.finish(&held, behaviour).await {
                Ok(verdict) => {
                    self.desk.told(&held, &verdict);
                    break;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        self.desk.drop(&held);
    }

    async fn finish(&self, held: &Held, behaviour: Behaviour) -> Result<String> {
        let mut entry = named(held);
        let soon = OffsetDateTime::now_utc() + PAUSE;
        let soon = soon.format(&Rfc3339)?;
        let verb = match behaviour {
            Behaviour::Complete => "complete",
            Behaviour::Snooze => {
                entry["until"] = soon.into();
                "snooze"
            }
            Behaviour::Fail | Behaviour::Discard => {
                entry["retry_at"] = soon.into();
                entry["discard"] = (behaviour == Behaviour::Discard).into();
                "fail"
            }
        };
        let body = json!({"worker": self.desk.worker, "executions": [entry]});
        let answer = self.ask(&format!("/v1/executions/{verb}"), body).await?;
        let verdict = answer["executions"][0]["verdict"].as_str();
        Ok(verdict.context("no verdict")?.to_owned())
    }
}

fn named(held: &Held) -> Value {
    json!({"job_id": held.job, "attempt": held.attempt, "token": held.token})
}
