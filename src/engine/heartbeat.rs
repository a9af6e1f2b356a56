//! Heartbeat: those of all workers share statements, but for those that need the long way, as the
//! second of a worker does.

use std::time::Duration;

use uuid::Uuid;

use super::coalesce::{Verb, Weight};
use super::known::known;
use super::{Engine, Error};
use crate::db::Pool;
use crate::model::{Execution, HeartbeatVerdict};
use crate::store::heartbeat::{self, HeartbeatCall};

/// A call of so many executions is as well off with a statement of its own.
const MANY_EXECUTIONS: usize = 200;

/// What an execution weighs.
const BYTES_AN_EXECUTION: usize = 100;

impl Engine {
    /// Extends a worker's lease; one verdict an execution, in input order. For `seen_call` see
    /// [`heartbeat::heartbeat`].
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a lease that is too short or too long; [`Error::Overloaded`] at once
    /// when too many calls wait.
    pub async fn heartbeat(
        &self,
        worker: Uuid,
        held: Vec<Execution>,
        lease: Duration,
        seen_call: Option<i64>,
    ) -> Result<Vec<HeartbeatVerdict>, Error> {
        let call = HeartbeatCall { worker, held, lease, seen_call };
        if call.held.len() < MANY_EXECUTIONS {
            return self.inner.heartbeat.call((), call).await;
        }
        let _place = self.inner.alone.work.enter(Heartbeat::NAME, Heartbeat::weigh(&call).bytes)?;
        let _turn = self.inner.alone.work.turn().await?;
        self.inner.heartbeat.verb().alone(&call).await
    }
}

/// Heartbeat as a verb that many call at a time.
pub(super) struct Heartbeat(pub(super) Pool);

impl Verb for Heartbeat {
    const NAME: &'static str = "heartbeat";
    const MOST_CALLS: usize = heartbeat::MOST_CALLS;

    type Key = ();
    type Call = HeartbeatCall;
    type Answer = Vec<HeartbeatVerdict>;

    fn weigh(call: &HeartbeatCall) -> Weight {
        let entries = call.held.len();
        Weight { entries, bytes: (1 + entries) * BYTES_AN_EXECUTION }
    }

    async fn together(&self, calls: &[HeartbeatCall]) -> Result<Vec<Option<Self::Answer>>, Error> {
        known(async || heartbeat::heartbeat_batch(&*self.0.get().await?, calls).await).await
    }

    async fn alone(&self, call: &HeartbeatCall) -> Result<Self::Answer, Error> {
        let HeartbeatCall { worker, held, lease, seen_call } = call;
        let sending = async || {
            let connection = self.0.get().await?;
            heartbeat::heartbeat(&connection, *worker, held, *lease, *seen_call).await
        };
        known(sending).await
    }

    fn is_of_some(_: &(), error: &Error) -> bool {
        let of_some = matches!(error, Error::Locked(_) | Error::Conflict(_) | Error::Timeout(_));
        of_some || error.is_of_content()
    }
}
