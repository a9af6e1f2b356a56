//! What is done to the queue: each operation as SQL, and as the oracle does it.

use std::fmt::Write as _;

use uuid::Uuid;

use super::model::{Edge, End, Job, Model, Name, Policy, State};
use crate::harness::sql::ids;

/// A job to be enqueued.
#[derive(Clone, Debug)]
pub(super) struct New {
    pub(super) name: Name,
    pub(super) waits_for_any: bool,
    pub(super) key: Option<u8>,
    pub(super) edges: Vec<(Name, Policy)>,
}

/// When a call's outside parents are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    AtCommit,
    ByMaintenance,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Enqueue(Vec<New>, Links),
    Acquire(Name),
    Finish(End, Vec<Name>),
    Cancel(Vec<Name>),
    Retry(Vec<Name>),
    /// The duty that attaches what COMMIT could not. All of maintenance would wait for `Open`.
    Link,
    /// Enqueues in a transaction that stays open until `Close`.
    Open(New),
    Close,
}

/// The one worker.
pub(super) fn worker() -> Uuid {
    Uuid::from_u128(0xf0)
}

pub(super) fn id(name: Name) -> Uuid {
    Uuid::from_u128(0x7000_8000_0000_0000_0000 + name as u128)
}

pub(super) fn name_of(id: Uuid) -> Name {
    usize::try_from(id.as_u128() & 0xffff).expect("few jobs")
}

pub(super) fn ids_of(names: &[Name]) -> String {
    ids(&names.iter().copied().map(id).collect::<Vec<_>>())
}

impl Policy {
    fn word(self) -> &'static str {
        match self {
            Policy::Cancel => "cancel",
            Policy::Continue => "continue",
            Policy::Hold => "hold",
        }
    }
}

impl New {
    /// Without the parents that do not exist, as happens while a failure is made smaller.
    fn fit(&self, exists: impl Fn(Name) -> bool) -> New {
        let mut job = self.clone();
        job.edges.retain(|(parent, _)| exists(*parent));
        job
    }

