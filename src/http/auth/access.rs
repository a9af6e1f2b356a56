//! What the caller of a request may see and touch: everything, or what is in some queues.
//!
//! What is not the caller's is answered as if it were not there; only what the request itself names
//! is refused by name.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use uuid::Uuid;

use crate::engine::Engine;
use crate::http::problem::{Kind, Problem, no_such_job, no_such_workflow};
use crate::model::{Code, NewJob, Parent, Scope};

/// The queue of a job that names none.
const DEFAULT_QUEUE: &str = "default";

/// What a caller may see and touch.
#[derive(Clone, Debug)]
pub(in crate::http) struct Access {
    /// `None` for everything; else the token has queues.
    limits: Option<Arc<Scope>>,
}

impl Access {
    /// To everything.
    pub(super) fn everything() -> Self {
        Access { limits: None }
    }

    /// To what a token allows; its actions were looked at before.
    pub(super) fn of(scope: Arc<Scope>) -> Self {
        Access { limits: Some(scope).filter(|scope| scope.queues.is_some()) }
    }

    /// To nothing: where no guard was asked.
    fn nothing() -> Self {
        Access { limits: Some(Arc::new(Scope { actions: vec![], queues: Some(vec![]) })) }
    }

    /// Whether it has no limits.
    pub(in crate::http) fn is_everything(&self) -> bool {
        self.limits.is_none()
    }

    /// Whether things of this queue may be seen.
    pub(in crate::http) fn sees(&self, queue: &str) -> bool {
        self.limits.as_ref().is_none_or(|scope| scope.covers(queue))
    }

    /// The queue, where there is one and no more.
    pub(in crate::http) fn only_queue(&self) -> Option<&str> {
        match self.limits.as_ref()?.queues.as_deref()? {
            [queue] if !queue.ends_with('*') => Some(queue),
            _ => None,
        }
    }

    /// Lets pass what is only for who has no limits.
    pub(in crate::http) fn all_queues(&self) -> Result<(), Problem> {
        match self.is_everything() {
            true => Ok(()),
            false => Err(Problem::new(Kind::Forbidden, "the token is not for all queues")),
        }
    }

    /// Lets pass a request that names this queue.
    pub(in crate::http) fn queue(&self, queue: &str) -> Result<(), Problem> {
        match self.sees(queue) {
            true => Ok(()),
            false => Err(Problem::new(
                Kind::Forbidden,
                format!("the token is not for the queue {queue:.128}"),
            )
            .hint("`rowlock token create --queue` makes one that is.")),
        }
    }

    /// Lets pass a request about this job.
    pub(in crate::http) async fn job(&self, engine: &Engine, id: Uuid) -> Result<(), Problem> {
        let Some(scope) = &self.limits else { return Ok(()) };
        let found = engine.queues_of_jobs(&[id]).await?;
        let is_seen = found.iter().any(|(_, queue)| scope.covers(queue));
        if is_seen { Ok(()) } else { Err(no_such_job(id)) }
    }

    /// Those of these workflows that lie in the caller's queues with all of their jobs.
    pub(in crate::http) async fn workflows(
        &self,
        engine: &Engine,
        ids: &[Uuid],
    ) -> Result<HashSet<Uuid>, Problem> {
        let Some(scope) = &self.limits else { return Ok(ids.iter().copied().collect()) };
        let found = engine.queues_of_workflows(ids).await?;
        let foreign = found.iter().filter(|(_, queue)| !scope.covers(queue)).map(|(id, _)| *id);
        let foreign: HashSet<Uuid> = foreign.collect();
        let ids = found.into_iter().map(|(id, _)| id);
        Ok(ids.filter(|id| !foreign.contains(id)).collect())
    }

    /// Lets pass a request about this workflow.
    pub(in crate::http) async fn workflow(&self, engine: &Engine, id: Uuid) -> Result<(), Problem> {
        let is_seen = self.workflows(engine, &[id]).await?.contains(&id);
        if is_seen { Ok(()) } else { Err(no_such_workflow(id)) }
    }

    /// Lets pass a worker that takes from the caller's queues only, or is not known yet.
    pub(in crate::http) async fn worker(&self, engine: &Engine, id: Uuid) -> Result<(), Problem> {
        let Some(scope) = &self.limits else { return Ok(()) };
        let queues = engine.queues_of_worker(id).await?;
        match queues.iter().all(|queue| scope.covers(queue)) {
            true => Ok(()),
            false => Err(Problem::new(
                Kind::Forbidden,
                "the worker takes from queues that the token is not for",
            )),
        }
    }

    /// Lets pass an enqueue of these jobs. A parent of another queue is one that is not there, and a
    /// ref stands for whichever job holds the key that was given with it: that may be anybody's.
    pub(in crate::http) async fn enqueue(
        &self,
        engine: &Engine,
        jobs: &[NewJob],
    ) -> Result<(), Problem> {
        let Some(scope) = &self.limits else { return Ok(()) };
        for job in jobs {
            self.queue(job.queue.as_deref().unwrap_or(DEFAULT_QUEUE))?;
        }
        let refs = jobs.iter().flat_map(|job| &job.parents).filter_map(|edge| match &edge.parent {
            Parent::Ref(name) => Some(name),
            Parent::Id(_) => None,
        });
        let refs: HashSet<&String> = refs.collect();
        let is_keyed_parent = |job: &NewJob| {
            job.unique_key.is_some() && job.reference.as_ref().is_some_and(|it| refs.contains(it))
        };
        if let Some((place, _)) = (1..).zip(jobs).find(|(_, job)| is_keyed_parent(job)) {
            let detail = format!("job {place} has a unique_key, and others wait for it");
            return Err(Problem::new(Kind::Forbidden, detail)
                .hint("With a token of some queues, give such a job an id and no unique_key."));
        }
        let parents = |job: &NewJob| -> Vec<Uuid> {
            let ids = job.parents.iter().map(|edge| match &edge.parent {
                Parent::Id(id) => Some(*id),
                Parent::Ref(_) => None,
            });
            ids.flatten().collect()
        };
        let named: Vec<Uuid> = jobs.iter().flat_map(parents).collect();
        if named.is_empty() {
            return Ok(());
        }
        // Those of this very call are in queues that were looked at above.
        let mut seen: HashSet<Uuid> = jobs.iter().filter_map(|job| job.id).collect();
        let found = engine.queues_of_jobs(&named).await?;
        seen.extend(found.into_iter().filter(|(_, queue)| scope.covers(queue)).map(|(id, _)| id));
        for (place, job) in (1..).zip(jobs) {
            if let Some(parent) = parents(job).into_iter().find(|id| !seen.contains(id)) {
                return Err(no_such_parent(place, parent));
            }
        }
        Ok(())
    }
}

/// As the database says it.
fn no_such_parent(place: usize, parent: Uuid) -> Problem {
    Problem::refused(Code::Invalid, format!("depends_on of job {place} names no job: {parent}"))
        .hint("Enqueue the parent first, or leave it out if it was pruned.")
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(Access::nothing))
    }
}
