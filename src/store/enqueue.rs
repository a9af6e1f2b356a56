//! Enqueue: jobs become parallel arrays, and their parents places in these or ids.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::values::{Interval, Jsonb, refuse_data, unless_all_null};
use crate::db::{Connection, Error, Param, Row, answered_within, typed};
use crate::model::{Code, NewJob, OnParentFailure, Parent, SchemaName, WaitFor};

/// The queue of a job that names none.
pub const DEFAULT_QUEUE: &str = "default";

/// Characters of a name inside a call, which stays here; `name_length` in SQL.
const MOST_REF: usize = 128;

/// What became of one job of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The job: a fresh one, or the one that has the id or the unique key already.
    pub job_id: Uuid,
    /// Whether this call made it.
    pub created: bool,
    /// The name that the call gave it.
    pub reference: Option<String>,
}

/// Enqueues jobs, all of them or none, with one answer a job in input order.
///
/// # Errors
///
/// [`Error::Refused`] when a job is not valid, an id or key belongs to another job, or the call is
/// too large; nothing is stored then.
pub async fn enqueue<J: Borrow<NewJob> + Sync>(
    connection: &Connection,
    jobs: &[J],
) -> Result<Vec<Enqueued>, Error> {
    let arrays = Arrays::of(jobs)?;
    let sql = "SELECT job_id, created FROM enqueue_batch(\
               $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, call_sizes => $14, \
               edge_refs => $15, wait_for_any => $16)";
    let rows = connection.query(sql, &arrays.params()).await.map_err(refuse_data)?;
    answers(&rows, jobs)
}

/// The same inside the caller's own transaction, on a connection that Rowlock did not set up.
///
/// # Errors
///
/// As [`enqueue`]; the transaction has failed then.
pub async fn enqueue_on(
    client: &impl GenericClient,
    schema: &SchemaName,
    deadline: Duration,
    jobs: &[NewJob],
) -> Result<Vec<Enqueued>, Error> {
    let arrays = Arrays::of(jobs)?;
    let sql = format!(
        "SELECT job_id, created FROM {}.enqueue_batch(\
         $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, call_sizes => $14, \
         edge_refs => $15, wait_for_any => $16)",
        schema.quoted()
    );
    let params = arrays.params();
    let rows = answered_within(deadline, client.query_typed(&sql, &typed(&params))).await;
    answers(&rows.map_err(refuse_data)?, jobs)
}

pub(super) fn answers<J: Borrow<NewJob>>(rows: &[Row], jobs: &[J]) -> Result<Vec<Enqueued>, Error> {
    let answer = |(row, job): (&Row, &J)| {
        Ok(Enqueued {
            job_id: row.try_get(0)?,
            created: row.try_get(1)?,
            reference: job.borrow().reference.clone(),
        })
    };
    rows.iter().zip(jobs).map(answer).collect()
}

/// The arguments of `enqueue_batch`.
#[derive(Debug)]
pub(super) struct Arrays<'a> {
    kinds: Vec<&'a str>,
    args: Vec<Jsonb<'a>>,
    queues: Vec<&'a str>,
    priorities: Option<Vec<Option<i32>>>,
    run_ats: Option<Vec<Option<OffsetDateTime>>>,
    max_attempts: Option<Vec<Option<i32>>>,
    timeouts: Option<Vec<Option<Interval>>>,
    unique_keys: Option<Vec<Option<&'a str>>>,
    ids: Option<Vec<Option<Uuid>>>,
    call_sizes: Option<Vec<Option<i32>>>,
    wait_for_any: Option<Vec<Option<bool>>>,
    edges: Edges<'a>,
}

/// Edges by the child's place, from 1, and the parent's place or id.
#[derive(Debug, Default)]
struct Edges<'a> {
    children: Vec<i32>,
    parents: Vec<Option<i32>>,
    outside: Vec<Option<Uuid>>,
    policies: Vec<&'a str>,
    /// What the child calls the parent, where that is not its id.
    refs: Vec<Option<&'a str>>,
}

impl<'a> Arrays<'a> {
    pub(super) fn of<J: Borrow<NewJob>>(jobs: &'a [J]) -> Result<Self, Error> {
        let jobs: Vec<&NewJob> = jobs.iter().map(Borrow::borrow).collect();
        for (place, job) in (1..).zip(&jobs) {
            check_text("kind", place, Some(&job.kind))?;
            check_text("queue", place, job.queue.as_deref())?;
            check_text("unique_key", place, job.unique_key.as_deref())?;
        }
        let all = |get: fn(&NewJob) -> Option<i32>| {
            unless_all_null(jobs.iter().map(|job| get(job)).collect())
        };
        Ok(Arrays {
            kinds: jobs.iter().map(|job| job.kind.as_str()).collect(),
            args: jobs.iter().map(|job| Jsonb(&job.args)).collect(),
            queues: jobs.iter().map(|job| job.queue.as_deref().unwrap_or(DEFAULT_QUEUE)).collect(),
            priorities: all(|job| job.priority.map(i32::from)),
            run_ats: unless_all_null(jobs.iter().map(|job| job.run_at).collect()),
            max_attempts: all(|job| job.max_attempts),
            timeouts: unless_all_null(jobs.iter().map(|job| job.timeout.map(Interval)).collect()),
            unique_keys: unless_all_null(
                jobs.iter().map(|job| job.unique_key.as_deref()).collect(),
            ),
            ids: unless_all_null(jobs.iter().map(|job| job.id).collect()),
            call_sizes: all(|job| job.call_size),
            wait_for_any: unless_all_null(
                jobs.iter().map(|job| job.wait_for.map(|which| which == WaitFor::Any)).collect(),
            ),
            edges: Edges::of(&jobs)?,
        })
    }

