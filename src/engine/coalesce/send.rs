//! Sending a batch: one statement for all; where that fails for some of them, parts of it.

use std::collections::VecDeque;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;

use super::Verb;
use super::lane::{Reply, Waiting};
use crate::db::Error;
use crate::engine::measure;

/// A batch that failed is sent again in so many parts.
const PARTS: usize = 8;

/// Parts of one verb's batches that are under way at once.
pub(super) const PARTS_AT_ONCE: usize = 4;

/// After so many statements in a row that waited for others in vain, what is left of a batch is
/// given up: it is no single call that is locked.
const MOST_IN_VAIN: usize = 2 * PARTS;

/// Calls and, at the same places, where their answers go.
pub(super) struct Batch<V: Verb> {
    calls: Vec<V::Call>,
    replies: Vec<Reply<V::Answer>>,
}

impl<V: Verb> Batch<V> {
    pub(super) fn new(waiting: Vec<Waiting<V::Call, V::Answer>>) -> Self {
        let (calls, replies) =
            waiting.into_iter().map(|waiting| (waiting.call, waiting.reply)).unzip();
        Batch { calls, replies }
    }

    fn one(call: V::Call, reply: Reply<V::Answer>) -> Self {
        Batch { calls: vec![call], replies: vec![reply] }
    }

    /// The same calls in several batches, two at least.
    fn parts(mut self) -> Vec<Self> {
        let size = self.calls.len().div_ceil(PARTS);
        let mut parts = Vec::with_capacity(PARTS);
        while size < self.calls.len() {
            let start = self.calls.len() - size;
            let (calls, replies) = (self.calls.split_off(start), self.replies.split_off(start));
            parts.push(Batch { calls, replies });
        }
        parts.push(self);
        parts.reverse();
        parts
    }

    fn fail(self, error: &Error) {
        for reply in self.replies {
            // Who went away needs no error.
            let _ = reply.send(Err(error.copy()));
        }
    }

    fn give_up(self, error: &Error) {
        for (call, reply) in self.calls.into_iter().zip(self.replies) {
            let _ = reply.send(V::given_up(call, error.copy()));
        }
    }
}

/// Sends a batch and answers each of its calls. A part needs one of the verb's turns.
pub(super) async fn send<V: Verb>(verb: &V, key: &V::Key, batch: Batch<V>, turns: &Semaphore) {
    let mut rest = Rest { waiting: VecDeque::new(), in_vain: 0 };
    rest.note(send_once(verb, key, batch).await);
    let in_turn = |part| async {
        let _turn = turns.acquire().await;
        send_once(verb, key, part).await
    };
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < PARTS_AT_ONCE
            && let Some(part) = rest.waiting.pop_front()
        {
            under_way.push(in_turn(part));
        }
        match under_way.next().await {
            Some(sent) => rest.note(sent),
            None => return,
        }
    }
}

/// What is left of a batch, large parts first.
struct Rest<V: Verb> {
    waiting: VecDeque<Batch<V>>,
    /// Statements for several calls since the last that succeeded.
    in_vain: usize,
}

impl<V: Verb> Rest<V> {
    fn note(&mut self, sent: Sent<V>) {
        match sent {
            Sent::Alone => {}
            Sent::Together(left) => {
                self.in_vain = 0;
                self.waiting.extend(left);
            }
            Sent::Failed(batch, error) => {
                let waited = matches!(error, Error::Locked(_) | Error::Timeout(_));
                self.in_vain += usize::from(waited);
                if self.in_vain < MOST_IN_VAIN {
                    self.waiting.extend(batch.parts());
                } else {
                    batch.give_up(&error);
                    self.waiting.drain(..).for_each(|part| part.give_up(&error));
                }
            }
        }
    }
}

/// What became of a statement.
enum Sent<V: Verb> {
    /// It was for one call, which is answered.
    Alone,
    /// All calls are answered but these, each of which has to go alone.
    Together(Vec<Batch<V>>),
    /// Some of these calls are at fault, or held up by others.
    Failed(Batch<V>, Error),
}

async fn send_once<V: Verb>(verb: &V, key: &V::Key, batch: Batch<V>) -> Sent<V> {
    measure::batch(V::NAME, batch.calls.len());
    if batch.calls.len() == 1 {
        send_alone(verb, batch).await;
        return Sent::Alone;
    }
    match verb.together(&batch.calls).await {
        Ok(answers) if answers.len() == batch.calls.len() => {
            return Sent::Together(answer(verb, batch, answers).await);
        }
        Ok(answers) => {
            let (came, sent) = (answers.len(), batch.calls.len());
            batch.fail(&Error::Other(format!("{came} answers came to {sent} calls").into()));
        }
        Err(error) if V::is_of_some(key, &error) => return Sent::Failed(batch, error),
        Err(error) => batch.fail(&error),
    }
    Sent::Together(Vec::new())
}

async fn send_alone<V: Verb>(verb: &V, batch: Batch<V>) {
    for (call, reply) in batch.calls.into_iter().zip(batch.replies) {
        let answer = verb.alone(&call).await;
        if let Err(Ok(answer)) = reply.send(answer) {
            verb.undo(call, answer).await;
        }
    }
}

/// Gives out the answers first, then undoes what nobody wants. The calls that were not answered.
async fn answer<V: Verb>(
    verb: &V,
    batch: Batch<V>,
    answers: Vec<Option<V::Answer>>,
) -> Vec<Batch<V>> {
    let mut left = Vec::new();
    let mut unwanted = Vec::new();
    for ((call, reply), answer) in batch.calls.into_iter().zip(batch.replies).zip(answers) {
        match answer {
            None => left.push(Batch::one(call, reply)),
            Some(answer) => {
                if let Err(Ok(answer)) = reply.send(Ok(answer)) {
                    unwanted.push((call, answer));
                }
            }
        }
    }
    for (call, answer) in unwanted {
        verb.undo(call, answer).await;
    }
    left
}
