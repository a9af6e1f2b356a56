//! Three times as many requests as the service can take: how much of its best it still does, and
//! how soon all is as before.
//!
//! One offer, without a gap: half of the capacity, three times as much, half again. Who asks has a
//! process and a core of its own; the service and Postgres share the other, for the capacity too.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Bench, Child, Cores, End, Offer, Offered, RUNS, Report, Rows, Sample, Service, Task, median,
    millis, percentile, rate, span,
};

pub(crate) const ROWS: &[&str] = &["overload_goodput", "overload_back_to_normal"];

/// How much more than the capacity is asked.
const TIMES: f64 = 3.0;

/// What is asked in good times, of the capacity.
const USUAL: f64 = 0.5;

/// A request that takes longer is none that a caller had use for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a request waits for a connection of its caller's.
const QUEUED: Duration = Duration::from_secs(1);

/// Twice as many as calls with a key may wait in the service, so that it has to refuse some.
const CONNECTIONS: usize = 2_000;

/// The capacity is looked for from so many a second, in steps of so much more, until so many steps
/// in a row have brought nothing that is worth a word.
const FIRST_PACE: f64 = 500.0;
const STEP: f64 = 1.15;
const GROWTH: f64 = 1.02;
const STEPS_IN_VAIN: usize = 3;

/// As normal: all well answered, and a p99 of no more than so many times the usual.
const NORMAL: f64 = 2.0;

/// Nor is it worse than normal up to here. The p99 of one second is its ten slowest requests or so,
/// which one late flush of the disk or one turn of a neighbour on the host can make.
const FLOOR_MS: f64 = 25.0;

const WINDOW: Duration = Duration::from_secs(1);

/// The first of a phase, which is not looked at: queues fill or empty, plans are made.
const SETTLING: Duration = Duration::from_secs(1);

/// Figures of one run, and what stands beside each.
struct Run {
    goodput: f64,
    back: f64,
    beside_goodput: Value,
    beside_back: Value,
}

pub(crate) async fn report(_: Rows) {
    let mut report = Report::rows("overload").await;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let run = run().await;
        for (row, beside) in ROWS.iter().zip([&run.beside_goodput, &run.beside_back]) {
            let line = json!({ "row": format!("{row}_run"), "run": beside });
            println!("{line}");
            report.line(&line);
        }
        runs.push(run);
    }
    report.median(ROWS[0], "ratio", runs.iter().map(|run| run.goodput).collect());
    report.median(ROWS[1], "s", runs.iter().map(|run| run.back).collect());
    report.end();
}

async fn run() -> Run {
    let bench = Bench::new(2).await;
    let cores = Cores::apart(&bench).await;
    let service = Service::start_on(&bench.url, cores.service).await;
    let asking = Asking { address: service.address.clone(), cores };
    let (best, steps) = search(&asking).await;
    let before = asking.capacity(best).await;

    let lengths = [span(10.0), span(30.0), span(45.0)];
    let paces = [USUAL, TIMES, USUAL].map(|times| before * times);
    let phases: Vec<_> = paces.into_iter().zip(lengths).collect();
    let offered = asking.offer(phases.clone()).await;
    let drop = lengths[0] + lengths[1];
    let usual = between(&offered.samples, SETTLING, lengths[0]);
    let over = between(&offered.samples, lengths[0], drop);
    let after = between(&offered.samples, drop, drop + lengths[2]);
    if !usual.iter().all(is_good) {
        println!("NOT ALL WELL in good times: {}", told(&usual));
    }

    // Jobs have piled up since, and neighbours of the machine come and go.
    let after_all = asking.capacity(best).await;
    let capacity = (before + after_all) / 2.0;
    // What is answered after the drop is none of what was done under the load.
    let done = |sample: &&Sample| is_good(sample) && sample.due + sample.took <= drop;
    let goodput = rate(over.iter().filter(done).count(), lengths[1]) / capacity;
    let beside_goodput = json!({
        "goodput": goodput, "capacity": [before, after_all], "best_step": best, "steps": steps,
        "offered": paces[1], "over": told(&over), "usual": told(&usual), "after": told(&after),
        "generator_cpu": offered.cpu_shares, "connections": CONNECTIONS,
        "queued_ms": millis(QUEUED), "on_own_core": cores.load.is_some(),
    });

    let usual_ms = p99(&usual);
    let most_ms = FLOOR_MS.max(NORMAL * usual_ms);
    let bad = bad_windows(&after, drop, lengths[2], most_ms);
    let back = back(&bad, lengths[2]);
    let beside_back = json!({
        "back": back, "usual_p99_ms": usual_ms, "floor_ms": FLOOR_MS, "most_ms": most_ms,
        "bad_windows": bad,
        "bad_windows_before": bad_windows(&usual, SETTLING, lengths[0] - SETTLING, most_ms),
        "jobs": bench.ready().await,
    });
    service.end().await;
    bench.verify().await;
    cores.together(&bench).await;
    bench.end().await;
    Run { goodput, back, beside_goodput, beside_back }
}

