//! The seven states of a job.

use super::text::words;

words! {
    /// Where a job stands. A retry waits as `scheduled`; its reason stands on the execution.
    JobState("job state") {
        /// Waits for parents that have not finished.
        Blocked = "blocked",
        /// Waits for its `run_at`.
        Scheduled = "scheduled",
        /// Waits for a worker.
        Ready = "ready",
        /// Held by a worker.
        Running = "running",
        /// Ended well.
        Completed = "completed",
        /// Stopped on request, or because a parent did not complete.
        Cancelled = "cancelled",
        /// Out of attempts, or given up by its worker.
        Discarded = "discarded",
    }
}

impl JobState {
    /// Whether nothing but an operator's retry can still happen to the job.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, JobState::Completed | JobState::Cancelled | JobState::Discarded)
    }

    /// Whether an operator may retry a job in this state.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, JobState::Cancelled | JobState::Discarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_as_itself() {
        for state in JobState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(serde_json::to_string(state).unwrap(), format!("{:?}", state.as_str()));
        }
        assert_eq!(JobState::ALL.len(), 7);
    }

    #[test]
    fn an_unknown_state_is_an_error() {
        let error = "retryable".parse::<JobState>().unwrap_err();
        assert_eq!(error.to_string(), "unknown job state \"retryable\"");
        assert!(serde_json::from_str::<JobState>("\"READY\"").is_err());
    }

    #[test]
    fn only_what_can_be_retried_but_completed_is_finished() {
        for state in JobState::ALL {
            let completed = *state == JobState::Completed;
            assert_eq!(state.is_finished(), state.is_retryable() || completed);
        }
    }
}
