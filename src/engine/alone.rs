//! Calls that do not travel with others: how many there may be, and how many connections they take.
//!
//! They are those that may be held up, by a unique key, a graph or a locked row, and the large
//! ones. Half of the pool is kept from them, so that they cannot stop everybody else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::coalesce::{Place, Room, overloaded};
use super::{Error, Pool};

/// So many may wait for a connection or have one; more are refused.
const MOST_CALLS: usize = 1_000;

/// What these may weigh, in bytes.
const MOST_BYTES: usize = 256 << 20;

/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clones share it.
#[derive(Clone)]
pub(super) struct Alone {
    room: Room,
    turns: Arc<Semaphore>,
}

/// A connection may be taken from the pool for as long as this is kept.
pub(super) type Turn = OwnedSemaphorePermit;

impl Alone {
    pub(super) fn new(pool: &Pool) -> Self {
        let turns = usize::try_from(pool.size() / 2).unwrap_or(1).max(1);
        Alone { room: Room::new(MOST_CALLS, MOST_BYTES), turns: Arc::new(Semaphore::new(turns)) }
    }

    /// A place for a call of a verb, or its refusal.
    pub(super) fn enter(&self, verb: &'static str, bytes: usize) -> Result<Place, Error> {
        self.room.enter(bytes).ok_or_else(|| overloaded(verb))
    }

    /// Waits for the right to take a connection for one statement.
    pub(super) async fn turn(&self) -> Result<Turn, Error> {
        let turn = timeout(PATIENCE, self.turns.clone().acquire_owned()).await;
        turn.map_err(|_| Error::PoolExhausted).map(|turn| turn.expect("it is never closed"))
    }
}
