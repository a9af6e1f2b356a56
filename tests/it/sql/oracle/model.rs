//! The oracle: what the functions mean by a graph, in memory and as plainly as possible.
//!
//! A job is a number, and a parent's is smaller than its child's: one pass in order settles all.

use std::collections::BTreeSet;

/// A job of the model, by its place.
pub(super) type Name = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum State {
    Blocked,
    Scheduled,
    Ready,
    Running,
    Completed,
    Cancelled,
    Discarded,
}

/// What becomes of a child when the parent fails: ends discarded or cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Policy {
    Cancel,
    Continue,
    Hold,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) parent: Name,
    pub(super) policy: Policy,
    /// Not attached yet: the child waits, whatever the parent does.
    pub(super) is_link: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Job {
    pub(super) state: State,
    pub(super) attempt: i32,
    /// It runs and was asked to stop.
    pub(super) is_stopping: bool,
    pub(super) waits_for_any: bool,
    pub(super) key: Option<u8>,
    pub(super) edges: Vec<Edge>,
    /// The jobs that may be named as the first cause of its fall or of its being held.
    pub(super) causes: BTreeSet<Name>,
}

/// How an execution ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Discard,
    Fail,
    Release,
}

/// What an edge says at a moment.
#[derive(PartialEq)]
enum Word {
    Waits,
    Satisfied,
    Failed(Policy),
}

/// What its edges make of a blocked job, with the causes.
enum Fate {
    Waits,
    Held(BTreeSet<Name>),
    Falls(BTreeSet<Name>),
    Free,
}

/// All jobs; those not yet enqueued are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Model {
    pub(super) jobs: Vec<Option<Job>>,
}

impl State {
    pub(super) fn has_failed(self) -> bool {
        matches!(self, State::Cancelled | State::Discarded)
    }

    pub(super) fn is_finished(self) -> bool {
        self == State::Completed || self.has_failed()
    }
}

impl Job {
    /// It was cancelled because of a parent, and never ran.
    pub(super) fn has_fallen(&self) -> bool {
        self.state == State::Cancelled && self.attempt == 0 && !self.causes.is_empty()
    }
}

impl Model {
    pub(super) fn names(&self) -> impl Iterator<Item = Name> {
        self.jobs.iter().enumerate().filter_map(|(name, job)| job.as_ref().map(|_| name))
    }

    pub(super) fn has(&self, name: Name) -> bool {
        self.jobs.get(name).is_some_and(Option::is_some)
    }

    pub(super) fn job(&self, name: Name) -> &Job {
        self.jobs[name].as_ref().expect("only jobs that exist are named")
    }

    fn job_mut(&mut self, name: Name) -> &mut Job {
        self.jobs[name].as_mut().expect("only jobs that exist are named")
    }

    pub(super) fn key_is_free(&self, key: Option<u8>) -> bool {
        let has_it = |job: &Job| job.key == key && !job.state.is_finished();
        key.is_none() || !self.jobs.iter().flatten().any(has_it)
    }

    /// A job, whose key is free and whose parents have smaller numbers, comes into being.
    pub(super) fn enqueue(&mut self, name: Name, job: Job) {
        if self.jobs.len() <= name {
            self.jobs.resize(name + 1, None);
        }
        self.jobs[name] = Some(job);
        self.settle();
    }

    /// What COMMIT could not attach is attached.
    pub(super) fn link(&mut self) {
        for job in self.jobs.iter_mut().flatten() {
            job.edges.iter_mut().for_each(|edge| edge.is_link = false);
        }
        self.settle();
    }

    pub(super) fn acquire(&mut self, name: Name) {
        let job = self.job_mut(name);
        assert_eq!(job.state, State::Ready, "only ready jobs are acquired");
        job.state = State::Running;
        job.attempt += 1;
    }

    pub(super) fn finish(&mut self, end: End, names: &[Name]) -> Vec<&'static str> {
        let mut verdicts = Vec::new();
        for name in names {
            let job = self.job_mut(*name);
            assert_eq!(job.state, State::Running, "only running jobs are finished");
            let (state, verdict) = match end {
                _ if job.is_stopping => (State::Cancelled, "cancelled"),
                End::Complete => (State::Completed, "completed"),
                End::Discard => (State::Discarded, "discarded"),
                End::Fail => (State::Scheduled, "retrying"),
                End::Release => (State::Ready, "released"),
            };
            job.state = state;
            verdicts.push(verdict);
        }
        self.settle();
        verdicts
    }

    pub(super) fn cancel(&mut self, names: &[Name]) -> Vec<&'static str> {
        let mut verdicts = Vec::new();
        for name in names {
            let job = self.job_mut(*name);
            verdicts.push(match job.state {
                State::Completed | State::Discarded => "finished",
                State::Cancelled => "cancelled",
                State::Running => {
                    job.is_stopping = true;
                    "cancelling"
                }
                State::Blocked | State::Scheduled | State::Ready => {
                    job.state = State::Cancelled;
                    job.causes.clear();
                    "cancelled"
                }
            });
        }
        self.settle();
        verdicts
    }

    /// Every blocked job, parents first, goes by what its edges say.
    pub(super) fn settle(&mut self) {
        let blocked = |job: &Job| job.state == State::Blocked;
        for name in 0..self.jobs.len() {
            if !self.jobs[name].as_ref().is_some_and(blocked) {
                continue;
            }
            let (state, causes) = match self.fate(name) {
                Fate::Waits => (State::Blocked, BTreeSet::new()),
                Fate::Held(causes) => (State::Blocked, causes),
                Fate::Falls(causes) => (State::Cancelled, causes),
                Fate::Free => (State::Ready, BTreeSet::new()),
            };
            let job = self.job_mut(name);
            job.state = state;
            job.causes = causes;
        }
    }

    fn word(&self, edge: &Edge) -> Word {
        match self.job(edge.parent).state {
            _ if edge.is_link => Word::Waits,
            State::Completed => Word::Satisfied,
            State::Cancelled | State::Discarded if edge.policy == Policy::Continue => {
                Word::Satisfied
            }
            State::Cancelled | State::Discarded => Word::Failed(edge.policy),
            _ => Word::Waits,
        }
    }

    fn fate(&self, name: Name) -> Fate {
        let job = self.job(name);
        let any = |word: &Word| job.edges.iter().any(|edge| self.word(edge) == *word);
        let causes = |policies: &[Policy]| {
            let ours = |edge: &&Edge| {
                policies.iter().any(|policy| self.word(edge) == Word::Failed(*policy))
            };
            job.edges.iter().filter(ours).flat_map(|edge| self.first_causes(edge.parent)).collect()
        };
        let (cancel, hold) = (Word::Failed(Policy::Cancel), Word::Failed(Policy::Hold));
        if job.waits_for_any {
            match () {
                () if job.edges.is_empty() || any(&Word::Satisfied) => Fate::Free,
                () if any(&Word::Waits) => Fate::Waits,
                () if any(&hold) => Fate::Held(causes(&[Policy::Cancel, Policy::Hold])),
                () => Fate::Falls(causes(&[Policy::Cancel])),
            }
        } else {
            match () {
                () if any(&cancel) => Fate::Falls(causes(&[Policy::Cancel])),
                () if any(&hold) => Fate::Held(causes(&[Policy::Hold])),
                () if any(&Word::Waits) => Fate::Waits,
                () => Fate::Free,
            }
        }
    }

    /// Of a failed job: itself, unless it fell.
    fn first_causes(&self, name: Name) -> BTreeSet<Name> {
        let causes = &self.job(name).causes;
        if causes.is_empty() { BTreeSet::from([name]) } else { causes.clone() }
    }
}
