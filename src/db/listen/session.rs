//! One session of the listener, from the connect to the first error.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client};
use uuid::Uuid;

use crate::db::connect::{Endpoint, Wire};
use crate::db::{Error, Options};

/// Queue names begin with a letter or a digit, so no queue has such a payload.
const PROBE_PREFIX: &str = "!probe ";

/// How long a notification of our own may take to come back.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Notifications that wait between the socket and the task.
const PAYLOAD_CAPACITY: usize = 256;

/// Where sessions lead, and how they are set up.
pub(super) struct Target {
    endpoint: Endpoint,
    setup: String,
    channel: String,
}

impl Target {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let channel = options.schema().as_str().to_owned();
        let listen = format!("{}; LISTEN {}", options.setup(), options.schema().quoted());
        Ok(Target { endpoint: options.listener_endpoint()?, setup: listen, channel })
    }

    /// Opens a session that listens.
    pub(super) async fn open(&self) -> Result<Session, Error> {
        let (client, connection) = self.endpoint.open().await?;
        let (payload_sender, payloads) = mpsc::channel(PAYLOAD_CAPACITY);
        let overflow = Arc::new(AtomicBool::new(false));
        let pump = tokio::spawn(pump(connection, payload_sender, overflow.clone()));
        let session = Session { client, payloads, overflow, pump };
        session.client.batch_execute(&self.setup).await?;
        Ok(session)
    }

    /// Whether a notification reaches the session. It is sent from another session: a pooler may
    /// hand on what a transaction notifies itself of, and nothing else.
    pub(super) async fn probe(&self, session: &mut Session) -> Result<bool, Error> {
        let other = self.open_bare().await?;
        let payload = format!("{PROBE_PREFIX}{}", Uuid::new_v4());
        let notify = "SELECT pg_notify($1, $2)";
        other.query_typed(notify, &[(&self.channel, Type::TEXT), (&payload, Type::TEXT)]).await?;
        let arrival = async {
            while let Some(received) = session.payloads.recv().await {
                if received == payload {
                    return Ok(true);
                }
            }
            Err(Error::unavailable("the session ended during its test"))
        };
        tokio::time::timeout(PROBE_PATIENCE, arrival).await.unwrap_or(Ok(false))
    }

    async fn open_bare(&self) -> Result<Client, Error> {
        let (client, connection) = self.endpoint.open().await?;
        // It ends with the client; its errors are the client's.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }
}

/// An open session. Dropping it closes the connection, and Postgres lets go of its locks.
pub(super) struct Session {
    client: Client,
    payloads: mpsc::Receiver<String>,
    overflow: Arc<AtomicBool>,
    pump: JoinHandle<()>,
}

impl Session {
    /// The next queue's name, or `None` when the session has ended.
    pub(super) async fn payload(&mut self) -> Option<String> {
        loop {
            let payload = self.payloads.recv().await?;
            if !payload.starts_with(PROBE_PREFIX) {
                return Some(payload);
            }
        }
    }

    /// Whether notifications were dropped since this was last asked, for want of room.
    pub(super) fn take_overflow(&self) -> bool {
        self.overflow.swap(false, Ordering::Relaxed)
    }

    pub(super) async fn watch(&self, queues: &[String]) -> Result<String, Error> {
        let sql = "SELECT watch($1::text[])::text";
        let row = self.client.query_typed_one(sql, &[(&queues, Type::TEXT_ARRAY)]).await?;
        Ok(row.try_get(0)?)
    }

    pub(super) async fn settled(&self, snapshot: &str) -> Result<bool, Error> {
        let sql = "SELECT settled($1::text::pg_snapshot)";
        let row = self.client.query_typed_one(sql, &[(&snapshot, Type::TEXT)]).await?;
        Ok(row.try_get(0)?)
    }

    pub(super) async fn unwatch(&self, queues: &[String]) -> Result<(), Error> {
        let sql = "SELECT unwatch($1::text[])";
        self.client.query_typed(sql, &[(&queues, Type::TEXT_ARRAY)]).await?;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Not only the client: a statement in flight would keep the connection, and its locks.
        self.pump.abort();
    }
}

/// Drives the connection and hands on its notifications, until it ends.
async fn pump(mut connection: Wire, payloads: mpsc::Sender<String>, overflow: Arc<AtomicBool>) {
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => {
                // Nobody reads while a statement runs, and the statement's answer comes by this
                // very loop: waiting for room here would be a deadlock.
                if payloads.try_send(notification.payload().to_owned()).is_err() {
                    overflow.store(true, Ordering::Relaxed);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}
