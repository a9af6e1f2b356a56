//! Sending a batch: one statement for all; where that fails for some of them, parts of it.

use std::pin::Pin;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};

use super::Verb;
use super::lane::{Reply, Waiting};
use crate::db::Error;
use crate::engine::measure;

/// A batch that failed is sent again in so many parts, at the same time.
const PARTS: usize = 8;

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

    fn fail(self, error: Error) {
        for reply in self.replies {
            // Who went away needs no error.
            let _ = reply.send(Err(error.copy()));
        }
    }
}

/// Sends a batch and answers each of its calls.
pub(super) async fn send<V: Verb>(verb: &V, key: &V::Key, batch: Batch<V>) {
    measure::batch(V::NAME, batch.calls.len());
    if batch.calls.len() == 1 {
        return send_alone(verb, batch).await;
    }
    match verb.together(&batch.calls).await {
        Ok(answers) if answers.len() == batch.calls.len() => answer(verb, batch, answers).await,
        Ok(answers) => {
            let (came, sent) = (answers.len(), batch.calls.len());
            batch.fail(Error::Other(format!("{came} answers came to {sent} calls").into()));
        }
        Err(error) if V::is_of_some(key, &error) => {
            let parts = batch.parts();
            join_all(parts.into_iter().map(|part| send_part(verb, key, part))).await;
        }
        Err(error) => batch.fail(error),
    }
}

/// Boxed, since `send` starts it and it is a `send` again.
fn send_part<'a, V: Verb>(
    verb: &'a V,
    key: &'a V::Key,
    batch: Batch<V>,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(send(verb, key, batch))
}

async fn send_alone<V: Verb>(verb: &V, batch: Batch<V>) {
    for (call, reply) in batch.calls.into_iter().zip(batch.replies) {
        let answer = verb.alone(&call).await;
        if let Err(Ok(answer)) = reply.send(answer) {
            verb.undo(call, answer).await;
        }
    }
}

/// Gives out the answers first, then does what is left to do for single calls.
async fn answer<V: Verb>(verb: &V, batch: Batch<V>, answers: Vec<Option<V::Answer>>) {
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
    stream::iter(left).for_each_concurrent(PARTS, |one| send_alone(verb, one)).await;
}
