//! The views for people: queues, workers, latencies and outcomes.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Connection, Error, Row};
use crate::model::JobState;
use crate::store::values::Interval;
use crate::store::word;

/// A queue that has settings, or in which something waits or runs.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueFigures {
    /// The queue.
    pub name: String,
    /// Since when nothing is acquired from it.
    pub paused_at: Option<OffsetDateTime>,
    /// Waiting this long makes a job one priority more urgent; `None` where aging is off.
    pub aging_interval: Option<std::time::Duration>,
    /// The share of what is acquired that age may claim.
    pub aging_share: f32,
    /// How much waits and runs, by state and priority.
    pub depths: Vec<Depth>,
}

/// The jobs of one queue in one state with one priority.
#[derive(Clone, Debug, PartialEq)]
pub struct Depth {
    /// `ready`, `scheduled`, `blocked` or `running`.
    pub state: JobState,
    /// 0 runs first, 9 last.
    pub priority: i32,
    /// How many.
    pub jobs: i64,
    /// Seconds since the oldest became ready or was started; below zero until the next is due.
    pub oldest_seconds: Option<f64>,
}

/// A worker, its load and its health.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerFigures {
    /// The incarnation.
    pub id: Uuid,
    /// For people.
    pub name: Option<String>,
    /// `live`, or `lost` once its executions were taken back.
    pub status: String,
    /// The kinds that it can run; all where `None`.
    pub kinds: Option<Vec<String>>,
    /// The queues that it asked for, the newest hundred, the newest first.
    pub queues: Vec<String>,
    /// How many jobs it runs at once.
    pub capacity: Option<i32>,
    /// How many it runs now.
    pub load: i64,
    /// When it was first seen.
    pub started_at: OffsetDateTime,
    /// When it was last seen.
    pub heartbeat_at: OffsetDateTime,
    /// Seconds since then.
    pub heartbeat_age_seconds: f64,
    /// Until then it holds what it acquired.
    pub lease_ends_at: OffsetDateTime,
    /// How many executions it ended in the last hour, of those sampled.
    pub recent_executions: Option<i64>,
    /// The share of these that ended well.
    pub recent_success_share: Option<f64>,
    /// `healthy`, `failing` or `lost`.
    pub health: String,
}

/// How long the first job of a lane has been ready.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitFigures {
    /// The queue.
    pub queue: String,
    /// 0 runs first, 9 last.
    pub priority: i32,
    /// Seconds since it became ready.
    pub seconds: f64,
    /// Whether nothing is acquired from the queue.
    pub paused: bool,
}

/// From ready to acquired, over the last hour, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyFigures {
    /// The queue; `None` for all of them.
    pub queue: Option<String>,
    /// How many executions were sampled.
    pub executions: i64,
    /// Their average.
    pub average_seconds: Option<f64>,
    /// Nineteen of twenty were faster.
    pub p95_seconds: Option<f64>,
    /// Ninety-nine of a hundred were faster.
    pub p99_seconds: Option<f64>,
}

/// How executions of the last hour ended.
#[derive(Clone, Debug, PartialEq)]
pub struct OutcomeFigures {
    /// The queue.
    pub queue: String,
    /// `completed`, `failed`, `snoozed`, `released`, `cancelled`, `lost` or `timed_out`.
    pub outcome: String,
    /// How many, of those sampled.
    pub executions: i64,
    /// Their share of the queue's.
    pub share: f64,
    /// How long they ran on average, in seconds.
    pub average_seconds: Option<f64>,
}

/// What a dashboard shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// By queue, and over all.
    pub latencies: Vec<LatencyFigures>,
    /// By queue and outcome.
    pub outcomes: Vec<OutcomeFigures>,
    /// By queue and priority, as it is now.
    pub waits: Vec<WaitFigures>,
}

