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
//! 2. What is wrong with one call is told to that one alone: its neighbours are sent again.
//! 3. No more calls and bytes wait than the [`Room`] has; a call beyond is refused at once.
//! 4. Others wait for a statement no longer than [`PATIENCE`], while not too many take long.
//! 5. Calls are sent in the order in which they came, but for those with the same mark.

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
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::error;
use uuid::Uuid;

use super::measure;
use crate::db::Error;
use lane::{Lane, Reply, Waiting};
use send::{Batch, send};

pub(super) use lane::Weight;
pub(super) use room::{Place, Room};

/// Calls of one verb that may wait or be under way at once; more are refused.
pub const MOST_WAITING: usize = 10_000;

/// What these may weigh, in bytes.
const MOST_WAITING_BYTES: usize = 64 << 20;

/// Statements of one lane that others wait for. A second one only makes the batches smaller.
const IN_FLIGHT: usize = 1;

/// How long others wait for a statement.
const PATIENCE: Duration = Duration::from_millis(50);

/// Statements of one lane that may take longer than that.
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

    /// No two calls with the same mark share a statement.
    fn mark(_call: &Self::Call) -> Option<Uuid> {
        None
    }

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
}

impl<V: Verb> Coalescer<V> {
    pub(super) fn new(verb: V) -> Self {
        let room = Room::new(MOST_WAITING, MOST_WAITING_BYTES);
        Coalescer { shared: Arc::new(Shared { verb, room, lanes: Mutex::default() }) }
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
        let mark = V::mark(&call);
        let waiting = Waiting { call, weight, mark, reply: Reply { sender, place } };
        if self.shared.push(&key, waiting) {
            start(&self.shared, &key);
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

    /// Adds a call to its lane. Whether that needs another driver, which counts from now on.
    fn push(&self, key: &V::Key, waiting: Waiting<V::Call, V::Answer>) -> bool {
        let mut lanes = self.lock();
        let lane = match lanes.get_mut(key) {
            Some(lane) => lane,
            None => lanes.entry(key.clone()).or_default(),
        };
        lane.waiting.push_back(waiting);
        let needed = lane.drivers < IN_FLIGHT;
        lane.drivers += usize::from(needed);
        needed
    }
}

/// The refusal of a call of a verb, counted.
pub(super) fn overloaded(verb: &'static str) -> Error {
    measure::overloaded(verb);
    Error::Overloaded
}

/// Starts a driver, which the lane has counted.
fn start<V: Verb>(shared: &Arc<Shared<V>>, key: &V::Key) {
    tokio::spawn(drive(shared.clone(), key.clone()));
}

/// Sends what waits in a lane until nothing does.
async fn drive<V: Verb>(shared: Arc<Shared<V>>, key: V::Key) {
    let mut post = Post { shared: &shared, key: &key, stands: Stands::InTheWay };
    loop {
        // Those who were just answered come again before the next batch is taken.
        yield_now().await;
        let Some(batch) = post.take() else { return };
        let mut sending = pin!(AssertUnwindSafe(send(&shared.verb, &key, batch)).catch_unwind());
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut sending => break outcome,
                () = sleep(PATIENCE), if post.stands == Stands::InTheWay => {
                    if post.step_aside() {
                        start(&shared, &key);
                    }
                }
            }
        };
        if outcome.is_err() {
            // Its calls are answered by the loss of their replies.
            error!("a statement of {} ended in a panic", V::NAME);
        }
        if post.stands == Stands::Aside {
            return;
        }
    }
}

/// How a driver is counted in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    InTheWay,
    Aside,
    NotAtAll,
}

/// A driver's place in its lane, left however the driver ends.
struct Post<'a, V: Verb> {
    shared: &'a Shared<V>,
    key: &'a V::Key,
    stands: Stands,
}

impl<V: Verb> Post<'_, V> {
    /// The next batch; without one the post is left.
    fn take(&mut self) -> Option<Batch<V>> {
        let mut lanes = self.shared.lock();
        let batch = lanes.get_mut(self.key)?.take(V::MOST_CALLS);
        if batch.is_empty() {
            self.leave(&mut lanes);
            return None;
        }
        Some(Batch::new(batch))
    }

    /// Lets others go on, if not too many do so already. Whether another driver is needed.
    fn step_aside(&mut self) -> bool {
        let mut lanes = self.shared.lock();
        let Some(lane) = lanes.get_mut(self.key).filter(|lane| lane.slow < MOST_SLOW) else {
            return false;
        };
        self.stands = Stands::Aside;
        lane.slow += 1;
        let needed = !lane.waiting.is_empty();
        lane.drivers -= usize::from(!needed);
        needed
    }

    fn leave(&mut self, lanes: &mut Lanes<V>) {
        if let Some(lane) = lanes.get_mut(self.key) {
            match std::mem::replace(&mut self.stands, Stands::NotAtAll) {
                Stands::InTheWay => lane.drivers -= 1,
                Stands::Aside => lane.slow -= 1,
                Stands::NotAtAll => {}
            }
            if lane.is_over() {
                lanes.remove(self.key);
            }
        }
    }
}

impl<V: Verb> Drop for Post<'_, V> {
    fn drop(&mut self) {
        let mut lost = Default::default();
        let mut lanes = self.shared.lock();
        // Nobody would send these: the runtime ends, or this code has panicked.
        if self.stands == Stands::InTheWay
            && let Some(lane) = lanes.get_mut(self.key).filter(|lane| lane.drivers == 1)
        {
            lost = std::mem::take(&mut lane.waiting);
        }
        self.leave(&mut lanes);
        drop(lanes);
        drop(lost);
    }
}
