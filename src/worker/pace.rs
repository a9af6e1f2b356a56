//! How far ahead to fetch: so many jobs as start within a moment, at the pace of the last ones.
//!
//! Short jobs would otherwise wait for an acquire each time; long ones must not be taken from a
//! worker that could run them at once.

use std::time::Duration;

/// How soon what is fetched ahead should start. Some acquires and finishes fit in.
const MOMENT: Duration = Duration::from_millis(20);

/// How much one job counts for the mean: the last few dozen matter.
const WEIGHT: f64 = 1.0 / 16.0;

/// The mean time that the last jobs took.
#[derive(Debug, Default)]
pub(super) struct Pace {
    seconds: Option<f64>,
}

impl Pace {
    /// A job took so long.
    pub(super) fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.seconds = Some(self.seconds.map_or(took, |mean| mean + (took - mean) * WEIGHT));
    }

    /// Jobs take so long at least, as is seen by one that has not even started.
    pub(super) fn at_least(&mut self, took: Duration) {
        self.seconds = Some(self.seconds.unwrap_or(0.0).max(took.as_secs_f64()));
    }

    /// How many jobs these slots start within a moment; none before the first has ended.
    pub(super) fn ahead(&self, slots: usize, most: usize) -> usize {
        let Some(seconds) = self.seconds else { return 0 };
        // Rounded down, and saturating where the jobs took no time at all.
        let jobs = slots as f64 * MOMENT.as_secs_f64() / seconds;
        (jobs as usize).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_jobs_are_not_fetched_ahead() {
        let mut pace = Pace::default();
        assert_eq!(pace.ahead(10, 2000), 0);
        pace.note(Duration::from_secs(1));
        assert_eq!(pace.ahead(10, 2000), 0);
    }

    #[test]
    fn short_jobs_are_as_many_as_start_in_a_moment() {
        let mut pace = Pace::default();
        pace.note(Duration::from_millis(4));
        assert_eq!(pace.ahead(10, 2000), 50);
        assert_eq!(pace.ahead(1, 2000), 5);
        pace.note(Duration::ZERO);
        assert_eq!(pace.ahead(1000, 2000), 2000);
        for _ in 0..200 {
            pace.note(Duration::ZERO);
        }
        assert_eq!(pace.ahead(1, 2000), 2000);
    }

    #[test]
    fn a_long_job_among_short_ones_slows_the_fetching() {
        let mut pace = Pace::default();
        pace.note(Duration::from_micros(10));
        pace.note(Duration::from_secs(10));
        assert_eq!(pace.ahead(10, 2000), 0);
        pace.at_least(Duration::from_secs(60));
        assert_eq!(pace.ahead(1000, 2000), 0);
    }
}
