//! Calls that do not travel with others: how many there may be, and how many connections they take.
//!
//! They are those that may be held up, by a unique key, a graph or a locked row, and the large
//! ones. Each sort stands in a line of its own, so that a key that somebody holds keeps no worker
//! from its lease; and the lines leave some of the pool to everybody else, if it has four or more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::coalesce::{Place, Room, overloaded};
use super::{Error, Pool};

/// So many of a line may wait for a connection or have one; more are refused.
const MOST_CALLS: usize = 1_000;

/// What these may weigh, in bytes.
const MOST_BYTES: usize = 128 << 20;

/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clones share it.
#[derive(Clone)]
pub(super) struct Alone {
    /// Enqueues, which wait for whoever holds their keys.
    pub(super) enqueues: Line,
    /// Acquires, heartbeats and ends, on which leases hang.
    pub(super) work: Line,
    /// Further tries to end what others were seen to hold.
    pub(super) held: Line,
}

impl Alone {
    /// The lines of a pool. What others hold is worth a wait as long as a lease.
    pub(super) fn new(pool: &Pool, lease: Duration) -> Self {
        let size = usize::try_from(pool.size()).unwrap_or(1);
        Alone {
            enqueues: Line::new(size / 3, PATIENCE),
            work: Line::new(size / 3, PATIENCE),
            held: Line::new(size / 8, lease),
        }
    }
}

/// Calls that wait behind one another for their turns. Clones share it.
#[derive(Clone)]
pub(super) struct Line {
    room: Room,
    turns: Arc<Semaphore>,
    patience: Duration,
}

/// A connection may be taken from the pool for as long as this is kept.
pub(super) type Turn = OwnedSemaphorePermit;

impl Line {
    fn new(turns: usize, patience: Duration) -> Self {
        let turns = Arc::new(Semaphore::new(turns.max(1)));
        Line { room: Room::new(MOST_CALLS, MOST_BYTES), turns, patience }
    }

    /// A place for a call of a verb, or its refusal.
    pub(super) fn enter(&self, verb: &'static str, bytes: usize) -> Result<Place, Error> {
        self.room.enter(bytes).ok_or_else(|| overloaded(verb))
    }

    /// Waits for the right to take a connection for one statement.
    pub(super) async fn turn(&self) -> Result<Turn, Error> {
        let turn = timeout(self.patience, self.turns.clone().acquire_owned()).await;
        turn.map_err(|_| Error::PoolExhausted).map(|turn| turn.expect("it is never closed"))
    }
}