    pub(super) fn params(&self) -> [&dyn Param; 16] {
        [
            &self.kinds,
            &self.args,
            &self.queues,
            &self.priorities,
            &self.run_ats,
            &self.max_attempts,
            &self.timeouts,
            &self.unique_keys,
            &self.ids,
            &self.edges.children,
            &self.edges.parents,
            &self.edges.outside,
            &self.edges.policies,
            &self.call_sizes,
            &self.edges.refs,
            &self.wait_for_any,
        ]
    }
}

impl<'a> Edges<'a> {
    fn of(jobs: &[&'a NewJob]) -> Result<Self, Error> {
        let places = places(jobs)?;
        let mut edges = Edges::default();
        for (child, job) in (1..).zip(jobs.iter().copied()) {
            let policy = job.on_parent_failure.unwrap_or(OnParentFailure::Cancel);
            for dependency in &job.parents {
                let (place, outside, name) = match &dependency.parent {
                    Parent::Id(id) => (None, Some(*id), None),
                    Parent::Ref(name) => match places.get(name.as_str()) {
                        Some(place) => (Some(*place), None, Some(name.as_str())),
                        None => {
                            let message = format!("depends_on of job {child} names no job");
                            return Err(refused(message, name, "Use a ref of this call or an id."));
                        }
                    },
                };
                edges.children.push(child);
                edges.parents.push(place);
                edges.outside.push(outside);
                edges.refs.push(name);
                edges.policies.push(dependency.on_parent_failure.unwrap_or(policy).as_str());
            }
        }
        Ok(edges)
    }
}

/// The place, from 1, of each job that has a name.
fn places<'a>(jobs: &[&'a NewJob]) -> Result<HashMap<&'a str, i32>, Error> {
    let mut places = HashMap::new();
    for (place, job) in (1..).zip(jobs) {
        let Some(name) = job.reference.as_deref() else { continue };
        if !(1..=MOST_REF).contains(&name.chars().count()) {
            let message = format!("ref of job {place} is not valid");
            return Err(refused(message, name, "Use 1 to 128 characters."));
        }
        match places.entry(name) {
            Entry::Vacant(free) => free.insert(place),
            Entry::Occupied(_) => {
                let message = format!("ref of job {place} is taken in this call");
                return Err(refused(message, name, "Give each job a ref of its own."));
            }
        };
    }
    Ok(places)
}

/// Postgres has no text with NUL in it, and would not say which job's it was.
fn check_text(what: &str, place: i32, text: Option<&str>) -> Result<(), Error> {
    match text {
        Some(text) if text.contains('\0') => {
            let shown = text.replace('\0', "\\0");
            let message = format!("{what} of job {place} has a NUL character");
            Err(refused(message, &shown, "Leave it out."))
        }
        _ => Ok(()),
    }
}

fn refused(message: String, found: &str, hint: &str) -> Error {
    Error::Refused {
        code: Code::Invalid,
        message,
        detail: Some(found.chars().take(200).collect()),
        hint: Some(hint.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> NewJob {
        NewJob::new("mail", &()).unwrap()
    }

    fn message(jobs: &[NewJob]) -> String {
        let error = Arrays::of(jobs).unwrap_err();
        assert_eq!(error.code(), Some(Code::Invalid));
        error.to_string()
    }

    #[test]
    fn parents_become_places_or_ids() {
        let outside = Uuid::from_u128(7);
        let jobs = [
            job().reference("a"),
            job()
                .depends_on_with("a", OnParentFailure::Continue)
                .depends_on("c")
                .on_parent_failure(OnParentFailure::Hold),
            job().reference("c").depends_on(outside),
        ];
        let edges = Arrays::of(&jobs).unwrap().edges;
        assert_eq!(edges.children, [2, 2, 3]);
        assert_eq!(edges.parents, [Some(1), Some(3), None]);
        assert_eq!(edges.outside, [None, None, Some(outside)]);
        assert_eq!(edges.policies, ["continue", "hold", "cancel"]);
        assert_eq!(edges.refs, [Some("a"), Some("c"), None]);
    }

    #[test]
    fn refs_that_are_unknown_or_taken_are_refused() {
        let unknown = message(&[job(), job().depends_on("a")]);
        assert_eq!(unknown, "RL422: depends_on of job 2 names no job");
        let long = message(&[job().reference("é".repeat(128)), job().reference("é".repeat(129))]);
        assert_eq!(long, "RL422: ref of job 2 is not valid");
        assert_eq!(message(&[job().reference("")]), "RL422: ref of job 1 is not valid");
        let taken = message(&[job().reference("a"), job(), job().reference("a")]);
        assert_eq!(taken, "RL422: ref of job 3 is taken in this call");
    }

    #[test]
    fn nul_is_refused_where_it_stands() {
        let text = message(&[job(), job().queue("a\0b")]);
        assert_eq!(text, "RL422: queue of job 2 has a NUL character");
    }

    #[test]
    fn what_nobody_gave_is_sent_as_null() {
        let jobs = [job(), job().priority(0)];
        let arrays = Arrays::of(&jobs).unwrap();
        assert_eq!(arrays.priorities, Some(vec![None, Some(0)]));
        assert_eq!((arrays.run_ats, arrays.ids), (None, None));
    }
}
