//! The shapes of graphs: half of the jobs stand in one.

use super::{Call, DOORS, Door, Manner, PlannedJob, SHARES};
use crate::chance::Chance;

/// So far back a late child looks for parents.
const RECENT: usize = 40;

/// Makes calls one after the other.
pub(super) struct Planner {
    chance: Chance,
    next: usize,
    in_graphs: usize,
    /// Jobs of each producer that later ones may depend on: with an id that is known, and kept.
    recent: Vec<Vec<usize>>,
}

impl Planner {
    pub(super) fn new(seed: u64) -> Self {
        Planner {
            chance: Chance::new(seed, 6),
            next: 0,
            in_graphs: 0,
            recent: vec![Vec::new(); DOORS.len()],
        }
    }

    /// Calls with so many jobs in all, or a few more.
    pub(super) fn calls(mut self, jobs: usize) -> Vec<Call> {
        let mut calls = Vec::new();
        while self.next < jobs {
            calls.push(self.call(calls.len()));
        }
        calls
    }

    fn call(&mut self, number: usize) -> Call {
        let producer = self.producer();
        let jobs = if 2 * self.in_graphs <= self.next {
            let jobs = self.graph(producer);
            self.in_graphs += jobs.len();
            jobs
        } else {
            self.plain()
        };
        let manner = self.manner(DOORS[producer], &jobs);
        if matches!(manner, Manner::Plain | Manner::WithOrder) {
            let recent = &mut self.recent[producer];
            recent.extend(jobs.iter().map(|job| job.n));
            let old = recent.len().saturating_sub(RECENT);
            recent.drain(..old);
        }
        Call { number, producer, manner, jobs }
    }

    fn producer(&mut self) -> usize {
        let mut share = self.chance.between(0, SHARES.iter().sum::<usize>() - 1);
        let is_there = |part: &usize| match share.checked_sub(*part) {
            Some(rest) => {
                share = rest;
                false
            }
            None => true,
        };
        SHARES.iter().position(is_there).expect("it is less than the sum")
    }

    fn manner(&mut self, door: Door, jobs: &[PlannedJob]) -> Manner {
        let first = jobs[0].n;
        let is_late = jobs.iter().flat_map(|job| &job.parents).any(|parent| *parent < first);
        match (door, self.chance.between(0, 99)) {
            (Door::Sql, 0) => Manner::Refused,
            (Door::Sql | Door::Library, 1..=6) => Manner::RolledBack,
            (Door::Sql | Door::Library, 7..=40) => Manner::WithOrder,
            (Door::Http, 0..=40) if !is_late => Manner::Keyed,
            _ => Manner::Plain,
        }
    }

    fn plain(&mut self) -> Vec<PlannedJob> {
        let count = if self.chance.percent(60) { 1 } else { self.chance.between(2, 15) };
        (0..count).map(|_| self.job(Vec::new())).collect()
    }

    fn job(&mut self, parents: Vec<usize>) -> PlannedJob {
        let n = self.next;
        self.next += 1;
        PlannedJob { n, parents, goes_on: self.chance.percent(25) }
    }

    fn graph(&mut self, producer: usize) -> Vec<PlannedJob> {
        match self.chance.between(0, 99) {
            0..=14 => self.chain(),
            15..=34 => self.fan_out(),
            35..=54 => self.fan_in(),
            55..=74 => self.layers(),
            _ if self.recent[producer].is_empty() => self.chain(),
            _ => self.late(producer),
        }
    }

    fn chain(&mut self) -> Vec<PlannedJob> {
        let length = self.chance.between(3, 6);
        let mut jobs: Vec<PlannedJob> = Vec::new();
        for _ in 0..length {
            let parents = jobs.last().map(|job| job.n).into_iter().collect();
            jobs.push(self.job(parents));
        }
        jobs
    }

    fn fan_out(&mut self) -> Vec<PlannedJob> {
        let width = if self.chance.percent(15) { 50 } else { self.chance.between(2, 12) };
        let root = self.job(Vec::new());
        let n = root.n;
        std::iter::once(root).chain((0..width).map(|_| self.job(vec![n]))).collect()
    }

    fn fan_in(&mut self) -> Vec<PlannedJob> {
        let width = self.chance.between(2, 12);
        let mut jobs: Vec<PlannedJob> = (0..width).map(|_| self.job(Vec::new())).collect();
        jobs.push(self.job(jobs.iter().map(|job| job.n).collect()));
        jobs
    }

    /// Every job of a layer waits for two or more of the layer before: siblings share children.
    fn layers(&mut self) -> Vec<PlannedJob> {
        let mut jobs = Vec::new();
        let mut above: Vec<usize> = Vec::new();
        for _ in 0..3 {
            let mut layer = Vec::new();
            for _ in 0..self.chance.between(3, 6) {
                let mut parents = above.clone();
                self.chance.shuffle(&mut parents);
                parents.truncate(self.chance.between(2, 6));
                let job = self.job(parents);
                layer.push(job.n);
                jobs.push(job);
            }
            above = layer;
        }
        jobs
    }

    /// Children of jobs that exist already, and perhaps run or have ended.
    fn late(&mut self, producer: usize) -> Vec<PlannedJob> {
        let mut jobs: Vec<PlannedJob> = Vec::new();
        for _ in 0..self.chance.between(1, 5) {
            let mut parents = self.recent[producer].clone();
            self.chance.shuffle(&mut parents);
            parents.truncate(self.chance.between(1, 3));
            if self.chance.percent(30) {
                parents.extend(jobs.last().map(|job| job.n));
            }
            jobs.push(self.job(parents));
        }
        jobs
    }
}
