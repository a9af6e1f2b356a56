//! Running one handler: its timeout, its stop, its panics, and what its answer means.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tracing::{debug, warn};

use super::core::Core;
use super::handler::{Answer, panic_message};
use super::job::Job;
use super::outcome::Ending;
use super::room::Place;
use super::stop::{StopReason, StopSignal};
use crate::config::units::show_duration;
use crate::model::AcquiredJob;
use crate::telemetry::field;

/// Runs the job's handler to its end or to the end of the patience with it. `None` when there is
/// nothing to tell the database, because the handler has done so itself.
pub(super) async fn execute(
    core: &Core,
    acquired: AcquiredJob,
    signal: StopSignal,
    place: Arc<Place>,
) -> Option<Ending> {
    let handler = core.handlers.get(&acquired.kind).or(core.fallback.as_ref());
    let Some(handler) = handler else {
        return Some(Ending::failed(format!("no handler for kind {:?}", acquired.kind)));
    };
    let timeout = acquired.timeout;
    let (id, attempt) = (acquired.execution.job_id, acquired.execution.attempt);
    debug!({ field::JOB_ID } = %id, { field::ATTEMPT } = attempt, "started");
    let job = Job::new(acquired, core.id, core.engine.clone(), core.schema.clone(), signal.clone());
    let settled = job.settled();
    let grace = core.settings.stop_grace;
    let heard = hear(handler.run(job, place), timeout, &signal, grace);
    // A handler may panic when it is polled, and when it is given up and dropped.
    let answer = AssertUnwindSafe(heard).catch_unwind().await;
    let answer = answer.unwrap_or_else(|panic| Some(Err(panic_message(&*panic))));
    if answer.is_none() {
        warn!({ field::JOB_ID } = %id, { field::ATTEMPT } = attempt, "the handler did not stop");
    }
    if settled.get() && answer.as_ref().is_some_and(Result::is_ok) {
        return None;
    }
    Some(ending(signal.reason(), timeout, answer))
}

/// What the handler answers; `None` when it was told to stop and does not within the grace.
async fn hear(
    running: impl Future<Output = Answer>,
    timeout: Option<Duration>,
    signal: &StopSignal,
    grace: Duration,
) -> Option<Answer> {
    let mut running = std::pin::pin!(running);
    tokio::select! {
        // The handler first: one that is quick costs neither a timer nor a waiter.
        biased;
        answer = &mut running => return Some(answer),
        () = passed(timeout) => {
            signal.stop(StopReason::TimedOut);
        }
        () = signal.token().cancelled() => {}
    }
    tokio::time::timeout(grace, running).await.ok()
}

fn ending(reason: Option<StopReason>, timeout: Option<Duration>, answer: Option<Answer>) -> Ending {
    match (reason, answer) {
        (Some(StopReason::TimedOut), _) => {
            let limit = timeout.map(show_duration).unwrap_or_default();
            Ending::failed(format!("timed out after {limit}"))
        }
        (Some(StopReason::Draining), None | Some(Err(_))) => Ending::Release,
        (_, Some(answer)) => answer.into(),
        (Some(reason), None) => Ending::failed(reason.as_str()),
        (None, None) => Ending::failed("the handler was given up"),
    }
}

async fn passed(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Outcome;
    use super::*;

    #[test]
    fn a_timeout_is_a_failure_whatever_the_handler_says() {
        let timeout = Some(Duration::from_secs(3));
        for answer in [None, Some(Ok(Outcome::Complete)), Some(Err("x".to_owned()))] {
            let ending = ending(Some(StopReason::TimedOut), timeout, answer);
            assert!(
                matches!(&ending, Ending::Fail { error, discard: false } if error == "timed out after 3s"),
                "{ending:?}"
            );
        }
    }

    #[test]
    fn what_a_stopping_worker_cut_short_is_given_back() {
        let draining = Some(StopReason::Draining);
        assert!(matches!(ending(draining, None, None), Ending::Release));
        assert!(matches!(ending(draining, None, Some(Err("cut".to_owned()))), Ending::Release));
        let done = ending(draining, None, Some(Ok(Outcome::Complete)));
        assert!(matches!(done, Ending::Complete(None)));
    }

    #[test]
    fn a_cancelled_handler_that_does_not_answer_has_failed() {
        let ending = ending(Some(StopReason::Cancelled), None, None);
        assert!(matches!(ending, Ending::Fail { error, .. } if error == "cancelled"));
    }
}
