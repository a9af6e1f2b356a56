//! The two charts of docs/PERFORMANCE.md, drawn from the lines of `depth` and `pinned`:
//! `make bench ROW=chart`, once these have run.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Plot, Rows, Series, folder};

/// Names of the series of `pinned`, as the chart calls them.
const PINS: [(&str, &str); 3] = [
    ("plain", "nothing pinned"),
    ("snapshot", "a snapshot held"),
    ("writer", "a writer open in another database"),
];

pub(crate) async fn report(_: Rows) {
    // The deepest run has all the points of the other.
    let (depth, deepest) = (lines("depth"), lines("depth_10m"));
    let depth = if deepest.is_empty() { depth } else { deepest };
    let at = |line: &Value| point(line, "waiting");
    draw(
        "performance-depth",
        &depth,
        Plot {
            title: "Drain rate against the number of waiting jobs",
            x_label: "waiting jobs when the drain of 100,000 begins (ten priorities, aging on)",
            logarithmic: true,
            series: vec![Series {
                name: "one worker process",
                points: rows(&depth, "drain_at_depth").map(at).collect(),
            }],
        },
    );
    let pinned = lines("pinned");
    let series = |(key, name)| Series {
        name,
        points: rows(&pinned, "drain_pinned_slice")
            .filter(|line| line["series"] == key)
            .map(|line| point(line, "done"))
            .collect(),
    };
    let mut series: Vec<_> = PINS.into_iter().map(series).collect();
    series.retain(|series| !series.points.is_empty());
    draw(
        "performance-pinned",
        &pinned,
        Plot {
            title: "Drain rate while a transaction pins the horizon",
            x_label: "jobs done since the transaction began",
            logarithmic: false,
            series,
        },
    );
}

/// The lines of a report; none where it was not made.
fn lines(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder().join(format!("{name}.jsonl"))).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn rows<'a>(lines: &'a [Value], row: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["row"] == row)
}

fn point(line: &Value, x: &str) -> (f64, f64) {
    (line[x].as_f64().expect("a number"), line["value"].as_f64().expect("a number"))
}

fn draw(name: &str, lines: &[Value], plot: Plot) {
    if plot.series.iter().all(|series| series.points.is_empty()) {
        println!("{name}: nothing was measured yet");
        return;
    }
    let machine = rows(lines, "machine").next().expect("a report begins with the machine");
    let note = format!(
        "{} cores, Postgres {}, fsync on, {} one-row commits/s from ten clients",
        machine["cores"],
        machine["postgres"].as_str().and_then(|v| v.split(' ').next()).unwrap_or("?"),
        machine["commits_10"].as_f64().unwrap_or(0.0),
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/{name}.svg"));
    fs::write(&path, plot.svg(&note)).expect("the chart can be written");
    println!("docs/{name}.svg");
}
