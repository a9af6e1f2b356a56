//! What every process of a run is told.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rowlock::config::{Pooler, Settings};
use rowlock::db::Options;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chance::fate;
use crate::supervisor::Role;

/// The queues of a run.
pub(crate) const QUEUES: [&str; 3] = ["q0", "q1", "q2"];

/// The longest that anybody waits for an answer before the call is given up.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// One run: what follows from its seed, and where it takes place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    /// Jobs to be enqueued, at least.
    pub(crate) jobs: usize,
    pub(crate) faults: usize,
    /// For the ledgers and the logs.
    pub(crate) folder: PathBuf,
    pub(crate) url: String,
    /// Ways that are not as short.
    pub(crate) ways: Ways,
    /// Where the service listens.
    pub(crate) service: String,
    /// When production begins, in microseconds since 1970.
    pub(crate) starts: i64,
    /// How long nothing is struck, at first.
    pub(crate) calm: Duration,
    /// From one fault to the next.
    pub(crate) spacing: Duration,
    pub(crate) lease: Duration,
    /// How often the SQL workers look without having been woken.
    pub(crate) poll: Duration,
    /// The workers.
    pub(crate) trades: Vec<Trade>,
    /// Whether every handler takes about a second, so that much is held at any moment.
    pub(crate) slow: bool,
    /// What our own processes do wrong, for once.
    pub(crate) slip: Option<Slip>,
}

/// Ways to the database and the service that lead through something.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ways {
    /// Wires that can be cut, for producers and for workers.
    pub(crate) producers: Option<String>,
    pub(crate) workers: Option<String>,
    /// The same to the service.
    pub(crate) service: Option<String>,
    /// A pooler in transaction mode.
    pub(crate) pooler: Option<String>,
}

/// How a worker works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trade {
    /// By the functions.
    Sql,
    /// By the library's runtime.
    Library,
    /// By the service.
    Http,
}

/// A mistake of a producer or a worker, to see that the judge finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Slip {
    /// An error on COMMIT is taken for a failure, and the call is made anew under other ids.
    NewIdsAfterUnknown,
    /// The effect is committed before the completion, in a transaction of its own.
    EffectApart,
    /// A worker looks for jobs, and only then says that it sleeps.
    LookThenWatch,
    /// A worker whose listening connection broke goes on without one.
    NoNewListen,
}

impl Run {
    /// The same for one process, whose way to the database may be another. Slots are those of
    /// `plan::DOORS` and of the usual trades.
    pub(crate) fn on_its_way(mut self, role: Role, slot: usize) -> Run {
        let wire = match (role, slot) {
            (Role::Producer, 0 | 2) => self.ways.producers.clone(),
            (Role::Worker, 2 | 3) => self.ways.workers.clone(),
            _ => None,
        };
        if !matches!((role, slot), (Role::Producer, 2) | (Role::Worker, 1)) {
            self.ways.pooler = None;
        }
        self.url = wire.unwrap_or(self.url);
        self.service = self.ways.service.take().unwrap_or(self.service);
        self
    }

    /// How the library reaches the database in this process: by the pooler, if there is one.
    pub(crate) fn options(&self, name: &str, pool_size: u32) -> Options {
        let mut settings = Settings::default().database;
        settings.pool_size = pool_size;
        settings.call_timeout = SILENCE;
        settings.statement_timeout = SILENCE / 2;
        name.clone_into(&mut settings.application_name);
        let Some(pooler) = &self.ways.pooler else {
            return Options::new(self.url.as_str().into(), &settings);
        };
        settings.pooler = Pooler::Transaction;
        settings.listen_url = Some(self.url.as_str().into());
        Options::new(pooler.as_str().into(), &settings)
    }

    /// The id of a job by its number. A second `life` is for those who forget what they asked for.
    pub(crate) fn id(&self, n: usize, life: u64) -> Uuid {
        let number = n as u64;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&fate(self.seed, &[1, number, life]).to_be_bytes());
        random[8..].copy_from_slice(&fate(self.seed, &[2, number, life]).to_be_bytes()[..2]);
        let millis = u64::try_from(self.starts).expect("after 1970") / 1000 + number / 10;
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// How long calls are made.
    pub(crate) fn span(&self) -> Duration {
        self.calm + self.spacing * u32::try_from(self.faults).expect("so many faults")
    }

    /// What the handler of a job does in this attempt.
    pub(crate) fn behaviour(&self, n: usize, attempt: i32) -> Behaviour {
        let attempt = u64::try_from(attempt).expect("from 1");
        if fate(self.seed, &[3, n as u64]).is_multiple_of(300) {
            return Behaviour::Discard;
        }
        match fate(self.seed, &[4, n as u64, attempt]) % 100 {
            0..=5 if attempt <= 3 => Behaviour::Fail,
            6..=7 if attempt <= 3 => Behaviour::Snooze,
            _ => Behaviour::Complete,
        }
    }

    /// How long the handler of a job takes.
    pub(crate) fn work(&self, n: usize, attempt: i32) -> Duration {
        let fate = fate(self.seed, &[5, n as u64, u64::try_from(attempt).expect("from 1")]);
        let long = self.slow || fate.is_multiple_of(40);
        let millis = if long { 300 + fate / 40 % 900 } else { 1 + fate / 40 % 12 };
        Duration::from_millis(millis)
    }

    /// Whether the handler of a job writes an effect along with its completion.
    pub(crate) fn has_effect(n: usize) -> bool {
        n.is_multiple_of(2)
    }
}

/// How a handler ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Complete,
    Fail,
    Snooze,
    Discard,
}

/// Microseconds since 1970: all processes of a run and its database share this machine's clock.
pub(crate) fn micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("before the year 292277")
}

/// A span in microseconds.
pub(crate) fn in_micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).expect("a short span")
}

/// Waits until a moment of that clock.
pub(crate) async fn until(moment: i64) {
    let left = u64::try_from(moment - micros()).unwrap_or(0);
    tokio::time::sleep(Duration::from_micros(left)).await;
}
