//! Random operations that mostly make sense where the oracle stands.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::model::{End, Model, Name, Policy, State};
use super::ops::{Links, New, Op};

/// So many jobs a case: few, so that they meet.
const MOST_JOBS: usize = 14;
const KEYS: u8 = 2;

pub(super) struct Chance {
    rng: StdRng,
    /// The number of the next job.
    next: Name,
    /// How often an edge has each policy, and a child waits for any: a taste of each case.
    policies: Vec<Policy>,
    any: f64,
    keys: u8,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        let mut rng = StdRng::seed_from_u64(seed);
        let all = [Policy::Cancel, Policy::Continue, Policy::Hold];
        let policies = (0..3).map(|_| *all.choose(&mut rng).expect("three")).collect();
        let any = *[0.0, 0.3, 0.6].choose(&mut rng).expect("three");
        Chance { rng, next: 0, policies, any, keys: KEYS }
    }

    /// Whose key is free would depend on the order of operations.
    pub(super) fn without_keys(seed: u64) -> Chance {
        Chance { keys: 0, ..Chance::new(seed) }
    }

    /// An operation for one connection at a time.
    pub(super) fn op(&mut self, model: &Model, open: &[New]) -> Op {
        match self.rng.random_range(0..100) {
            0..18 => self.enqueue(model),
            18..23 if self.next < MOST_JOBS => Op::Open(self.new_job(model, open, false)),
            23..27 => Op::Close,
            27..32 => Op::Link,
            _ => self.change(model),
        }
    }

    /// A graph of one to five jobs.
    pub(super) fn enqueue(&mut self, model: &Model) -> Op {
        let count = self.rng.random_range(1..=5).min(MOST_JOBS.saturating_sub(self.next));
        if count == 0 {
            return Op::Link;
        }
        let mut jobs = Vec::new();
        for _ in 0..count {
            let job = self.new_job(model, &jobs, true);
            jobs.push(job);
        }
        let late = self.rng.random_bool(0.15);
        Op::Enqueue(jobs, if late { Links::ByMaintenance } else { Links::AtCommit })
    }

    /// One child of jobs that exist, if the case has room for it.
    pub(super) fn attach(&mut self, model: &Model) -> Op {
        if MOST_JOBS <= self.next {
            return self.change(model);
        }
        Op::Enqueue(vec![self.new_job(model, &[], false)], Links::AtCommit)
    }

    fn new_job(&mut self, model: &Model, inside: &[New], may_have_key: bool) -> New {
        let names: Vec<Name> = model.names().chain(inside.iter().map(|job| job.name)).collect();
        let count = self.rng.random_range(0..=3);
        let mut parents: Vec<Name> = names.choose_multiple(&mut self.rng, count).copied().collect();
        parents.sort_unstable();
        let edges = parents
            .into_iter()
            .map(|parent| (parent, *self.policies.choose(&mut self.rng).expect("three")));
        let edges = edges.collect();
        let key = (may_have_key && 0 < self.keys && self.rng.random_bool(0.4))
            .then(|| self.rng.random_range(0..self.keys));
        let is_free = model.key_is_free(key) && !inside.iter().any(|job| job.key == key);
        let key = key.filter(|_| is_free);
        let name = self.next;
        self.next += 1;
        New { name, waits_for_any: self.rng.random_bool(self.any), key, edges }
    }

    /// Something that happens to jobs that exist.
    pub(super) fn change(&mut self, model: &Model) -> Op {
        let (ready, running) = (self.some(model, is_ready), self.some(model, is_running));
        match self.rng.random_range(0..100) {
            0..35 if !ready.is_empty() => Op::Acquire(ready[0]),
            35..65 if !running.is_empty() => Op::Finish(self.end(), running),
            65..80 => {
                let failed = self.some(model, State::has_failed);
                match self.rng.random_range(0..3) {
                    0 => Op::Retry(self.some(model, |_| true)),
                    1 => Op::Retry(self.some(model, |state| state == State::Blocked)),
                    _ => Op::Retry(failed),
                }
            }
            80..90 => Op::Cancel(self.some(model, |_| true)),
            _ if !running.is_empty() => Op::Finish(self.end(), running),
            _ if !ready.is_empty() => Op::Acquire(ready[0]),
            _ => Op::Retry(self.some(model, State::has_failed)),
        }
    }

    fn end(&mut self) -> End {
        match self.rng.random_range(0..20) {
            0..9 => End::Complete,
            9..18 => End::Discard,
            18 => End::Fail,
            _ => End::Release,
        }
    }

    /// Up to three such jobs, in any order.
    fn some(&mut self, model: &Model, which: impl Fn(State) -> bool) -> Vec<Name> {
        let all: Vec<Name> = model.names().filter(|name| which(model.job(*name).state)).collect();
        let count = *[1, 1, 1, 2, 3].choose(&mut self.rng).expect("five");
        all.choose_multiple(&mut self.rng, count).copied().collect()
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.rng.random_range(0..bound)
    }
}

fn is_ready(state: State) -> bool {
    state == State::Ready
}

fn is_running(state: State) -> bool {
    state == State::Running
}
