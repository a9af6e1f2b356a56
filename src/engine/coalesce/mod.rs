//! Coalescing: calls that arrive while a statement of their kind is under way travel together in
//! the next one, so that many callers share one commit.
//!
//! A [`Verb`] says which calls may share a statement (those of one key), how several are sent
//! together and how one is sent alone. The calls of a key are a `lane`. A call that finds nobody
//! at work starts a driver: it takes as many calls as fit, sends them, answers each, and comes again
//! until nobody waits. So a lone call goes at once, by the statement for one; nothing lingers, and
//! nothing runs at rest.
//!
//! # Invariants
//!
//! 1. Each call gets its own answer, after the commit, or an error; a panic or the runtime's end
//!    included. An answer whose caller went away is the verb's to undo.
//! 2. What is wrong with one call is told to that one alone: its neighbours are sent again, until
//!    so many statements have waited for locks in vain that it is no single call.
//! 3. No more calls and bytes wait than the [`Room`] has; a call beyond is refused at once.
//! 4. Others wait for a statement no longer than [`PATIENCE`], while not too many take long.
//! 5. The calls of a key are sent in the order in which they came.
//! 6. However many keys there are, a verb has no more statements under way than it has turns.

mod lane;
mod room;
mod send;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::error;

use super::measure;
use crate::db::Error;
use lane::{Lane, Reply, Waiting};
use send::{Batch, PARTS_AT_ONCE, send};

pub(super) use lane::Weight;
pub(super) use room::{Place, Room};

/// Calls of one verb that may wait or be under way at once; more are refused.
pub const MOST_WAITING: usize = 4_000;

/// What these may weigh, in bytes.
const MOST_WAITING_BYTES: usize = 64 << 20;

/// Statements of one verb that others wait for, one a lane: more would make the batches smaller.
const IN_FLIGHT: usize = 2;

/// How long others wait for a statement.
const PATIENCE: Duration = Duration::from_millis(50);

/// Statements of one verb that may take longer than that.
const MOST_SLOW: usize = 4;

/// What is called, by many at a time.
pub(super) trait Verb: Send + Sync + 'static {
    /// For the figures.
    const NAME: &'static str;
    /// So many calls share a statement at most.
    const MOST_CALLS: usize;

    /// Calls share a statement if they have the same.
    type Key: Clone + Eq + Hash + Send + Sync;
    /// What is asked.
    type Call: Send + Sync;
    /// What is answered.
    type Answer: Send;

    /// What a call adds to a statement.
    fn weigh(call: &Self::Call) -> Weight;

    /// Sends two calls or more in one statement, and gives an answer each, in their order. `None`
    /// is for one that has to be sent alone.
    fn together(
        &self,
        calls: &[Self::Call],
    ) -> impl Future<Output = Result<Vec<Option<Self::Answer>>, Error>> + Send;

    /// Sends one call.
    fn alone(&self, call: &Self::Call) -> impl Future<Output = Result<Self::Answer, Error>> + Send;

    /// Whether the error of a shared statement may be the fault of some of its calls.
    fn is_of_some(key: &Self::Key, error: &Error) -> bool;

    /// The answer to a call that was never sent alone, since others hold whatever was tried.
    fn given_up(_call: Self::Call, error: Error) -> Result<Self::Answer, Error> {
        Err(error)
    }

    /// Undoes what was done for a caller who went away.
    fn undo(&self, _call: Self::Call, _answer: Self::Answer) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// The calls of one verb.
pub(super) struct Coalescer<V: Verb> {
    shared: Arc<Shared<V>>,
}

type Lanes<V> = HashMap<<V as Verb>::Key, Lane<<V as Verb>::Call, <V as Verb>::Answer>>;

struct Shared<V: Verb> {
    verb: V,
    room: Room,
    lanes: Mutex<Lanes<V>>,
    turns: Turns,
}

/// The right to have a statement under way.
struct Turns {
    /// For one that others wait for.
    in_flight: Semaphore,
    /// For one that takes long.
    slow: Semaphore,
    /// For a part of a batch that failed.
    parts: Semaphore,
}

impl<V: Verb> Coalescer<V> {
    pub(super) fn new(verb: V) -> Self {
        let room = Room::new(MOST_WAITING, MOST_WAITING_BYTES);
        let turns = Turns {
            in_flight: Semaphore::new(IN_FLIGHT),
            slow: Semaphore::new(MOST_SLOW),
            parts: Semaphore::new(PARTS_AT_ONCE),
        };
        Coalescer { shared: Arc::new(Shared { verb, room, lanes: Mutex::default(), turns }) }
    }

