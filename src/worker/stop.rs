//! The signal that tells a handler to stop, and why.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why a handler is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Somebody cancelled the job; however it ends, it ends cancelled.
    Cancelled,
    /// The lease has ended: another worker may have the job, and what this one says is not heard.
    Lost,
    /// It ran longer than the job's timeout.
    TimedOut,
    /// The worker goes down and the grace is over; the job is given back.
    Draining,
}

impl StopReason {
    /// A few words, for the error of an execution that did not stop by itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            StopReason::Cancelled => "cancelled",
            StopReason::Lost => "lease lost",
            StopReason::TimedOut => "timed out",
            StopReason::Draining => "worker stopped",
        }
    }
}

/// One execution's stop signal; clones share it. The first reason stays.
#[derive(Clone, Debug, Default)]
pub(super) struct StopSignal {
    token: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
}

impl StopSignal {
    /// Asks for a stop; false when it was asked for before.
    pub(super) fn stop(&self, reason: StopReason) -> bool {
        let first = self.reason.set(reason).is_ok();
        self.token.cancel();
        first
    }

    pub(super) fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let signal = StopSignal::default();
        assert_eq!(signal.reason(), None);
        assert!(signal.stop(StopReason::TimedOut));
        assert!(!signal.clone().stop(StopReason::Lost));
        assert_eq!(signal.reason(), Some(StopReason::TimedOut));
        assert!(signal.token().is_cancelled());
    }
}