/// The queues, by name, 1,000 at most.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn queues(connection: &Connection) -> Result<Vec<QueueFigures>, Error> {
    let sql = "SELECT n.name, q.paused_at, \
               CASE WHEN q.name IS NULL THEN default_of('aging_interval') \
               ELSE q.aging_interval END, \
               coalesce(q.aging_share, default_aging_share()), s.state, s.priority, s.jobs, \
               s.oldest_seconds FROM (\
               SELECT x.name FROM queues x UNION SELECT y.queue FROM queue_stats y \
               ORDER BY 1 LIMIT 1000) n \
               LEFT JOIN queues q ON q.name = n.name \
               LEFT JOIN queue_stats s ON s.queue = n.name ORDER BY n.name, s.state, s.priority";
    let mut queues: Vec<QueueFigures> = Vec::new();
    for row in &connection.query(sql, &[]).await? {
        let name: &str = row.try_get(0)?;
        if queues.last().is_none_or(|last| last.name != name) {
            queues.push(QueueFigures {
                name: name.to_owned(),
                paused_at: row.try_get(1)?,
                aging_interval: row.try_get::<_, Option<Interval>>(2)?.map(|interval| interval.0),
                aging_share: row.try_get(3)?,
                depths: Vec::new(),
            });
        }
        if let (Some(queue), Some(depth)) = (queues.last_mut(), depth(row)?) {
            queue.depths.push(depth);
        }
    }
    Ok(queues)
}

fn depth(row: &Row) -> Result<Option<Depth>, Error> {
    if row.try_get::<_, Option<&str>>(4)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Depth {
        state: word(row, 4)?,
        priority: row.try_get(5)?,
        jobs: row.try_get(6)?,
        oldest_seconds: row.try_get(7)?,
    }))
}

/// The workers, those last seen first, 1,000 at most.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn workers(connection: &Connection) -> Result<Vec<WorkerFigures>, Error> {
    let sql = "SELECT w.id, w.name, w.status, w.kinds, w.queues, w.capacity, w.load, \
               w.started_at, w.heartbeat_at, w.heartbeat_age_seconds, w.lease_ends_at, \
               w.recent_executions, w.recent_success_share, w.health \
               FROM worker_stats w ORDER BY w.heartbeat_at DESC LIMIT 1000";
    let read = |row: &Row| {
        Ok(WorkerFigures {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            status: row.try_get(2)?,
            kinds: row.try_get(3)?,
            queues: row.try_get(4)?,
            capacity: row.try_get(5)?,
            load: row.try_get(6)?,
            started_at: row.try_get(7)?,
            heartbeat_at: row.try_get(8)?,
            heartbeat_age_seconds: row.try_get(9)?,
            lease_ends_at: row.try_get(10)?,
            recent_executions: row.try_get(11)?,
            recent_success_share: row.try_get(12)?,
            health: row.try_get(13)?,
        })
    };
    connection.query(sql, &[]).await?.iter().map(read).collect()
}

/// Latencies and outcomes of the last hour, and the longest waits of now.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn stats(connection: &Connection) -> Result<Stats, Error> {
    let sql = "SELECT l.queue, l.executions, l.average_seconds, l.p95_seconds, l.p99_seconds \
               FROM acquire_latency l ORDER BY l.queue NULLS FIRST LIMIT 1000";
    let latency = |row: &Row| {
        Ok::<_, Error>(LatencyFigures {
            queue: row.try_get(0)?,
            executions: row.try_get(1)?,
            average_seconds: row.try_get(2)?,
            p95_seconds: row.try_get(3)?,
            p99_seconds: row.try_get(4)?,
        })
    };
    let latencies = connection.query(sql, &[]).await?.iter().map(latency).collect::<Result<_, _>>();
    let sql = "SELECT o.queue, o.outcome, o.executions, o.share, o.average_seconds \
               FROM outcome_stats o ORDER BY o.queue, o.outcome LIMIT 10000";
    let outcome = |row: &Row| {
        Ok::<_, Error>(OutcomeFigures {
            queue: row.try_get(0)?,
            outcome: row.try_get(1)?,
            executions: row.try_get(2)?,
            share: row.try_get(3)?,
            average_seconds: row.try_get(4)?,
        })
    };
    let outcomes = connection.query(sql, &[]).await?.iter().map(outcome).collect::<Result<_, _>>();
    let sql = "SELECT l.queue, l.priority, l.seconds, l.paused FROM longest_waits l \
               ORDER BY l.queue, l.priority";
    let wait = |row: &Row| {
        Ok::<_, Error>(WaitFigures {
            queue: row.try_get(0)?,
            priority: row.try_get(1)?,
            seconds: row.try_get(2)?,
            paused: row.try_get(3)?,
        })
    };
    let waits = connection.query(sql, &[]).await?.iter().map(wait).collect::<Result<_, _>>();
    Ok(Stats { latencies: latencies?, outcomes: outcomes?, waits: waits? })
}
