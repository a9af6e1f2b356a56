//! Numbers that look like chance and follow from the seed alone, whatever the order of the questions.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

/// The number that a seed has for a question, given as numbers.
pub(crate) fn fate(seed: u64, question: &[u64]) -> u64 {
    let mut chance = Chance(seed);
    for part in question {
        chance = Chance(chance.next() ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    chance.next()
}

impl Chance {
    /// A stream of its own for one purpose.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Chance(fate(seed, &[purpose]))
    }

    /// The next number (splitmix64).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + usize::try_from(self.next() % (high - low + 1) as u64).expect("it is in between")
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.next() % 100 < share
    }

    /// Puts these into another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.between(0, at));
        }
    }
}