/// From the drop to the end of the last bad window; the whole span, said aloud, where that is bad.
fn back(bad: &[usize], length: Duration) -> f64 {
    let back = bad.last().map_or(0.0, |window| (window + 1) as f64 * WINDOW.as_secs_f64());
    if back >= length.as_secs_f64().floor() {
        println!("NOT BACK to normal within the {length:?} that were looked at");
    }
    back
}

/// Who asks whom.
struct Asking {
    address: String,
    cores: Cores,
}

impl Asking {
    /// Asks from a process of its own.
    async fn offer(&self, phases: Vec<(f64, Duration)>) -> Offered {
        let offer = Offer {
            address: self.address.clone(),
            connections: CONNECTIONS,
            queued: QUEUED,
            phases,
            tag: uuid::Uuid::new_v4().to_string(),
        };
        Child::start_on(&Task::Offer(offer), self.cores.load).end().await
    }

    /// What it can take where a little more is asked than the best step brought: that one was the
    /// luckiest of a dozen.
    async fn capacity(&self, best: f64) -> f64 {
        let mut brought = Vec::new();
        for _ in 0..3 {
            brought.push(sustained(&self.offer(vec![(best * STEP, step())]).await));
        }
        median(brought)
    }
}

/// How long a step takes.
fn step() -> Duration {
    SETTLING + span(5.0)
}

/// The most 201s a second of any pace, and what each pace brought.
async fn search(asking: &Asking) -> (f64, Vec<[f64; 2]>) {
    let (mut best, mut in_vain, mut steps) = (0.0, 0, Vec::new());
    let mut pace = FIRST_PACE;
    while in_vain < STEPS_IN_VAIN {
        let brought = sustained(&asking.offer(vec![(pace, step())]).await);
        steps.push([pace, brought]);
        in_vain = if brought > best * GROWTH { 0 } else { in_vain + 1 };
        best = brought.max(best);
        pace *= STEP;
    }
    (best, steps)
}

/// Good answers a second, by when they came, once the step has settled.
fn sustained(offered: &Offered) -> f64 {
    let came = |sample: &&Sample| (SETTLING..step()).contains(&(sample.due + sample.took));
    let good = offered.samples.iter().filter(|sample| is_good(sample)).filter(came);
    rate(good.count(), step() - SETTLING)
}

fn is_good(sample: &Sample) -> bool {
    sample.end == End::Answered(201) && sample.took <= PATIENCE
}

/// Those that were due then.
fn between(samples: &[Sample], from: Duration, to: Duration) -> Vec<Sample> {
    samples.iter().filter(|sample| (from..to).contains(&sample.due)).copied().collect()
}

fn p99(samples: &[Sample]) -> f64 {
    let good = samples.iter().filter(|sample| is_good(sample));
    percentile(good.map(|sample| millis(sample.took)).collect(), 0.99)
}

/// The windows, from 0, in which a request was not well answered or too many took long.
fn bad_windows(samples: &[Sample], start: Duration, length: Duration, most_ms: f64) -> Vec<usize> {
    let windows = (length.as_secs_f64() / WINDOW.as_secs_f64()) as u32;
    let is_bad = |window: &u32| {
        let from = start + WINDOW * *window;
        let within = between(samples, from, from + WINDOW);
        !within.iter().all(is_good) || p99(&within) > most_ms
    };
    (0..windows).filter(is_bad).map(|window| window as usize).collect()
}

/// How requests ended.
fn told(samples: &[Sample]) -> Value {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for sample in samples {
        let end = match sample.end {
            End::Answered(201) if sample.took > PATIENCE => "late".to_owned(),
            End::Answered(status) => status.to_string(),
            End::Unsent => "unsent".to_owned(),
            End::Broken => "broken".to_owned(),
        };
        *ends.entry(end).or_default() += 1;
    }
    let good = samples.iter().filter(|sample| is_good(sample));
    let took: Vec<f64> = good.map(|sample| millis(sample.took)).collect();
    let mut told = json!({ "due": samples.len(), "ends": ends });
    if !took.is_empty() {
        told["p50_ms"] = json!(percentile(took.clone(), 0.5));
        told["p99_ms"] = json!(percentile(took, 0.99));
    }
    told
}