    fn entry(&self, inside: &[New]) -> String {
        let edges = self.edges.iter().map(|(parent, policy)| {
            let is_inside = inside.iter().any(|job| job.name == *parent);
            let parent = if is_inside { parent.to_string() } else { id(*parent).to_string() };
            format!(r#"{{"job": "{parent}", "on_parent_failure": "{}"}}"#, policy.word())
        });
        let mut entry = format!(r#""kind": "{}", "id": "{}""#, self.name, id(self.name));
        let _ = write!(entry, r#", "ref": "{}""#, self.name);
        if !self.edges.is_empty() {
            let edges = edges.collect::<Vec<_>>().join(", ");
            let _ = write!(entry, r#", "depends_on": [{edges}]"#);
        }
        if self.waits_for_any {
            entry.push_str(r#", "wait_for": "any""#);
        }
        if let Some(key) = self.key {
            let _ = write!(entry, r#", "unique_key": "{key}""#);
        }
        format!("{{{entry}}}")
    }

    pub(super) fn made(&self, model: &Model, links: Links, inside: &[New]) -> Job {
        let edges = self.edges.iter().map(|&(parent, policy)| {
            let is_link = links == Links::ByMaintenance
                && !inside.iter().any(|job| job.name == parent)
                && model.job(parent).state != State::Completed;
            Edge { parent, policy, is_link }
        });
        Job {
            state: State::Blocked,
            attempt: 0,
            is_stopping: false,
            waits_for_any: self.waits_for_any && !self.edges.is_empty(),
            key: self.key,
            edges: edges.collect(),
            causes: std::collections::BTreeSet::new(),
        }
    }
}

fn enqueue_many(jobs: &[New]) -> String {
    let entries: Vec<String> = jobs.iter().map(|job| job.entry(jobs)).collect();
    format!("select created::text from enqueue_many('[{}]')", entries.join(", "))
}

impl Op {
    /// The operation as far as it can be done now, and `None` where nothing of it can.
    pub(super) fn fit(&self, model: &Model, open: &[New]) -> Option<Op> {
        let is_open = |name: Name| open.iter().any(|job| job.name == name);
        let those = |names: &[Name], which: &dyn Fn(Name) -> bool| {
            let names: Vec<Name> = names.iter().copied().filter(|name| which(*name)).collect();
            (!names.is_empty()).then_some(names)
        };
        let exists = |name: Name| model.has(name);
        match self {
            Op::Enqueue(jobs, links) => {
                let inside = |name: Name| jobs.iter().any(|job| job.name == name);
                let fit = |job: &New| job.fit(|name| exists(name) || inside(name));
                let is_free = jobs.iter().all(|job| model.key_is_free(job.key));
                is_free.then(|| Op::Enqueue(jobs.iter().map(fit).collect(), *links))
            }
            Op::Acquire(name) => {
                let is_ready = exists(*name) && model.job(*name).state == State::Ready;
                is_ready.then(|| self.clone())
            }
            Op::Finish(end, names) => {
                let runs = |name| exists(name) && model.job(name).state == State::Running;
                those(names, &runs).map(|names| Op::Finish(*end, names))
            }
            Op::Cancel(names) => those(names, &exists).map(Op::Cancel),
            Op::Retry(names) => {
                let names = those(names, &exists)?;
                (!model.retry_is_ambiguous(&names)).then_some(Op::Retry(names))
            }
            Op::Open(job) => Some(Op::Open(job.fit(|name| exists(name) || is_open(name)))),
            Op::Close => (!open.is_empty()).then_some(Op::Close),
            Op::Link => Some(Op::Link),
        }
    }

    /// The statements, whose last answers a word a row.
    pub(super) fn sql(&self, model: &Model) -> String {
        match self {
            Op::Enqueue(jobs, _) => enqueue_many(jobs),
            Op::Open(job) => enqueue_many(std::slice::from_ref(job)),
            Op::Acquire(name) => format!(
                "select job_id::text from acquire('{}', '{{default}}', 1, '1 hour', '{{{name}}}')",
                worker()
            ),
            Op::Finish(end, names) => {
                let attempts = names.iter().map(|name| model.job(*name).attempt.to_string());
                let attempts = format!("'{{{}}}'::int[]", attempts.collect::<Vec<_>>().join(","));
                let (ids, each) = (ids_of(names), |word: &str| vec![word; names.len()].join(","));
                let (verb, more) = match end {
                    End::Complete => ("complete", String::new()),
                    End::Discard => ("fail", format!(", discard => '{{{}}}'", each("true"))),
                    End::Fail => {
                        let at = each("clock_timestamp() + interval '1 day'");
                        ("fail", format!(", retry_at => array[{at}]"))
                    }
                    End::Release => ("release", String::new()),
                };
                format!(
                    "select verdict from {verb}('{}', {ids}, {attempts}, array(select e.token \
                     from unnest({ids}, {attempts}) with ordinality g(id, n, k) \
                     join executions e on e.job_id = g.id and e.attempt = g.n order by g.k){more})",
                    worker()
                )
            }
            Op::Cancel(names) => format!("select verdict from cancel({})", ids_of(names)),
            Op::Retry(names) => format!("select verdict from retry({})", ids_of(names)),
            Op::Link => "select ran::text from try_duty('link', 1000)".to_owned(),
            Op::Close => "commit".to_owned(),
        }
    }

    /// What the oracle makes of it: the words that the SQL answers.
    pub(super) fn apply(&self, model: &mut Model, open: &mut Vec<New>) -> Vec<String> {
        let words = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect();
        match self {
            Op::Enqueue(jobs, links) => {
                for job in jobs {
                    let made = job.made(model, *links, jobs);
                    model.enqueue(job.name, made);
                }
                vec!["true".to_owned(); jobs.len()]
            }
            Op::Acquire(name) => {
                model.acquire(*name);
                vec![id(*name).to_string()]
            }
            Op::Finish(end, names) => words(model.finish(*end, names)),
            Op::Cancel(names) => words(model.cancel(names)),
            Op::Retry(names) => words(model.retry(names)),
            Op::Link => {
                model.link();
                words(vec!["true"])
            }
            Op::Open(job) => {
                open.push(job.clone());
                words(vec!["true"])
            }
            Op::Close => {
                for job in open.drain(..) {
                    let made = job.made(model, Links::AtCommit, &[]);
                    model.enqueue(job.name, made);
                }
                Vec::new()
            }
        }
    }
}
