//! A producer that speaks to the service.

use serde_json::Value;
use uuid::Uuid;

use super::{Answer, is_final};
use crate::http::post;
use crate::plan::{Call, Manner};
use crate::run::Run;

/// Where it speaks to.
pub(super) struct Sender {
    run: Run,
}

impl Sender {
    pub(super) fn new(run: &Run) -> Self {
        Sender { run: run.clone() }
    }

    pub(super) async fn send(&self, call: &Call, life: u64) -> Answer {
        let jobs = call.body(&self.run, life);
        let is_graph = call.jobs.iter().any(|job| !job.parents.is_empty());
        let (path, body) = if is_graph {
            ("/v1/workflows", format!("{{\"jobs\":{jobs}}}"))
        } else {
            ("/v1/jobs", jobs)
        };
        let key = format!("chaos {} {} {life}", self.run.seed, call.number);
        let key = (call.manner == Manner::Keyed).then_some(("idempotency-key", key.as_str()));
        match post(&self.run.service, path, key.as_slice(), &body).await {
            Ok((200 | 201, answer)) => {
                Answer::Ack(ids(if is_graph { &answer["jobs"] } else { &answer }))
            }
            Ok((status, answer)) => {
                let code = answer["code"].as_str().unwrap_or("no code").to_owned();
                if is_final(&code) || status == 400 {
                    Answer::Refused(code)
                } else {
                    Answer::Unknown(format!("{status} {code}"))
                }
            }
            Err(error) => Answer::Unknown(error.to_string()),
        }
    }
}

fn ids(jobs: &Value) -> Vec<Uuid> {
    let jobs = jobs.as_array().into_iter().flatten();
    jobs.filter_map(|job| job["id"].as_str()?.parse().ok()).collect()
}
