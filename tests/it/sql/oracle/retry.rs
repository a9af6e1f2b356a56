//! The oracle's retry: what runs again, what comes back with it, what is let go.

use std::collections::BTreeSet;

use super::model::{Edge, Job, Model, Name, Policy, State};

impl Model {
    /// Whether which job gets a unique key is left to chance.
    pub(super) fn retry_is_ambiguous(&self, names: &[Name]) -> bool {
        let mut keys = BTreeSet::new();
        let mut after = self.clone();
        after.retry(names);
        let back = self.names().filter(|name| {
            let (before, after) = (self.job(*name).state, after.job(*name).state);
            before.has_failed() && (!after.has_failed() || names.contains(name))
        });
        back.filter_map(|name| self.job(name).key).any(|key| !keys.insert(key))
    }

    pub(super) fn retry(&mut self, names: &[Name]) -> Vec<&'static str> {
        let mut revived = BTreeSet::new();
        let mut verdicts = Vec::new();
        for name in names {
            let job = self.job(*name);
            verdicts.push(match job.state {
                _ if revived.contains(name) => "retried",
                state if state.has_failed() && !self.has_its_key(job, &revived) => "conflict",
                state if state.has_failed() => {
                    revived.insert(*name);
                    "retried"
                }
                State::Blocked if !job.causes.is_empty() => "released",
                State::Completed => "completed",
                _ => "unfinished",
            });
        }
        for name in names {
            let job = self.job(*name);
            if job.state == State::Blocked && !job.causes.is_empty() {
                self.forgive(*name, &BTreeSet::new(), |edge| edge.policy == Policy::Hold);
            }
        }
        self.settle();
        let named = revived.clone();
        for name in 0..self.jobs.len() {
            if self.has(name) && !names.contains(&name) && self.comes_back(name, &revived) {
                revived.insert(name);
            }
        }
        for name in &named {
            self.forgive(*name, &revived, |_| true);
        }
        self.leave_behind(&revived);
        for name in &revived {
            let job = self.jobs[*name].as_mut().expect("it exists");
            job.state = State::Blocked;
            job.is_stopping = false;
            job.causes.clear();
        }
        self.settle();
        verdicts
    }

    fn has_its_key(&self, job: &Job, revived: &BTreeSet<Name>) -> bool {
        let taken = |name: &Name| job.key.is_some() && self.job(*name).key == job.key;
        self.key_is_free(job.key) && !revived.iter().any(taken)
    }

    /// A fallen job does with a parent that it fell with, unless another failed parent stands against it.
    fn comes_back(&self, name: Name, revived: &BTreeSet<Name>) -> bool {
        let job = self.job(name);
        let against = |edge: &Edge| {
            edge.policy == Policy::Cancel
                && self.job(edge.parent).state.has_failed()
                && !revived.contains(&edge.parent)
        };
        let fell_with =
            |edge: &Edge| edge.policy == Policy::Cancel && revived.contains(&edge.parent);
        job.has_fallen()
            && job.edges.iter().any(fell_with)
            && (job.waits_for_any || !job.edges.iter().any(against))
            && self.has_its_key(job, revived)
    }

    /// Failed parents no longer matter to a job that a person lets go, or lets run again; but one
    /// that waits for any of its parents goes on waiting for those that are left.
    fn forgive(&mut self, name: Name, revived: &BTreeSet<Name>, which: impl Fn(&Edge) -> bool) {
        let is_left = |edge: &Edge| {
            let parent = &self.job(edge.parent);
            !parent.state.is_finished() || revived.contains(&edge.parent)
        };
        let job = self.job(name);
        if job.waits_for_any && job.edges.iter().any(is_left) {
            return;
        }
        let failed: Vec<bool> = job
            .edges
            .iter()
            .map(|edge| self.job(edge.parent).state.has_failed() && !is_left(edge))
            .collect();
        let job = self.jobs[name].as_mut().expect("it exists");
        for (edge, failed) in job.edges.iter_mut().zip(failed) {
            if failed && which(edge) {
                edge.policy = Policy::Continue;
            }
        }
    }

    /// Children that went on without a revived parent have nothing to do with it any more.
    fn leave_behind(&mut self, revived: &BTreeSet<Name>) {
        for (name, job) in self.jobs.iter_mut().enumerate() {
            let Some(job) = job else { continue };
            let went_on = match job.state {
                State::Ready | State::Scheduled | State::Running => true,
                State::Completed | State::Discarded | State::Cancelled | State::Blocked => false,
            };
            if went_on && !revived.contains(&name) {
                job.edges.retain(|edge| !revived.contains(&edge.parent));
            }
        }
    }
}
