//! The alert rules, held against what a running service exports; and the invariants it checks.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_postgres::Client;

use crate::harness::{Db, Service, rowlock, wait_until};

const SOON: Duration = Duration::from_secs(60);

const RULES: &str = include_str!("../../docs/alerts.yml");

/// Alert and expression of every rule; folded expressions on one line.
fn rules(text: &str) -> Vec<(String, String)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut rules: Vec<(String, String)> = Vec::new();
    let mut folded = None;
    for line in text.lines() {
        if let Some(name) = line.trim_start().strip_prefix("- alert: ") {
            rules.push((name.trim().to_owned(), String::new()));
        } else if let Some(first) = line.trim_start().strip_prefix("expr: ") {
            folded = (first == ">").then(|| indent(line));
            let rule = rules.last_mut().expect("an expression belongs to an alert");
            rule.1.push_str(if first == ">" { "" } else { first });
        } else if folded.is_some_and(|outer| outer < indent(line)) {
            rules.last_mut().expect("as above").1.push_str(&format!("{} ", line.trim()));
        } else {
            folded = None;
        }
    }
    rules
}

/// A metric as an expression names it: its name, and the values that each label may have.
#[derive(Debug, PartialEq)]
struct Named {
    metric: String,
    labels: Vec<(String, Vec<String>)>,
}

fn named(expression: &str) -> Vec<Named> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let read = |(start, _): (usize, &str)| {
        let rest = &expression[start..];
        let (metric, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
        let matchers = inside.unwrap_or("").split(',').filter(|text| !text.is_empty());
        let label = |text: &str| {
            let (label, value) = text.split_once('=').expect("a matcher");
            let value = value.trim_start_matches('~').trim_matches('"');
            (label.to_owned(), value.split('|').map(str::to_owned).collect())
        };
        Named { metric: metric.to_owned(), labels: matchers.map(label).collect() }
    };
    expression.match_indices("rowlock_").map(read).collect()
}

/// The labels by which an expression groups, without the one that Prometheus adds.
fn grouped_by(expression: &str) -> Vec<&str> {
    let lists = expression.split("by (").skip(1).map(|rest| rest.split(')').next().unwrap_or(""));
    lists.flat_map(|list| list.split(", ")).filter(|label| *label != "instance").collect()
}

/// What of an expression no line of the metrics has.
fn missing(expression: &str, metrics: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for Named { metric, labels } in named(expression) {
        let lines: Vec<&str> = metrics
            .lines()
            .filter_map(|line| line.strip_prefix(metric.as_str()))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .collect();
        let has = |text: &str| lines.iter().any(|line| line.contains(text));
        if lines.is_empty() {
            missing.push(metric.clone());
        }
        for (label, values) in labels {
            let unseen = values.iter().map(|value| format!("{label}=\"{value}\""));
            missing.extend(unseen.filter(|text| !has(text)).map(|text| format!("{metric} {text}")));
        }
        let groups = grouped_by(expression).into_iter().map(|label| format!("{label}=\""));
        missing.extend(groups.filter(|text| !has(text)).map(|text| format!("{metric} {text}")));
    }
    missing
}

#[test]
fn what_is_not_exported_is_noticed() {
    let expression = r#"sum by (queue) (rowlock_a{x="1",y=~"b|c"}) / rowlock_b > 0"#;
    assert_eq!(named(expression)[0].labels[1].1, ["b", "c"]);
    let all =
        "rowlock_a{queue=\"q\",x=\"1\",y=\"b\"} 1\nrowlock_a{y=\"c\"} 0\nrowlock_b{queue=\"\"} 1";
    assert_eq!(missing(expression, all), Vec::<String>::new());
    let less = "rowlock_a{queue=\"q\",x=\"2\",y=\"b\"} 1\nrowlock_bc 1";
    let unseen = ["rowlock_a x=\"1\"", "rowlock_a y=\"c\"", "rowlock_b", "rowlock_b queue=\""];
    assert_eq!(missing(expression, less), unseen);
}

#[test]
fn the_four_alarms_of_the_old_report_are_there() {
    let rules = rules(RULES);
    for (alert, parts) in [
        ("RowlockAcquisitionSlow", ["acquire_latency_seconds{quantile=\"0.95\"}", "> 1"]),
        ("RowlockIntegrityViolated", ["rowlock_invariant_violations", "> 0"]),
        ("RowlockFailuresHigh", ["outcome=~\"failed|lost|timed_out\"", "> 0.05"]),
        ("RowlockQueueDeep", ["rowlock_jobs{state=\"ready\"}", "> 10000"]),
    ] {
        let rule = rules.iter().find(|(name, _)| name == alert);
        let (_, expression) = rule.unwrap_or_else(|| panic!("{alert} is not in {rules:?}"));
        assert!(expression.contains(parts[0]), "{expression}");
        assert!(expression.trim_end().ends_with(parts[1]), "{expression}");
    }
}

