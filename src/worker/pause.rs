//! Pauses between tries: doubling, with jitter, up to a bound.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);

/// The growing pauses of one thing that fails again and again.
#[derive(Debug)]
pub(super) struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    pub(super) fn new(longest: Duration) -> Self {
        Pause { next: FIRST.min(longest), longest }
    }

    /// How long to wait now: half to the whole of a length that doubles each time.
    pub(super) fn next(&mut self) -> Duration {
        let length = self.next;
        self.next = (length * 2).min(self.longest);
        length.mul_f64(rand::random_range(0.5..1.0))
    }

    /// It worked: the next pause is the first again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST.min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        let mut pause = Pause::new(Duration::from_millis(150));
        let lengths = [(); 4].map(|()| pause.next().as_millis());
        for (length, most) in lengths.into_iter().zip([50, 100, 150, 150]) {
            assert!((most / 2..=most).contains(&length), "{lengths:?}");
        }
        pause.reset();
        assert!(pause.next() <= FIRST);
    }
}
