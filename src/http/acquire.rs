//! `POST /v1/acquire`: ready jobs for a worker, waiting for some if asked to.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::warn;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::app::App;
use super::auth::Access;
use super::body;
use super::interval::Interval;
use super::jobs::inputs::InputBody;
use super::openapi;
use super::problem::Problem;
use crate::engine::{AcquireCall, Engine};
use crate::model::{AcquiredJob, Execution, RawJson, Token};

/// Load balancers cut requests at a minute.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// The route.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(acquire))
}

/// What a worker asks for, and what it says of itself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AcquireRequest)]
struct AcquireBody {
    /// One incarnation of one process: a fresh UUID at every start, used for all of its calls.
    worker: Uuid,
    /// The queues to take from.
    #[schema(schema_with = openapi::queues)]
    queues: Vec<String>,
    /// How many jobs at most; 1 when left out.
    #[schema(minimum = 1, maximum = 1000)]
    max_jobs: Option<i32>,
    /// How long the worker may be silent before its jobs are taken back: 1 second to 24 hours.
    lease: Option<Interval>,
    /// The kinds that it can run; all when left out.
    #[schema(max_items = 1000)]
    kinds: Option<Vec<String>>,
    /// Its name, for people.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// How many jobs it runs at once.
    #[schema(minimum = 1)]
    capacity: Option<i32>,
    /// Whatever it says of itself.
    #[schema(value_type = Option<Value>)]
    metadata: Option<RawJson>,
    /// The worker's own number of this call, from 1; see the heartbeat's `seen_call`.
    call_number: Option<i64>,
    /// Bring what the parents of each job gave.
    #[serde(default)]
    inputs: bool,
    /// Wait so long for a job if there is none, in milliseconds; more than 30,000 is taken as that.
    wait_ms: Option<u64>,
}

/// What a worker was given.
#[derive(Serialize, ToSchema)]
struct AcquireAnswer {
    /// Most urgent first; empty when nothing came in time.
    jobs: Vec<AcquiredBody>,
}

/// A job with the right to finish its execution.
#[derive(Serialize, ToSchema)]
#[schema(as = AcquiredJob)]
struct AcquiredBody {
    job_id: Uuid,
    /// The number of this execution.
    attempt: i32,
    /// Wanted back by heartbeats and by whatever ends the execution.
    #[schema(value_type = Uuid)]
    token: Token,
    queue: String,
    kind: String,
    priority: i16,
    /// As they were enqueued, digit for digit.
    #[schema(value_type = Value)]
    args: RawJson,
    timeout: Option<Interval>,
    #[serde(with = "time::serde::rfc3339")]
    run_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// What the parents gave, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<Vec<InputBody>>,
}

/// Take ready jobs for a worker, most urgent first
///
/// A client that goes away while it waits gets nothing, and the jobs of an answer that could not
/// be given are released.
#[utoipa::path(
    post, operation_id = "acquire_jobs",
    path = "/v1/acquire", tag = "work", request_body = AcquireBody,
    responses(
        (status = 200, description = "The jobs, if any", body = AcquireAnswer),
        (status = "4XX", description = "RL413, RL422", body = Problem),
    )
)]
async fn acquire(
    State(app): State<App>,
    access: Access,
    body::Json(asked): body::Json<AcquireBody>,
) -> Result<Json<AcquireAnswer>, Problem> {
    for queue in &asked.queues {
        access.queue(queue)?;
    }
    access.worker(&app.engine, asked.worker).await?;
    let wait = Duration::from_millis(asked.wait_ms.unwrap_or(0)).min(MOST_WAIT);
    let (worker, with_inputs) = (asked.worker, asked.inputs);
    let call = asked.into_call(app.engine.settings().lease);
    let jobs = if wait.is_zero() {
        app.engine.acquire(call).await?
    } else {
        app.engine.acquire_wait(call, wait, app.shutdown.token()).await?
    };
    let mut jobs: Vec<AcquiredBody> = jobs.into_iter().map(AcquiredBody::from).collect();
    if with_inputs && !jobs.is_empty() {
        let executions = jobs.iter().map(AcquiredBody::execution).collect();
        let mut on_way = OnWay { engine: app.engine.clone(), worker, executions };
        // An answer without them would be taken for one of a job that has none.
        if let Err(error) = bring_inputs(&app, &mut jobs).await {
            app.engine.release(worker, std::mem::take(&mut on_way.executions)).await?;
            return Err(error);
        }
        on_way.executions.clear();
    }
    Ok(Json(AcquireAnswer { jobs }))
}

/// Executions that are still to be told to their worker: given back if it goes away before.
struct OnWay {
    engine: Engine,
    worker: Uuid,
    executions: Vec<Execution>,
}

impl Drop for OnWay {
    fn drop(&mut self) {
        if self.executions.is_empty() {
            return;
        }
        let (engine, worker) = (self.engine.clone(), self.worker);
        let executions = std::mem::take(&mut self.executions);
        tokio::spawn(async move {
            if let Err(error) = engine.release(worker, executions).await {
                warn!("jobs of a client that went away were not given back: {}", error.chain());
            }
        });
    }
}

async fn bring_inputs(app: &App, jobs: &mut [AcquiredBody]) -> Result<(), Problem> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.job_id).collect();
    let mut found = app.engine.inputs(&ids).await?.into_iter().peekable();
    for job in jobs {
        let mut own = Vec::new();
        while let Some((_, input)) = found.next_if(|(id, _)| *id == job.job_id) {
            own.push(InputBody::from(input));
        }
        job.inputs = Some(own);
    }
    Ok(())
}

impl AcquireBody {
    fn into_call(self, default_lease: Duration) -> AcquireCall {
        AcquireCall {
            worker: self.worker,
            queues: self.queues,
            max_jobs: self.max_jobs.unwrap_or(1),
            lease: self.lease.map_or(default_lease, |lease| lease.0),
            kinds: self.kinds,
            name: self.name,
            capacity: self.capacity,
            metadata: self.metadata,
            call_number: self.call_number,
        }
    }
}

impl AcquiredBody {
    fn execution(&self) -> Execution {
        Execution { job_id: self.job_id, attempt: self.attempt, token: self.token }
    }
}

impl From<AcquiredJob> for AcquiredBody {
    fn from(job: AcquiredJob) -> Self {
        AcquiredBody {
            job_id: job.execution.job_id,
            attempt: job.execution.attempt,
            token: job.execution.token,
            queue: job.queue,
            kind: job.kind,
            priority: job.priority,
            args: job.args,
            timeout: job.timeout.map(Interval),
            run_at: job.run_at,
            created_at: job.created_at,
            inputs: None,
        }
    }
}
