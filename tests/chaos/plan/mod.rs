//! The plan: what follows from a seed. Every process makes it anew and finds the same.

mod faults;
mod shapes;

pub(crate) use faults::{Kind, PlannedFault, schedule};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::chance::{Chance, fate};
use crate::run::{QUEUES, Run, in_micros};

/// Producers of a run, each with a door of its own.
pub(crate) const DOORS: [Door; 4] = [Door::Sql, Door::Http, Door::Library, Door::Sql];

/// Of a hundred calls, those of each: less for the first and third, whose wire is cut, and for the
/// third, which comes by a pooler, so that all have done their part at the same time.
const SHARES: [usize; DOORS.len()] = [26, 31, 12, 31];

/// How a producer enqueues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Sql,
    Http,
    Library,
}

/// What is special about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Jobs with ids of the caller's.
    Plain,
    /// In one transaction with a row of a table of the caller's.
    WithOrder,
    /// The same, and then rolled back.
    RolledBack,
    /// With a number that no limit allows: to be refused.
    Refused,
    /// Over HTTP, under an Idempotency-Key instead of ids.
    Keyed,
}

/// A job of a call.
#[derive(Clone, Debug)]
pub(crate) struct PlannedJob {
    pub(crate) n: usize,
    /// By number; of this call, or of an earlier one of the same producer.
    pub(crate) parents: Vec<usize>,
    /// Whether it runs although a parent did not complete.
    pub(crate) goes_on: bool,
}

/// One enqueue.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) number: usize,
    pub(crate) producer: usize,
    pub(crate) manner: Manner,
    pub(crate) jobs: Vec<PlannedJob>,
}

impl Call {
    /// The number of its first job.
    fn first(&self) -> usize {
        self.jobs[0].n
    }

    /// Whether it is one job without parents.
    pub(crate) fn is_single(&self) -> bool {
        self.jobs.len() == 1 && self.jobs[0].parents.is_empty()
    }

    /// When it is due, in microseconds since 1970.
    pub(crate) fn due(&self, run: &Run) -> i64 {
        let share = self.first() as f64 / run.jobs as f64;
        run.starts + (in_micros(run.span()) as f64 * share) as i64
    }

    /// Its jobs as JSON, the numbers kept as text: a refused one is out of every range.
    pub(crate) fn body(&self, run: &Run, life: u64) -> String {
        let jobs = self.jobs.iter().map(|job| self.job(run, job, life).to_string());
        format!("[{}]", jobs.collect::<Vec<_>>().join(",")).replace("\"huge\"", "1e5000")
    }

    fn job(&self, run: &Run, job: &PlannedJob, life: u64) -> Value {
        let options = Options::of(run, job.n);
        let mut value = json!({
            "kind": "work", "queue": options.queue, "args": {"n": job.n}, "ref": reference(job.n),
        });
        if self.manner == Manner::Refused {
            value["args"]["x"] = "huge".into();
        }
        if self.manner != Manner::Keyed {
            value["id"] = run.id(job.n, life).to_string().into();
        }
        if let Some(priority) = options.priority {
            value["priority"] = priority.into();
        }
        if let Some(run_at) = options.run_at {
            value["run_at"] = run_at.format(&Rfc3339).expect("a time").into();
        }
        if options.has_key && self.manner != Manner::Keyed {
            value["unique_key"] = format!("key {} {life}", job.n).into();
        }
        if !job.parents.is_empty() {
            let names = job.parents.iter().map(|parent| self.parent(run, *parent, life));
            value["depends_on"] = names.collect::<Vec<_>>().into();
            value["on_parent_failure"] = if job.goes_on { "continue" } else { "cancel" }.into();
        }
        value
    }

    /// A parent of this call by its ref, an earlier one by its id.
    fn parent(&self, run: &Run, n: usize, life: u64) -> String {
        if self.first() <= n { reference(n) } else { run.id(n, life).to_string() }
    }

    /// Whether a parent was enqueued by an earlier call.
    pub(crate) fn is_outside(&self, n: usize) -> bool {
        n < self.first()
    }
}

/// What a job is named inside its call.
pub(crate) fn reference(n: usize) -> String {
    format!("j{n}")
}

/// The options of a job.
pub(crate) struct Options {
    pub(crate) queue: &'static str,
    pub(crate) priority: Option<i16>,
    pub(crate) run_at: Option<OffsetDateTime>,
    pub(crate) has_key: bool,
}

impl Options {
    /// Those of a job by its number.
    pub(crate) fn of(run: &Run, n: usize) -> Options {
        let mut chance = Chance::new(run.seed, fate(10, &[n as u64]));
        let queue = QUEUES[chance.between(0, QUEUES.len() - 1)];
        let priority = chance.percent(30).then(|| chance.between(0, 9) as i16);
        let run_at = chance.percent(4).then(|| {
            let share = n as f64 / run.jobs as f64;
            let due = run.starts / 1_000_000 + (run.span().as_secs_f64() * share) as i64;
            let seconds = due + chance.between(1, 4) as i64;
            OffsetDateTime::from_unix_timestamp(seconds).expect("a time")
        });
        Options { queue, priority, run_at, has_key: chance.percent(10) }
    }
}

/// The calls of a run, by number.
pub(crate) fn calls(run: &Run) -> Vec<Call> {
    shapes::Planner::new(run.seed).calls(run.jobs)
}

/// Whether an operator cancels this job.
pub(crate) fn is_cancelled(run: &Run, n: usize) -> bool {
    fate(run.seed, &[20, n as u64]).is_multiple_of(150)
}
