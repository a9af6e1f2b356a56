//! The HTTP API: JSON over the verbs of the engine, under `/v1`.
//!
//! [`router`] puts it together; each resource is a file with its handlers and, beside them, the
//! types that travel. `body` reads requests, `bodies`
//! bounds what they bring, `problem` words what is not a success, `auth` asks for
//! a token and says whose things are whose, `observe` leaves a span and a time of each request.
//!
//! # Invariants
//!
//! 1. Keys are the argument names of the SQL functions; args and results are never parsed.
//! 2. Whatever is wrong with a request is an RFC 9457 problem with a stable code.
//! 3. A 5xx says nothing of what is inside; the log does.
//! 4. No label and no log field holds what a client can make up without bound.
//!
//! # Not here
//!
//! Sockets, time-outs of headers and connections: `server`. Limits on names and batches: the
//! database answers with `RL413` and `RL422`.

mod acquire;
mod app;
mod auth;
mod bodies;
mod body;
mod cursor;
mod executions;
mod idempotency;
mod interval;
mod jobs;
mod metrics;
mod observe;
mod openapi;
mod problem;
mod queues;
mod router;
mod scrape;
mod service;
mod stats;
mod strict;
mod workers;
mod workflows;

pub use router::{description, router};