/// Executions that end in every way that a rule names, and a job that waits.
async fn work(client: &Client) {
    let steps = "
        select enqueue('test', queue => 'q', timeout => '1 minute') from generate_series(1, 5);
        select from acquire('00000000-0000-7000-8000-000000000001', array['q'], 3);
        select complete(e.worker, array[e.job_id], array[e.attempt], array[e.token])
        from (select * from executions order by job_id limit 1) e;
        select fail(e.worker, array[e.job_id], array[e.attempt], array[e.token])
        from (select * from executions where finished_at is null order by job_id limit 1) e;
        update executions set started_at = started_at - interval '2 minutes'
        where finished_at is null;
        update grants set expires_at = expires_at - interval '2 minutes';
        select from acquire('00000000-0000-7000-8000-000000000002', array['q'], 1, '1 second');";
    // A statement each: the later ones have to see what the earlier ones did.
    for step in steps.split(';').filter(|step| !step.trim().is_empty()) {
        client.batch_execute(step).await.expect("works");
    }
}

#[tokio::test]
async fn every_metric_that_a_rule_names_is_exported() {
    let db = Db::new().await;
    let url = db.url();
    let service = Service::start(&[
        "--database-url",
        &url,
        "--maintenance-interval",
        "100ms",
        "--verify-interval",
        "100ms",
    ])
    .await;
    work(&db.connect().await).await;
    let rules = rules(RULES);
    assert!(6 <= rules.len(), "{rules:?}");
    let unseen = async || {
        let (status, metrics) = service.request("GET", "/metrics", "").await;
        assert_eq!(status, 200, "{metrics}");
        let missing = |(_, expression): &(String, String)| missing(expression, &metrics);
        let found = rules.iter().flat_map(missing).collect::<Vec<_>>();
        assert!(rules.iter().all(|(_, expression)| expression.contains("rowlock_")), "{rules:?}");
        found
    };
    // The figures of the queues are some seconds old.
    wait_until("all that the rules name is exported", SOON, || async {
        let unseen = unseen().await;
        if !unseen.is_empty() {
            eprintln!("not exported yet: {unseen:?}");
        }
        unseen.is_empty()
    })
    .await;
    service.signal(Signal::SIGTERM);
    assert!(service.ended().await.0.success());
    db.finish().await;
}

#[tokio::test]
async fn a_violation_is_measured_logged_once_and_shown() {
    const BROKEN: &str = "failures never exceed attempts";
    let db = Db::new().await;
    let url = db.url();
    let client = db.connect().await;
    let id: uuid::Uuid =
        client.query_one("select enqueue('test')", &[]).await.expect("enqueues").get(0);
    let arguments = ["--database-url", url.as_str(), "--verify-interval", "100ms"];
    let service = Service::start(&arguments).await;
    let gauge = async |value: u8| {
        let line = format!("rowlock_invariant_violations{{invariant=\"{BROKEN}\"}} {value}");
        wait_until(&line, SOON, || async {
            let (_, metrics) = service.request("GET", "/metrics", "").await;
            metrics.lines().any(|found| found == line)
        })
        .await;
    };
    let verify = async |arguments: &[&str]| {
        let mut command = rowlock(&["verify", "--database-url", &url]);
        let output = command.args(arguments).output().await.expect("runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    gauge(0).await;
    client.batch_execute("update jobs set failures = attempt + 1").await.expect("breaks");
    gauge(1).await;
    let (code, table) = verify(&[]).await;
    assert_eq!(code, Some(1), "{table}");
    let row = table.lines().find(|line| line.contains(BROKEN)).expect("a row");
    assert!(row.contains(&id.to_string()), "{row}");
    let (code, lines) = verify(&["--json"]).await;
    assert_eq!(code, Some(1), "{lines}");
    let findings: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let broken: Vec<_> = findings.iter().filter(|finding| finding["violations"] != 0).collect();
    assert_eq!(broken.len(), 1, "{lines}");
    assert_eq!(broken[0]["sample"], id.to_string(), "{lines}");
    client.batch_execute("update jobs set failures = 0").await.expect("repairs");
    gauge(0).await;
    assert_eq!(verify(&[]).await.0, Some(0));
    service.signal(Signal::SIGTERM);
    let (status, log) = service.ended().await;
    assert!(status.success(), "{log}");
    let told = log.lines().filter(|line| line.contains("ERROR") && line.contains(BROKEN));
    assert_eq!(told.count(), 1, "{log}");
    db.finish().await;
}
