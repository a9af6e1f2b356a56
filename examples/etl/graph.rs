//! The jobs and their edges.

use rowlock::NewJob;
use rowlock::model::{OnParentFailure, WaitFor};

use crate::QUEUE;

/// Reads one source, and tries once: to have something to watch.
fn extract(source: &str) -> Result<NewJob, serde_json::Error> {
    Ok(NewJob::new("extract", source)?.queue(QUEUE).reference(source).max_attempts(1))
}

fn job(kind: &str) -> Result<NewJob, serde_json::Error> {
    Ok(NewJob::new(kind, &())?.queue(QUEUE).reference(kind).max_attempts(3))
}

/// All of them, the report last.
pub(crate) fn jobs() -> Result<Vec<NewJob>, serde_json::Error> {
    let orders = job("first")?
        .reference("orders")
        .depends_on("orders-east")
        .depends_on("orders-west")
        .wait_for(WaitFor::Any);
    let transform = job("transform")?
        .depends_on("orders")
        .depends_on("customers")
        .depends_on_with("rates", OnParentFailure::Continue);
    Ok(vec![
        extract("orders-east")?,
        extract("orders-west")?,
        extract("customers")?,
        extract("rates")?,
        orders,
        transform,
        job("load")?.depends_on("transform"),
        job("report")?.depends_on("load"),
    ])
}