    /// Sends a call with others of its key, and gives its own answer. Dropped before that, it is
    /// not sent, or what it did is undone where the verb has something to undo.
    ///
    /// # Errors
    ///
    /// [`Error::Overloaded`] at once where too many wait; else by class.
    pub(super) async fn call(&self, key: V::Key, call: V::Call) -> Result<V::Answer, Error> {
        let weight = V::weigh(&call);
        let place = self.shared.room.enter(weight.bytes);
        let place = Some(place.ok_or_else(|| overloaded(V::NAME))?);
        let (sender, answered) = oneshot::channel();
        let waiting = Waiting { call, weight, reply: Reply { sender, place } };
        if self.shared.push(&key, waiting) {
            Post::new(self.shared.clone(), key).start();
        }
        let given_up = || Error::unavailable("the call was given up inside this process");
        answered.await.unwrap_or_else(|_| Err(given_up()))
    }

    /// The verb itself, for calls that do not travel with others.
    pub(super) fn verb(&self) -> &V {
        &self.shared.verb
    }

    /// The verb's name, and its calls that wait or are under way.
    pub(super) fn waiting(&self) -> (&'static str, usize) {
        (V::NAME, self.shared.room.calls())
    }
}

impl<V: Verb> Shared<V> {
    /// Nothing here waits while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Lanes<V>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a call to its lane. Whether that needs a driver, which counts from now on.
    fn push(&self, key: &V::Key, waiting: Waiting<V::Call, V::Answer>) -> bool {
        let mut lanes = self.lock();
        let lane = match lanes.get_mut(key) {
            Some(lane) => lane,
            None => lanes.entry(key.clone()).or_default(),
        };
        lane.waiting.push_back(waiting);
        !std::mem::replace(&mut lane.driven, true)
    }
}

/// The refusal of a call of a verb, counted.
pub(super) fn overloaded(verb: &'static str) -> Error {
    measure::overloaded(verb);
    Error::Overloaded
}

/// Sends what waits in a lane until nothing does.
async fn drive<V: Verb>(mut post: Post<V>) {
    let (shared, key) = (post.shared.clone(), post.key.clone());
    loop {
        // Those who were just answered come again before the next batch is taken.
        yield_now().await;
        let mut in_flight = Some(shared.turns.in_flight.acquire().await);
        let mut slow = None;
        let Some(batch) = post.take() else { return };
        let sending = send(&shared.verb, &key, batch, &shared.turns.parts);
        let mut sending = pin!(AssertUnwindSafe(sending).catch_unwind());
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut sending => break outcome,
                () = sleep(PATIENCE), if slow.is_none() => {
                    slow = shared.turns.slow.try_acquire().ok();
                    if slow.is_some() {
                        in_flight = None;
                        post.step_aside();
                    }
                }
            }
        };
        if outcome.is_err() {
            // Its calls are answered by the loss of their replies.
            error!("a statement of {} ended in a panic", V::NAME);
        }
        if slow.is_some() {
            return;
        }
        drop(in_flight);
    }
}

/// The duty to drive a lane, given up however its holder ends: run, or dropped before that.
struct Post<V: Verb> {
    shared: Arc<Shared<V>>,
    key: V::Key,
    held: bool,
}

impl<V: Verb> Post<V> {
    /// That of a lane which counts on it already.
    fn new(shared: Arc<Shared<V>>, key: V::Key) -> Self {
        Post { shared, key, held: true }
    }

    fn start(self) {
        tokio::spawn(drive(self));
    }

    /// The next batch; without one the post is left.
    fn take(&mut self) -> Option<Batch<V>> {
        let mut lanes = self.shared.lock();
        let batch = lanes.get_mut(&self.key)?.take(V::MOST_CALLS);
        if batch.is_empty() {
            lanes.remove(&self.key);
            self.held = false;
            return None;
        }
        Some(Batch::new(batch))
    }

    /// Leaves the lane to another driver, if there is something to send.
    fn step_aside(&mut self) {
        let mut lanes = self.shared.lock();
        self.held = false;
        if lanes.get(&self.key).is_some_and(|lane| !lane.waiting.is_empty()) {
            drop(lanes);
            Post::new(self.shared.clone(), self.key.clone()).start();
        } else {
            lanes.remove(&self.key);
        }
    }
}

impl<V: Verb> Drop for Post<V> {
    fn drop(&mut self) {
        if self.held {
            // Nobody would send these: the runtime ends, or this code has panicked.
            let lost = self.shared.lock().remove(&self.key);
            drop(lost);
        }
    }
}
