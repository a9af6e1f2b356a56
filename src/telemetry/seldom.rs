//! News that would come a thousand times a second, told now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pause between two lines.
const PAUSE: Duration = Duration::from_secs(5);

/// One line of the log, which many callers want to write.
#[derive(Debug)]
pub struct Seldom(Mutex<State>);

#[derive(Debug)]
struct State {
    next: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// A line that was not written yet.
    #[must_use]
    pub const fn new() -> Self {
        Seldom(Mutex::new(State { next: None, left_out: 0 }))
    }

    /// Whether to write it now; if so, how often it was left out since the last time.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.next.is_some_and(|next| now < next) {
            state.left_out += 1;
            return None;
        }
        state.next = Some(now + PAUSE);
        Some(std::mem::take(&mut state.left_out))
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Seldom::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_a_pause() {
        let (line, now) = (Seldom::new(), Instant::now());
        assert_eq!(line.pass_at(now), Some(0));
        assert_eq!(line.pass_at(now), None);
        assert_eq!(line.pass_at(now + PAUSE / 2), None);
        assert_eq!(line.pass_at(now + PAUSE), Some(2));
        assert_eq!(line.pass_at(now + PAUSE), None);
    }
}
