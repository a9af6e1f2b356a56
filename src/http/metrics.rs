//! The process's recorder, with its buckets and descriptions.
//!
//! One a process, since the `metrics` macros of every floor write to it. Names end in their unit;
//! labels take words from lists of ours and route templates, never what a client can make up.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::warn;

use crate::shutdown::Shutdown;

/// Without buckets the exporter would give summaries, which cannot be added up over machines.
const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Calls that share a statement.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// Samples are kept until they are put into buckets: at a scrape, else this often.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's recorder, installed at first use.
pub(super) fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let batches = Matcher::Full("rowlock_batch_calls".to_owned());
        let builder = PrometheusBuilder::new().set_buckets(BUCKETS).expect("there are buckets");
        let builder = builder.set_buckets_for_metric(batches, BATCH_BUCKETS).expect("so are these");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            warn!("the program has a metrics recorder of its own; /metrics stays without times");
        }
        describe();
        handle
    })
}

/// Keeps the recorder small until a stop is asked for.
pub(super) fn keep_up(shutdown: &Shutdown) {
    let (handle, stop) = (recorder(), shutdown.clone());
    shutdown.spawn(async move {
        while tokio::time::timeout(UPKEEP, stop.stopping()).await.is_err() {
            handle.run_upkeep();
        }
    });
}

fn describe() {
    let seconds = Unit::Seconds;
    describe_histogram!(
        "rowlock_http_request_seconds",
        seconds,
        "Time to answer a request, long polls included."
    );
    describe_histogram!(
        "rowlock_enqueue_seconds",
        seconds,
        "Time of one enqueue, commit included."
    );
    describe_histogram!(
        "rowlock_acquire_seconds",
        seconds,
        "Time of one acquire, waiting left out."
    );
    describe_histogram!("rowlock_finish_seconds", seconds, "Time of one finishing call, by verb.");
    describe_histogram!("rowlock_batch_calls", "Calls that shared one statement, by verb.");
    describe_gauge!(
        "rowlock_calls_waiting",
        "Calls that wait for a statement or are under way, by verb."
    );
    describe_counter!(
        "rowlock_calls_overloaded_total",
        "Calls refused because too many waited, by verb."
    );
    describe_counter!("rowlock_jobs_enqueued_total", "Jobs created by this process.");
    describe_counter!("rowlock_jobs_acquired_total", "Executions begun by this process.");
    describe_counter!(
        "rowlock_jobs_finished_total",
        "Executions finished here, by verb and verdict."
    );
    describe_counter!(
        "rowlock_maintenance_runs_total",
        "Runs of maintenance, by duty and outcome."
    );
    describe_counter!("rowlock_maintenance_rows_total", "Rows settled by maintenance, by duty.");
    describe_counter!("rowlock_wakeups_total", "Notifications that reached this process.");
    describe_gauge!(
        "rowlock_invariant_violations",
        "Violations found by the last check here, by invariant; always 0 where all is well."
    );
    describe_gauge!("rowlock_pool_connections", "Connections of the pool.");
    describe_gauge!("rowlock_pool_idle_connections", "Connections of the pool that nobody uses.");
    describe_gauge!("rowlock_listener_up", "1 while LISTEN delivers wake-ups, 0 while polling.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_into_buckets() {
        recorder();
        metrics::histogram!("rowlock_acquire_seconds").record(0.003);
        metrics::counter!("rowlock_jobs_acquired_total").increment(2);
        let text = recorder().render();
        assert!(text.contains("# TYPE rowlock_acquire_seconds histogram"), "{text}");
        assert!(text.contains("rowlock_acquire_seconds_bucket{le=\"0.005\"}"), "{text}");
        assert!(text.contains("# HELP rowlock_jobs_acquired_total"), "{text}");
        metrics::histogram!("rowlock_batch_calls", "verb" => "enqueue").record(30.0);
        let line = "rowlock_batch_calls_bucket{verb=\"enqueue\",le=\"50\"} 1";
        assert!(recorder().render().contains(line), "{text}");
    }
}
