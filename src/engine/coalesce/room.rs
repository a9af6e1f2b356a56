//! How much may wait at once: a bound on calls and on what they weigh.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Room for so many calls and bytes. Clones share it.
#[derive(Clone)]
pub(in crate::engine) struct Room {
    most: Used,
    used: Arc<Mutex<Used>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    calls: usize,
    bytes: usize,
}

impl Room {
    /// An empty one.
    pub(in crate::engine) fn new(calls: usize, bytes: usize) -> Self {
        Room { most: Used { calls, bytes }, used: Arc::default() }
    }

    /// Takes a place, if there is one. A call that is larger than the whole room has one to itself.
    pub(in crate::engine) fn enter(&self, bytes: usize) -> Option<Place> {
        let mut used = lock(&self.used);
        let fits = used.calls == 0
            || (used.calls < self.most.calls && used.bytes + bytes <= self.most.bytes);
        if !fits {
            return None;
        }
        used.calls += 1;
        used.bytes += bytes;
        Some(Place { used: self.used.clone(), bytes })
    }

    /// How many calls are in it.
    pub(in crate::engine) fn calls(&self) -> usize {
        lock(&self.used).calls
    }
}

/// A place in a room, left when dropped.
pub(in crate::engine) struct Place {
    used: Arc<Mutex<Used>>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut used = lock(&self.used);
        used.calls -= 1;
        used.bytes -= self.bytes;
    }
}

fn lock(used: &Mutex<Used>) -> MutexGuard<'_, Used> {
    used.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_calls_nor_bytes_grow_past_the_bound() {
        let room = Room::new(2, 100);
        let first = room.enter(60).unwrap();
        assert!(room.enter(41).is_none());
        let second = room.enter(40).unwrap();
        assert!(room.enter(0).is_none());
        assert_eq!(room.calls(), 2);
        drop(first);
        assert!(room.enter(60).is_some());
        drop(second);
        assert_eq!(*lock(&room.used), Used::default());
    }

    #[test]
    fn what_fits_nowhere_goes_alone() {
        let room = Room::new(2, 100);
        let large = room.enter(1_000).unwrap();
        assert!(room.enter(1).is_none());
        drop(large);
        let _small = room.enter(1).unwrap();
        assert!(room.enter(1_000).is_none());
    }
}
