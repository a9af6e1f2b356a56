//! How long a duty rests between two runs.

use std::time::Duration;

use crate::db::Error;
use crate::store::maintain::DutyRun;

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest while the database is away: once it is back, what has become due is late already.
const AWAY_PAUSE: Duration = Duration::from_secs(2);

/// Between runs that say `more` and settled nothing: others hold the rows.
const HELD_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    failures: u32,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Pace { interval, failures: 0 }
    }

    /// How many runs have failed since the last that did not.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after a run.
    pub(super) fn after(&mut self, run: DutyRun) -> Duration {
        self.failures = 0;
        match run {
            DutyRun { more: true, done: 0, .. } => HELD_PAUSE,
            DutyRun { more: true, .. } => Duration::ZERO,
            _ => jittered(self.interval),
        }
    }

    /// The pause after a run that failed: doubling, and bounded.
    pub(super) fn after_failure(&mut self, error: &Error) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let away = matches!(error, Error::Unavailable(_) | Error::InDoubt(_));
        let longest = if away { AWAY_PAUSE } else { LONGEST_PAUSE }.max(self.interval);
        jittered(longest.min(self.interval * 2_u32.pow(self.failures.min(10))))
    }
}

/// Less up to a quarter by chance, so that servers do not run in step.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.75..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn run(done: u64, more: bool) -> DutyRun {
        DutyRun { done, more, ran: true }
    }

    #[test]
    fn more_work_is_done_at_once() {
        let mut pace = Pace::new(SECOND);
        assert_eq!(pace.after(run(1_000, true)), Duration::ZERO);
        assert_eq!(pace.after(run(0, true)), HELD_PAUSE);
        assert!((SECOND / 2..=SECOND).contains(&pace.after(run(5, false))));
    }

    #[test]
    fn failures_lengthen_it_up_to_a_bound() {
        let mut pace = Pace::new(SECOND);
        let error = Error::Other("".into());
        let pauses: Vec<_> = (0..20).map(|_| pace.after_failure(&error)).collect();
        assert!(pauses[0] <= 2 * SECOND);
        assert!(LONGEST_PAUSE / 2 < pauses[19] && pauses[19] <= LONGEST_PAUSE);
        assert_eq!(pace.failures(), 20);
        pace.after(run(0, false));
        assert_eq!(pace.failures(), 0);
    }

    #[test]
    fn a_database_that_is_away_is_looked_for_often() {
        let (mut pace, away) = (Pace::new(SECOND), Error::Unavailable("".into()));
        let pauses: Vec<_> = (0..20).map(|_| pace.after_failure(&away)).collect();
        assert!(pauses.iter().all(|pause| (SECOND..=AWAY_PAUSE).contains(pause)), "{pauses:?}");
        let mut slow = Pace::new(10 * SECOND);
        assert!(5 * SECOND < slow.after_failure(&away), "no more often than in good times");
    }
}
