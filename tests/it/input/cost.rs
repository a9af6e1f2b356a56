//! What a refusal, or an acceptance, costs the database at most: the processor time of the backend,
//! so that neighbours on the machine do not count.

use std::time::Duration;

use tokio_postgres::Client;

use crate::harness::Db;
use crate::harness::sql::pid;

/// For each 256 KiB of input, or part of it, on a machine half as fast as the one where 50 ms were
/// seen to be enough. The parser of Postgres alone takes up to a quarter of that.
const MOST: Duration = Duration::from_millis(100);
const PART: usize = 256 << 10;
/// The least of so many runs.
const RUNS: usize = 5;

/// How long a process has been on a processor; the first number of its schedstat.
fn on_processor(pid: i32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs here");
    let nanos = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    Duration::from_nanos(nanos)
}

/// The least that a statement with this text costs, undone each time.
async fn cost(client: &Client, backend: i32, sql: &str, text: &str) -> Duration {
    let statement = client.prepare(sql).await.expect("it is SQL");
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        client.batch_execute("begin").await.expect("begins");
        let before = on_processor(backend);
        // Refused or not, it is the time that counts.
        let _ = client.query(&statement, &[&text]).await;
        // An answer in between, so that the backend has gone to rest.
        let after = on_processor(backend);
        client.batch_execute("rollback").await.expect("ends");
        least = least.min(after - before);
    }
    least
}

/// Args that are slow for their length, or were.
fn slow_args() -> Vec<(&'static str, String)> {
    let list = |item: &str, times: usize| format!("[{}0]", format!("{item},").repeat(times));
    let nest = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let keys: String = (0..20_000).map(|key| format!("\"{key:x}\":1,")).collect();
    vec![
        ("a long string", format!("\"{}\"", "x".repeat(262_000))),
        ("escapes", format!("\"{}\"", "\\u0001".repeat(43_000))),
        ("digits", "9".repeat(130_000)),
        ("more digits", "9".repeat(250_000)),
        ("a thousand digits each", list(&"9".repeat(999), 260)),
        ("deep", nest(3_000)),
        ("deeper", nest(20_000)),
        ("never closed", "[".repeat(250_000)),
        ("deep and wide", list(&nest(60), 2_100)),
        ("empty lists", list("[]", 60_000)),
        ("empty objects", list("{}", 60_000)),
        ("strings", list("\"\"", 80_000)),
        ("keys", format!("{{{keys}\"z\":1}}")),
        ("one key many times", format!("{{{}\"a\":1}}", "\"a\":1,".repeat(40_000))),
        ("bombs", list("1e131071", 28_000)),
        ("small bombs", list("1e999", 43_000)),
        ("bombs of places", list("0e-16383", 28_000)),
        ("small bombs of places", list("1e-999", 36_000)),
        ("too many numbers", list("1", 131_000)),
        ("many numbers", list("1", 80_000)),
        ("many zeros", list("0", 80_000)),
        ("no JSON", format!("{{\"a\": {}", "x".repeat(250_000))),
    ]
}

#[tokio::test]
async fn no_input_costs_more_than_its_length_allows() {
    let db = Db::new().await;
    let client = db.connect().await;
    let backend = pid(&client).await;
    let mut faults = Vec::new();
    let mut judge = |name: &str, sql: &str, cost: Duration, length: usize| {
        let parts = u32::try_from(length.div_ceil(PART)).expect("few");
        println!(
            "{:6.1} ms of {:4}  {name}: {sql}",
            cost.as_secs_f64() * 1e3,
            (MOST * parts).as_millis()
        );
        if MOST * parts < cost {
            faults.push(format!("{name}: {sql:.40}: {cost:?} for {length} bytes"));
        }
    };
    for (name, args) in slow_args() {
        let one = "select enqueue('k', $1::text::jsonb)";
        judge(name, one, cost(&client, backend, one, &args).await, args.len());
        let many = "select enqueue_many($1::text::jsonb)";
        let job = format!("[{{\"kind\":\"k\",\"args\":{args}}}]");
        judge(name, many, cost(&client, backend, many, &job).await, job.len());
    }
    let calls = [
        ("many tiny jobs", format!("[{}{{}}]", "{\"kind\":\"k\"},".repeat(9_999))),
        ("too many jobs", format!("[{}{{}}]", "{},".repeat(80_000))),
        ("many wrong jobs", format!("[{}{{}}]", "{\"kind\":\"\"},".repeat(9_999))),
        ("many wrong types", format!("[{}1]", "1,".repeat(9_999))),
        ("a long name", format!("[{{\"kind\":\"{}\"}}]", "k".repeat(250_000))),
        ("a long key", format!("[{{\"{}\":1}}]", "k".repeat(250_000))),
        (
            "many edges",
            format!("[{{\"kind\":\"k\",\"depends_on\":[{}\"a\"]}}]", "\"a\",".repeat(50_000)),
        ),
    ];
    for (name, jobs) in calls {
        let many = "select enqueue_many($1::text::jsonb)";
        let least = cost(&client, backend, many, &jobs).await;
        judge(name, many, least, jobs.len());
    }
    assert!(faults.is_empty(), "{faults:#?}");
    db.finish().await;
}
