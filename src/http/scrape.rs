//! What `/metrics` reads when it is asked: gauges of the pool, and figures of the queues.
//!
//! The queues' figures are text of our own and no gauges of the recorder, which would go on showing
//! a queue that is empty. They are kept for some seconds, so that many scrapes cost one read.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tracing::warn;

use crate::engine::{Engine, Error, Mode, QueueFigures, Stats};

const KEPT_FOR: Duration = Duration::from_secs(5);

/// More queues than this would make labels without bound: the rest stand together as `(other)`.
const MOST_QUEUES: usize = 200;

const OTHER: &str = "(other)";

/// The figures read last.
#[derive(Default)]
pub(super) struct Scrape {
    last: Mutex<Option<(Instant, String)>>,
}

impl Scrape {
    /// The queues' figures in the text format, at most some seconds old.
    pub(super) async fn of_queues(&self, engine: &Engine) -> String {
        let mut last = self.last.lock().await;
        if let Some((_, text)) = last.as_ref().filter(|(at, _)| at.elapsed() < KEPT_FOR) {
            return text.clone();
        }
        let text = match read(engine).await {
            Ok((queues, stats)) => write(&queues, &stats),
            Err(error) => {
                warn!("the queues' figures could not be read: {}", error.chain());
                gauge("rowlock_database_up", "1 while the database answers.", [(vec![], 0.0)])
            }
        };
        *last = Some((Instant::now(), text.clone()));
        text
    }
}

/// Sets the gauges of this process.
pub(super) fn set_gauges(engine: &Engine) {
    let pool = engine.pool_status();
    metrics::gauge!("rowlock_pool_connections").set(pool.connections);
    metrics::gauge!("rowlock_pool_idle_connections").set(pool.idle);
    for (verb, calls) in engine.calls_waiting() {
        metrics::gauge!("rowlock_calls_waiting", "verb" => verb).set(calls as f64);
    }
    let up = if engine.mode() == Mode::Listen { 1.0 } else { 0.0 };
    metrics::gauge!("rowlock_listener_up").set(up);
}

async fn read(engine: &Engine) -> Result<(Vec<QueueFigures>, Stats), Error> {
    Ok((engine.queues().await?, engine.stats().await?))
}

