//! The HTTP load: `wrk`, which needs less of the machine than any client of ours would.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::support::{Bench, Service, folder};

/// Posts one job a request, and tells what came of it on one line.
const SCRIPT: &str = r#"
wrk.method = "POST"
wrk.path = "/v1/jobs"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"kind":"noop","queue":"bench"}'
function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("RESULT %d %d %d %f %f\n", summary.requests, summary.duration,
        e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50), latency:percentile(99)))
end
"#;

/// What one run of it saw.
pub(crate) struct Load {
    /// Jobs a second.
    pub(crate) rate: f64,
    /// The time of half of the calls.
    pub(crate) p50_ms: f64,
    /// The time that one in a hundred exceeds.
    pub(crate) p99_ms: f64,
}

/// Enqueues over so many connections for a while, on a service and database of its own. Fails
/// unless there is a job for every answer.
pub(crate) async fn enqueue(connections: usize, window: Duration) -> Load {
    let bench = Bench::new(2).await;
    let service = Service::start(&bench.url).await;
    let script = folder().join("enqueue.lua");
    fs::write(&script, SCRIPT).expect("the script can be written");
    let output = Command::new("wrk")
        .args(["-t1", "--timeout", "10s", "-c", &connections.to_string()])
        .args(["-d", &format!("{}s", window.as_secs().max(1))])
        .arg("-s")
        .arg(&script)
        .arg(format!("http://{}", service.address))
        .stderr(Stdio::inherit())
        .output()
        .await
        .expect("this row needs wrk: apt-get install wrk");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let line = line.unwrap_or_else(|| panic!("wrk said {text}"));
    let numbers: Vec<f64> = line.split(' ').map(|n| n.parse().expect("a number")).collect();
    let [answers, micros, errors, p50, p99] = numbers[..] else { panic!("wrk said {line}") };
    assert_eq!(errors, 0.0, "calls that failed");
    service.end().await;
    let jobs = bench.ready().await as f64;
    // What was under way when the clock stopped is stored too, and was answered to nobody.
    let most = answers + connections as f64;
    assert!((answers..=most).contains(&jobs), "{answers} answers and {jobs} jobs");
    bench.verify().await;
    bench.end().await;
    Load { rate: answers / micros * 1e6, p50_ms: p50 / 1e3, p99_ms: p99 / 1e3 }
}
