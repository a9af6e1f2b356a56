//! The answers to finishing verbs and heartbeats, one an entry.

use super::text::words;

words! {
    /// What became of one execution that a worker finished.
    FinishVerdict("finish verdict") {
        /// The job is completed.
        Completed = "completed",
        /// This execution had ended the same way before.
        Repeated = "repeated",
        /// The token no longer holds the job: another execution began, or this one has ended.
        Stale = "stale",
        /// The job was asked to stop and ends so.
        Cancelled = "cancelled",
        /// The result is over the limit and nothing changed; send a smaller one.
        ResultTooLarge = "result_too_large",
        /// The job failed and runs again later.
        Retrying = "retrying",
        /// The job failed for the last time.
        Discarded = "discarded",
        /// The job was put off without counting an attempt.
        Snoozed = "snoozed",
        /// The job was given back unharmed.
        Released = "released",
    }
}

impl FinishVerdict {
    /// Whether the worker is done with the execution, one way or another.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        !matches!(self, FinishVerdict::ResultTooLarge)
    }
}

words! {
    /// What a heartbeat says about one execution that the worker holds.
    HeartbeatVerdict("heartbeat verdict") {
        /// The lease is extended.
        Held = "held",
        /// Somebody asked the job to stop.
        Cancel = "cancel",
        /// The execution has ended without the worker: stop, and do not finish it.
        Lost = "lost",
    }
}

words! {
    /// What became of one job that somebody wanted cancelled.
    CancelVerdict("cancel verdict") {
        /// It waited and is cancelled, or had been cancelled before.
        Cancelled = "cancelled",
        /// It runs, and was asked to stop.
        Cancelling = "cancelling",
        /// It had ended otherwise before.
        Finished = "finished",
        /// There is no such job.
        Unknown = "unknown",
    }
}

words! {
    /// What became of one job that an operator wanted to run again.
    RetryVerdict("retry verdict") {
        /// It waits to run again.
        Retried = "retried",
        /// It was held and no longer waits for the parents that held it.
        Released = "released",
        /// Another live job has its unique key.
        Conflict = "conflict",
        /// It had ended well.
        Completed = "completed",
        /// It has not ended.
        Unfinished = "unfinished",
        /// There is no such job.
        Unknown = "unknown",
    }
}

words! {
    /// What became of one job that an operator wanted at another priority.
    ReprioritizeVerdict("reprioritize verdict") {
        /// It has the new priority; while it runs, for its next attempt.
        Reprioritized = "reprioritized",
        /// It had that priority.
        Unchanged = "unchanged",
        /// It has ended.
        Finished = "finished",
        /// There is no such job.
        Unknown = "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_reads_back_as_itself() {
        for verdict in FinishVerdict::ALL {
            assert_eq!(verdict.as_str().parse(), Ok(*verdict));
        }
        for verdict in HeartbeatVerdict::ALL {
            assert_eq!(verdict.as_str().parse(), Ok(*verdict));
        }
    }

    #[test]
    fn the_two_kinds_of_verdict_are_told_apart_in_errors() {
        let finish = "held".parse::<FinishVerdict>().unwrap_err();
        let heartbeat = "stale".parse::<HeartbeatVerdict>().unwrap_err();
        assert_eq!(finish.what, "finish verdict");
        assert_eq!(heartbeat.what, "heartbeat verdict");
    }

    #[test]
    fn only_a_result_too_large_leaves_the_execution_open() {
        let open: Vec<_> =
            FinishVerdict::ALL.iter().filter(|verdict| !verdict.is_settled()).collect();
        assert_eq!(open, [&FinishVerdict::ResultTooLarge]);
    }
}
