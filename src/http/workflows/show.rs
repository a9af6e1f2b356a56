//! `GET /v1/workflows/{id}`: where it stands, and its graph for drawing.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::list::SummaryBody;
use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body::Path;
use crate::http::openapi;
use crate::http::problem::{Problem, no_such_workflow};
use crate::model::{Graph, GraphEdge, GraphNode, JobState};

/// Up to so many jobs have a node each.
const SINGLE: usize = 100;

/// A workflow with its graph. Up to 100 jobs have a node each; of more, those that are alike share
/// one: same kind, queue and state, between nodes that are alike.
#[derive(Serialize, ToSchema)]
#[schema(as = Workflow)]
pub(super) struct WorkflowBody {
    #[serde(flatten)]
    summary: SummaryBody,
    /// By layer; 500 at most.
    nodes: Vec<NodeBody>,
    /// 2,000 at most; to jobs outside the workflow there are none.
    edges: Vec<EdgeBody>,
    /// Jobs of nodes beyond those.
    jobs_left_out: usize,
    /// Edges beyond those.
    edges_left_out: usize,
}

/// A job, or several that are alike.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkflowNode)]
struct NodeBody {
    /// The job, or the one with the lowest id.
    id: Uuid,
    /// How many jobs it stands for.
    jobs: usize,
    /// How far below the first ones it stands, which have 0; a very deep graph has several steps in
    /// a layer.
    layer: usize,
    kind: String,
    queue: String,
    #[schema(schema_with = openapi::job_state)]
    state: JobState,
    /// Blocked until a person acts.
    held: bool,
}

/// The dependencies between the jobs of two nodes.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkflowEdge)]
struct EdgeBody {
    parent: Uuid,
    child: Uuid,
    /// How many dependencies it stands for.
    jobs: usize,
}

/// Show a workflow with its graph
#[utoipa::path(
    get, operation_id = "show_workflow",
    path = "/v1/workflows/{id}", tag = "workflows",
    params(("id" = Uuid, Path, description = "The workflow")),
    responses(
        (status = 200, description = "The workflow", body = WorkflowBody),
        (status = 404, description = "RL404", body = Problem),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    access: Access,
    Path(id): Path<Uuid>,
) -> Result<Json<WorkflowBody>, Problem> {
    access.workflow(&app.engine, id).await?;
    let summary = app.engine.workflow(id).await?.ok_or_else(|| no_such_workflow(id))?;
    let graph = Graph::of(&app.engine.workflow_jobs(id).await?, SINGLE);
    Ok(Json(WorkflowBody {
        summary: summary.into(),
        nodes: graph.nodes.into_iter().map(NodeBody::from).collect(),
        edges: graph.edges.into_iter().map(EdgeBody::from).collect(),
        jobs_left_out: graph.jobs_left_out,
        edges_left_out: graph.edges_left_out,
    }))
}

impl From<GraphNode> for NodeBody {
    fn from(node: GraphNode) -> Self {
        NodeBody {
            id: node.id,
            jobs: node.jobs,
            layer: node.layer,
            kind: node.kind,
            queue: node.queue,
            state: node.state,
            held: node.is_held,
        }
    }
}

impl From<GraphEdge> for EdgeBody {
    fn from(edge: GraphEdge) -> Self {
        EdgeBody { parent: edge.parent, child: edge.child, jobs: edge.jobs }
    }
}
