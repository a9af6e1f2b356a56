//! Times and counts of the verbs, for whatever recorder the process has.
//!
//! Labels are words of ours; a queue or a kind is never one.

use tokio::time::Instant;

use super::Enqueued;
use crate::model::FinishVerdict;

/// An enqueue has ended, well or not.
pub(super) fn enqueue(began: Instant, answers: Option<&[Enqueued]>) {
    metrics::histogram!("rowlock_enqueue_seconds").record(began.elapsed());
    let created = answers.unwrap_or_default().iter().filter(|answer| answer.created).count();
    metrics::counter!("rowlock_jobs_enqueued_total").increment(created as u64);
}

/// An acquire has ended with so many jobs.
pub(super) fn acquire(began: Instant, jobs: usize) {
    metrics::histogram!("rowlock_acquire_seconds").record(began.elapsed());
    metrics::counter!("rowlock_jobs_acquired_total").increment(jobs as u64);
}

/// A statement goes out for so many calls.
pub(super) fn batch(verb: &'static str, calls: usize) {
    metrics::histogram!("rowlock_batch_calls", "verb" => verb).record(calls as f64);
}

/// A call was refused because too many wait.
pub(super) fn overloaded(verb: &'static str) {
    metrics::counter!("rowlock_calls_overloaded_total", "verb" => verb).increment(1);
}

/// A finishing verb has ended.
pub(super) fn finish(verb: &'static str, began: Instant, verdicts: Option<&[FinishVerdict]>) {
    metrics::histogram!("rowlock_finish_seconds", "verb" => verb).record(began.elapsed());
    let verdicts = verdicts.unwrap_or_default();
    for verdict in FinishVerdict::ALL {
        let count = verdicts.iter().filter(|found| *found == verdict).count();
        if 0 < count {
            let labels = [("verb", verb), ("verdict", verdict.as_str())];
            metrics::counter!("rowlock_jobs_finished_total", &labels).increment(count as u64);
        }
    }
}