type Labels = Vec<(&'static str, String)>;

/// How many jobs, by queue, state and priority.
type Jobs = BTreeMap<(String, &'static str, i32), f64>;

fn write(queues: &[QueueFigures], stats: &Stats) -> String {
    let known = known(queues, stats);
    let label = |name: &str| if known.contains(name) { name.to_owned() } else { OTHER.to_owned() };
    let (mut jobs, mut paused) = (Jobs::new(), BTreeMap::new());
    for queue in queues {
        let name = label(&queue.name);
        *paused.entry(name.clone()).or_insert(0.0) += f64::from(queue.paused_at.is_some());
        for depth in &queue.depths {
            let key = (name.clone(), depth.state.as_str(), depth.priority);
            *jobs.entry(key).or_insert(0.0) += depth.jobs as f64;
        }
    }
    let by_queue = |(name, value): (String, f64)| (vec![("queue", name)], value);
    let mut text = gauge("rowlock_database_up", "1 while the database answers.", [(vec![], 1.0)]);
    text += &gauge(
        "rowlock_jobs",
        "Jobs that wait or run, by queue, state and priority.",
        jobs.into_iter().map(|((queue, state, priority), count)| {
            let priority = ("priority", priority.to_string());
            (vec![("queue", queue), ("state", state.to_owned()), priority], count)
        }),
    );
    text += &write_waits(stats, &label);
    text += &gauge(
        "rowlock_queue_paused",
        "1 while a queue is paused.",
        paused.into_iter().map(by_queue),
    );
    text + &write_stats(stats, &label)
}

fn write_waits(stats: &Stats, label: &dyn Fn(&str) -> String) -> String {
    let mut longest: BTreeMap<(String, i32), f64> = BTreeMap::new();
    for figures in &stats.waits {
        let wait = longest.entry((label(&figures.queue), figures.priority)).or_insert(0.0);
        *wait = wait.max(figures.seconds);
    }
    gauge(
        "rowlock_longest_wait_seconds",
        "How long the first ready job of a queue and priority has waited, paused or not.",
        longest.into_iter().map(|((queue, priority), seconds)| {
            (vec![("queue", queue), ("priority", priority.to_string())], seconds)
        }),
    )
}

fn write_stats(stats: &Stats, label: &dyn Fn(&str) -> String) -> String {
    let mut latencies = Vec::new();
    // Quantiles do not add up, so queues without a label of their own have none; all together do.
    for figures in &stats.latencies {
        let queue = figures.queue.as_deref().map_or_else(|| "(all)".to_owned(), label);
        let values = [("0.95", figures.p95_seconds), ("0.99", figures.p99_seconds)];
        for (quantile, seconds) in values.into_iter().filter(|_| queue != OTHER) {
            let labels = vec![("queue", queue.clone()), ("quantile", quantile.to_owned())];
            latencies.extend(seconds.map(|seconds| (labels, seconds)));
        }
    }
    let mut outcomes: BTreeMap<(String, String), f64> = BTreeMap::new();
    for figures in &stats.outcomes {
        let key = (label(&figures.queue), figures.outcome.clone());
        *outcomes.entry(key).or_insert(0.0) += figures.executions as f64;
    }
    let text = gauge(
        "rowlock_acquire_latency_seconds",
        "From ready to acquired over the last hour, sampled.",
        latencies,
    );
    text + &gauge(
        "rowlock_recent_executions",
        "Executions that ended in the last hour, sampled, by queue and outcome.",
        outcomes
            .into_iter()
            .map(|((queue, outcome), count)| (vec![("queue", queue), ("outcome", outcome)], count)),
    )
}

/// The queues with labels of their own: those with the most jobs, then those that are empty now and
/// have figures of the last hour.
fn known<'a>(queues: &'a [QueueFigures], stats: &'a Stats) -> HashSet<&'a str> {
    let jobs = |queue: &QueueFigures| queue.depths.iter().map(|depth| depth.jobs).sum::<i64>();
    let mut ranked: Vec<&QueueFigures> = queues.iter().collect();
    ranked.sort_by_key(|queue| std::cmp::Reverse(jobs(queue)));
    let mut known = HashSet::new();
    let names = ranked.into_iter().map(|queue| queue.name.as_str());
    let names = names.chain(stats.outcomes.iter().map(|figures| figures.queue.as_str()));
    let names = names.chain(stats.latencies.iter().filter_map(|figures| figures.queue.as_deref()));
    for name in names {
        if known.len() < MOST_QUEUES {
            known.insert(name);
        }
    }
    known
}

/// One gauge in the text format; nothing where it has no value.
fn gauge(name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) -> String {
    let mut text = String::new();
    for (labels, value) in values {
        if text.is_empty() {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        }
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let _ = match labels.is_empty() {
            true => writeln!(text, "{name} {value}"),
            false => writeln!(text, "{name}{{{}}} {value}", labels.join(",")),
        };
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Depth, LatencyFigures, OutcomeFigures, WaitFigures};
    use crate::model::JobState;

    fn queue(name: &str, jobs: i64) -> QueueFigures {
        let state = JobState::Ready;
        let depth = Depth { state, priority: 5, jobs, oldest_seconds: Some(2.5) };
        QueueFigures {
            name: name.to_owned(),
            paused_at: None,
            aging_interval: None,
            aging_share: 0.25,
            depths: vec![depth],
        }
    }

    #[test]
    fn figures_become_gauges() {
        let wait = |queue: &str, priority, seconds| WaitFigures {
            queue: queue.to_owned(),
            priority,
            seconds,
            paused: false,
        };
        let stats = Stats {
            waits: vec![wait("etl/a", 0, 0.5), wait("etl/a", 9, 2.5), wait("x", 9, 4.0)],
            ..Stats::default()
        };
        let text = write(&[queue("etl/a", 3)], &stats);
        let line = "rowlock_jobs{queue=\"etl/a\",state=\"ready\",priority=\"5\"} 3\n";
        assert!(text.contains(line), "{text}");
        for line in [
            "rowlock_longest_wait_seconds{queue=\"etl/a\",priority=\"0\"} 0.5\n",
            "rowlock_longest_wait_seconds{queue=\"etl/a\",priority=\"9\"} 2.5\n",
            "rowlock_longest_wait_seconds{queue=\"(other)\",priority=\"9\"} 4\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("rowlock_recent_executions"), "{text}");
    }

    #[test]
    fn a_drained_queue_keeps_its_name() {
        let outcomes = vec![OutcomeFigures {
            queue: "drained".to_owned(),
            outcome: "completed".to_owned(),
            executions: 7,
            share: 1.0,
            average_seconds: Some(0.1),
        }];
        let latencies = vec![LatencyFigures {
            queue: Some("begun".to_owned()),
            executions: 7,
            average_seconds: Some(0.1),
            p95_seconds: Some(0.25),
            p99_seconds: None,
        }];
        let text = write(&[], &Stats { latencies, outcomes, ..Stats::default() });
        let line = "rowlock_recent_executions{queue=\"drained\",outcome=\"completed\"} 7\n";
        assert!(text.contains(line), "{text}");
        let line = "rowlock_acquire_latency_seconds{queue=\"begun\",quantile=\"0.95\"} 0.25\n";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains(OTHER), "{text}");
    }

    #[test]
    fn the_number_of_labels_is_bounded() {
        let queues: Vec<_> =
            (0..300).map(|number| queue(&format!("q{number}"), number + 1)).collect();
        let text = write(&queues, &Stats::default());
        let lines = text.lines().filter(|line| line.starts_with("rowlock_jobs{")).count();
        assert_eq!(lines, MOST_QUEUES + 1);
        let others =
            format!("queue=\"(other)\",state=\"ready\",priority=\"5\"}} {}\n", 100 * 101 / 2);
        assert!(text.contains(&others), "{text}");
    }
}
