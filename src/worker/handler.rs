//! Handlers by kind, and calling one.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use super::job::Job;
use super::outcome::Outcome;
use super::room::Place;

pub(super) type Answer = Result<Outcome, String>;
type Future = Pin<Box<dyn std::future::Future<Output = Answer> + Send>>;

/// What runs a kind of job.
#[derive(Clone)]
pub(super) enum Handler {
    Async(Arc<dyn Fn(Job) -> Future + Send + Sync>),
    Blocking(Arc<dyn Fn(Job) -> Answer + Send + Sync>),
}

/// One handler a kind.
pub(super) type Handlers = BTreeMap<String, Handler>;

impl Handler {
    pub(super) fn new<F, R, O, E>(handler: F) -> Self
    where
        F: Fn(Job) -> R + Send + Sync + 'static,
        R: std::future::Future<Output = Result<O, E>> + Send + 'static,
        O: Into<Outcome>,
        E: Display,
    {
        let handler = Arc::new(handler);
        Handler::Async(Arc::new(move |job| {
            let handler = handler.clone();
            // The call itself may panic too, before there is a future.
            Box::pin(async move { answer(handler(job).await) })
        }))
    }

    pub(super) fn blocking<F, O, E>(handler: F) -> Self
    where
        F: Fn(Job) -> Result<O, E> + Send + Sync + 'static,
        O: Into<Outcome>,
        E: Display,
    {
        Handler::Blocking(Arc::new(move |job| answer(handler(job))))
    }

    /// Runs it; a panic of an async one is the caller's to catch. It takes its place until it has
    /// really ended: a blocking one goes on when nobody waits for it any more.
    pub(super) async fn run(&self, job: Job, place: Arc<Place>) -> Answer {
        match self {
            Handler::Async(handler) => {
                let _place = place;
                handler(job).await
            }
            Handler::Blocking(handler) => {
                let handler = handler.clone();
                let running = tokio::task::spawn_blocking(move || {
                    let _place = place;
                    // Threads may be busy for longer than there was time.
                    if let Some(reason) = job.stop_reason() {
                        return Err(reason.as_str().to_owned());
                    }
                    catch_unwind(AssertUnwindSafe(|| handler(job)))
                        .unwrap_or_else(|panic| Err(panic_message(&*panic)))
                });
                running.await.unwrap_or_else(|error| Err(error.to_string()))
            }
        }
    }
}

fn answer<O: Into<Outcome>, E: Display>(result: Result<O, E>) -> Answer {
    // The alternate form of an error that has one is its whole chain.
    result.map(Into::into).map_err(|error| format!("{error:#}"))
}

pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("of no words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_keeps_its_message() {
        for panic in [catch_unwind(|| panic!("plain")), catch_unwind(|| panic!("number {}", 7))] {
            let message = panic_message(&*panic.unwrap_err());
            assert!(matches!(message.as_str(), "panic: plain" | "panic: number 7"), "{message}");
        }
    }
}
