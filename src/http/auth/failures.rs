//! Wrong tokens by whom they come from: so many at once, then one a second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong ones that may come at once.
const BURST: u32 = 20;

/// After so long one of them is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

/// Peers remembered at once.
const MOST_PEERS: usize = 10_000;

/// When the wrong tokens of each peer will all be forgotten.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<IpAddr, Instant>>);

impl Failures {
    /// Whether no more is to be looked at for now.
    pub(super) fn are_too_many(&self, peer: IpAddr, now: Instant) -> bool {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = peers.get(&network(peer));
        forgotten.is_some_and(|at| FORGOTTEN_AFTER * (BURST - 1) < at.duration_since(now))
    }

    /// Counts a wrong one.
    pub(super) fn count(&self, peer: IpAddr, now: Instant) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if MOST_PEERS <= peers.len() {
            peers.retain(|_, forgotten| now < *forgotten);
        }
        // Too many peers at once to tell them apart.
        if MOST_PEERS <= peers.len() {
            peers.clear();
        }
        let forgotten = peers.entry(network(peer)).or_insert(now);
        // Of those that were under way together, no more are remembered than may come at once.
        let most = now + FORGOTTEN_AFTER * BURST;
        *forgotten = ((*forgotten).max(now) + FORGOTTEN_AFTER).min(most);
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wrong_ones_are_too_many_until_they_are_forgotten() {
        let failures = Failures::default();
        let (peer, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let now = Instant::now();
        for _ in 0..BURST {
            assert!(!failures.are_too_many(peer, now));
            failures.count(peer, now);
        }
        assert!(failures.are_too_many(peer, now));
        assert!(!failures.are_too_many(other, now));
        assert!(failures.are_too_many("::ffff:10.0.0.1".parse().unwrap(), now));
        assert!(!failures.are_too_many(peer, now + FORGOTTEN_AFTER));
        for _ in 0..5_000 {
            failures.count(peer, now);
        }
        assert!(!failures.are_too_many(peer, now + FORGOTTEN_AFTER));
    }

    #[test]
    fn neighbours_of_one_network_are_one_and_their_number_is_bounded() {
        let failures = Failures::default();
        let now = Instant::now();
        for host in 0..u16::try_from(BURST).unwrap() {
            failures.count(Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, host).into(), now);
        }
        assert!(failures.are_too_many("1:2:3:4::".parse().unwrap(), now));
        for number in 0..2 * u32::try_from(MOST_PEERS).unwrap() {
            failures.count(IpAddr::V4(number.into()), now);
        }
        assert!(failures.0.lock().unwrap().len() <= MOST_PEERS);
    }
}
