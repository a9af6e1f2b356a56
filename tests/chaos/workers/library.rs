//! A worker that is the library's runtime.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rowlock::shutdown::Shutdown;
use rowlock::{Job, Outcome, Worker};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::desk::Handling;
use crate::database::connect;
use crate::ledger::Ledger;
use crate::run::{Behaviour, QUEUES, Run};

const SLOTS: usize = 5;
/// A connection may be silent for ever.
const PATIENCE: Duration = Duration::from_secs(5);
const SNOOZE: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Args {
    n: usize,
}

/// What handlers need.
struct Shop {
    run: Run,
    name: String,
    ledger: Ledger,
    idle: Mutex<Vec<Client>>,
}

pub(super) async fn work(run: Run, name: String, ledger: Ledger) -> Result<()> {
    let options = run.options(&name, 6);
    let mut worker = Worker::with_options(options).name(&name).lease(run.lease).poll(run.poll);
    for queue in QUEUES {
        worker = worker.queue(queue, SLOTS);
    }
    let shop = Arc::new(Shop { run, name, ledger, idle: Mutex::default() });
    let worker = worker.on("work", move |job: Job| {
        let shop = shop.clone();
        async move { shop.handle(job).await }
    });
    // The first call of a worker must be answered; a database that is away is one more fault.
    let shutdown = Shutdown::new();
    worker.run(&shutdown).await?;
    Ok(())
}

impl Shop {
    async fn handle(&self, job: Job) -> Result<Outcome> {
        let Args { n } = job.args()?;
        let mut handling = Handling::start(&self.ledger, job.id(), job.attempt());
        let Some(behaviour) = handling.handle(&self.run, n, job.stopping()).await else {
            handling.breaks();
            anyhow::bail!("told to stop");
        };
        match behaviour {
            Behaviour::Fail => anyhow::bail!("as planned"),
            Behaviour::Snooze => Ok(Outcome::Snooze(SNOOZE)),
            Behaviour::Discard => Ok(Outcome::Discard("as planned".to_owned())),
            Behaviour::Complete if Run::has_effect(n) => {
                let completing = tokio::time::timeout(PATIENCE, self.complete(&job, n)).await;
                let done = completing.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")));
                if done.is_err() {
                    handling.breaks();
                }
                done.map(|()| Outcome::Complete)
            }
            Behaviour::Complete => Ok(Outcome::Complete),
        }
    }

    async fn complete(&self, job: &Job, n: usize) -> Result<()> {
        let idle = self.idle.lock().await.pop().filter(|client| !client.is_closed());
        let mut client = match idle {
            Some(client) => client,
            None => connect(&self.run.url, &self.name).await?,
        };
        let transaction = client.transaction().await?;
        transaction.batch_execute("set local search_path = rowlock").await?;
        if job.complete_in(&transaction, None).await? {
            let effect = "insert into chaos.effects values ($1, $2, $3, $4)";
            let values = (n as i64, job.id(), job.attempt());
            transaction.execute(effect, &[&values.0, &values.1, &values.2, &self.name]).await?;
        }
        transaction.commit().await?;
        self.idle.lock().await.push(client);
        Ok(())
    }
}
