//! How a worker without a library sleeps: LISTEN, watch, look until settled, wait.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::poll_fn;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use crate::ledger::Ledger;
use crate::run::{QUEUES, Run, Slip, micros};

/// A connection may be silent for ever.
const PATIENCE: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(30);

/// A listening session, and where the worker stands with it.
pub(super) struct Sleeper {
    run: Run,
    name: String,
    ledger: Ledger,
    session: Option<Session>,
    broke: bool,
}

struct Session {
    client: Client,
    news: UnboundedReceiver<()>,
    /// What `watch` gave, as text, while this session is among the sleepers.
    watching: Option<String>,
    is_settled: bool,
}

impl Sleeper {
    pub(super) fn new(run: &Run, name: &str, ledger: &Ledger) -> Self {
        let (name, ledger) = (format!("{name} listener"), ledger.clone());
        Sleeper { run: run.clone(), name, ledger, session: None, broke: false }
    }

    /// There was less than was asked for: gives back when it is time to look again.
    pub(super) async fn sleep(&mut self) {
        if self.try_sleep().await.is_err() {
            self.session = None;
            self.broke = true;
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// There is enough to do: nobody needs to wake this worker.
    pub(super) async fn wake(&mut self) {
        let Some(session) = &mut self.session else { return };
        if session.watching.take().is_some() {
            let queues: &[&str] = &QUEUES;
            let sql = "select rowlock.unwatch($1)";
            let unwatching = async { session.client.query(sql, &[&queues]).await };
            if !matches!(timeout(PATIENCE, unwatching).await, Ok(Ok(_))) {
                self.session = None;
                self.broke = true;
            }
        }
    }

    /// A long sleep is evidence: whatever was ready meanwhile had a free slot.
    fn slept(&self, begin: i64) {
        if 1_000_000 < micros() - begin {
            self.ledger.note("slept", json!({"begin": begin}));
        }
    }

    async fn try_sleep(&mut self) -> Result<()> {
        if self.session.is_none() {
            if self.broke && self.run.slip == Some(Slip::NoNewListen) {
                let begin = micros();
                tokio::time::sleep(self.run.poll).await;
                self.slept(begin);
                return Ok(());
            }
            self.session = Some(Session::open(&self.run.url, &self.name).await?);
        }
        if self.run.slip == Some(Slip::LookThenWatch) {
            return self.sleep_blind().await;
        }
        let session = self.session.as_mut().expect("it was opened");
        if session.watching.is_none() {
            // Whoever enqueued just before did not see this sleeper: look once more.
            return session.watch().await;
        }
        if !session.is_settled {
            session.look_settled().await?;
            tokio::time::sleep(GLANCE).await;
            return Ok(());
        }
        self.wait().await;
        Ok(())
    }

    /// Watches, and looks no more before it waits.
    async fn sleep_blind(&mut self) -> Result<()> {
        tokio::time::sleep(10 * GLANCE).await;
        self.session.as_mut().expect("it was opened").watch().await?;
        self.wait().await;
        self.wake().await;
        Ok(())
    }

    async fn wait(&mut self) {
        let Some(session) = &mut self.session else { return };
        let begin = micros();
        let news = timeout(self.run.poll, session.news.recv()).await;
        self.slept(begin);
        if let Ok(None) = news {
            self.session = None;
            self.broke = true;
        }
    }
}

impl Session {
    async fn open(url: &str, name: &str) -> Result<Session> {
        let mut config: Config = url.parse()?;
        config.application_name(name).connect_timeout(Duration::from_secs(3));
        let (client, mut connection) = timeout(PATIENCE, config.connect(NoTls)).await??;
        let (tell, news) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if matches!(message, AsyncMessage::Notification(_)) && tell.send(()).is_err() {
                    return;
                }
            }
        });
        timeout(PATIENCE, client.batch_execute("listen rowlock")).await??;
        Ok(Session { client, news, watching: None, is_settled: false })
    }

    async fn watch(&mut self) -> Result<()> {
        let queues: &[&str] = &QUEUES;
        let sql = "select rowlock.watch($1)::text";
        let watching = async { self.client.query_one(sql, &[&queues]).await };
        let row = timeout(PATIENCE, watching).await??;
        self.watching = Some(row.get(0));
        self.is_settled = false;
        while self.news.try_recv().is_ok() {}
        Ok(())
    }

    async fn look_settled(&mut self) -> Result<()> {
        let sql = "select rowlock.settled($1::text::pg_snapshot)";
        let asking = async { self.client.query_one(sql, &[&self.watching]).await };
        self.is_settled = timeout(PATIENCE, asking).await??.get(0);
        Ok(())
    }
}
