//! The rules of the house that a reader of the files alone can check. Needs no Postgres.
//!
//! Each test collects every fault before it fails, as `file:line: what`.

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeMap;

use source::{File, files, function_lengths};

/// Who may use whom. A module may always use itself; `lib` and `main` put everything together.
const FLOORS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("config", &["model"]),
    ("telemetry", &["config"]),
    ("shutdown", &[]),
    ("db", &["model", "config", "telemetry", "shutdown"]),
    ("store", &["model", "db"]),
    ("doctor", &["model", "config", "db", "store"]),
    ("engine", &["model", "config", "telemetry", "shutdown", "db", "store"]),
    ("http", &["model", "config", "telemetry", "shutdown", "engine"]),
    ("maintenance", &["model", "config", "telemetry", "shutdown", "db", "store", "engine"]),
    ("worker", &["model", "config", "telemetry", "shutdown", "db", "store", "doctor", "engine"]),
    ("client", &["model", "config", "db", "store"]),
    ("embedded", &["model", "config", "telemetry", "shutdown", "db"]),
    (
        "server",
        &[
            "model",
            "config",
            "telemetry",
            "shutdown",
            "db",
            "store",
            "doctor",
            "engine",
            "http",
            "maintenance",
            "worker",
            "embedded",
        ],
    ),
    (
        "cli",
        &[
            "model",
            "config",
            "telemetry",
            "shutdown",
            "db",
            "store",
            "doctor",
            "engine",
            "http",
            "maintenance",
            "worker",
            "client",
            "embedded",
            "server",
        ],
    ),
];

/// Crates that only some places may name.
const CRATES: &[(&str, &[&str])] = &[
    ("tokio_postgres", &["src/db", "src/store", "src/embedded"]),
    ("bb8", &["src/db"]),
    ("axum", &["src/http", "src/server"]),
];

/// The places where string literals may be SQL.
const SQL_PLACES: &[&str] = &["src/db", "src/store", "src/embedded", "src/cli/postgres"];

/// How SQL begins. Prose that begins so is better put another way.
const SQL_STARTS: &[&str] = &[
    "select ",
    "insert into ",
    "delete from ",
    "update ",
    "with recursive ",
    "begin isolation",
    "create table",
    "create schema",
    "create role",
    "create function",
    "create or replace",
    "create database",
    "alter table",
    "alter role",
    "drop table",
    "drop schema",
    "set local ",
    "truncate ",
    "copy ",
    "notify ",
    "listen \"",
];

const MOST_LINES: usize = 400;
const FUNCTION_LINES_BELOW: usize = 70;

/// In characters. Rust's lines are rustfmt's business.
const LONGEST_SQL_LINE: usize = 100;

fn sources() -> Vec<File> {
    files(&["src", "tests", "benches"], "rs")
}

fn no_faults(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn is_in(file: &File, places: &[&str]) -> bool {
    places.iter().any(|place| {
        let rest = file.path.strip_prefix(place);
        rest.is_some_and(|rest| rest.starts_with(['/', '.']))
    })
}

#[test]
fn modules_use_lower_floors_only() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut faults = Vec::new();
    for file in files(&["src"], "rs") {
        let module = file.module();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some(allowed) = floors.get(module) else {
            faults.push(format!("{}:1: module {module} has no floor in tests/tidy.rs", file.path));
            continue;
        };
        for (line, used) in file.crate_paths() {
            if floors.contains_key(used.as_str())
                && used != module
                && !allowed.contains(&used.as_str())
            {
                faults.push(format!("{}:{line}: {module} must not use {used}", file.path));
            }
        }
    }
    no_faults(&faults);
}

#[test]
fn the_table_of_floors_has_no_circle() {
    for (index, (module, allowed)) in FLOORS.iter().enumerate() {
        for used in *allowed {
            let below = FLOORS[..index].iter().any(|(lower, _)| lower == used);
            assert!(below, "{module} is allowed {used}, which is not below it");
        }
    }
}

#[test]
fn crates_stay_in_their_places() {
    let mut faults = Vec::new();
    for file in files(&["src"], "rs") {
        for (name, places) in CRATES {
            let lines = file.code_lines().filter(|(_, code)| {
                code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name)
            });
            for (line, _) in lines.filter(|_| !is_in(&file, places)) {
                faults.push(format!("{}:{line}: {name} is not for this module", file.path));
            }
        }
    }
    no_faults(&faults);
}

#[test]
fn sql_stays_in_its_places() {
    let mut faults = Vec::new();
    for file in files(&["src"], "rs").iter().filter(|file| !is_in(file, SQL_PLACES)) {
        for (line, literal) in &file.literals {
            let text = literal.trim_start().to_lowercase();
            if SQL_STARTS.iter().any(|start| text.starts_with(start)) {
                faults.push(format!("{}:{line}: SQL belongs in store: {literal:.40}", file.path));
            }
        }
    }
    no_faults(&faults);
}

#[test]
fn files_and_functions_are_short() {
    let mut faults = Vec::new();
    let sql = files(&["schema"], "sql");
    for file in sources().iter().chain(&sql) {
        let lines = file.text.lines().count();
        if MOST_LINES < lines {
            faults.push(format!("{}: {lines} lines, more than {MOST_LINES}", file.path));
        }
    }
    for file in files(&["src"], "rs") {
        for (line, length) in function_lengths(&file) {
            if FUNCTION_LINES_BELOW <= length {
                faults.push(format!("{}:{line}: a function of {length} lines", file.path));
            }
        }
    }
    no_faults(&faults);
}

#[test]
fn lines_of_sql_are_short() {
    let mut faults = Vec::new();
    for file in files(&["schema"], "sql") {
        for (number, line) in file.text.lines().enumerate() {
            let length = line.chars().count();
            if LONGEST_SQL_LINE < length {
                faults.push(format!("{}:{}: {length} characters", file.path, number + 1));
            }
        }
    }
    no_faults(&faults);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!")];
    let mut faults = Vec::new();
    let others = files(&["schema"], "sql");
    for file in sources().iter().chain(&others) {
        for (number, line) in file.text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(**mark)) {
                faults.push(format!("{}:{}: {mark}", file.path, number + 1));
            }
        }
    }
    no_faults(&faults);
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = |file: &File| !file.text.starts_with("//! ");
    let faults = files(&["src"], "rs").into_iter().filter(silent);
    no_faults(&faults.map(|file| format!("{}:1: no module doc", file.path)).collect::<Vec<_>>());
}

#[test]
fn every_sql_file_is_carried_by_the_binary() {
    let lists = files(&["src/db/migrate"], "rs");
    let list = lists.iter().find(|file| file.path.ends_with("/files.rs")).expect("it is there");
    let named = |name: &str| list.literals.iter().any(|(_, literal)| literal.as_str() == name);
    let mut faults = Vec::new();
    for file in files(&["schema/functions", "schema/migrations"], "sql") {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        let stem = name.trim_end_matches(".sql");
        if !named(stem) {
            faults.push(format!("{}: not in src/db/migrate/files.rs", file.path));
        }
    }
    no_faults(&faults);
}

#[test]
fn every_page_has_one_title() {
    let mut faults = Vec::new();
    for page in files(&["."], "md") {
        let mut fenced = false;
        let mut titles = 0;
        for line in page.text.lines() {
            fenced ^= line.trim_start().starts_with("```");
            titles += usize::from(!fenced && line.starts_with("# "));
        }
        if titles != 1 {
            faults.push(format!("{}: {titles} titles", page.path));
        }
    }
    no_faults(&faults);
}

/// `rowlock_...` as it begins a literal, without labels and without a histogram's series.
fn metric_name(literal: &str) -> Option<&str> {
    let end = literal.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(literal.len());
    let name = literal[..end].trim_end_matches("_bucket");
    name.starts_with("rowlock_").then_some(name)
}

#[test]
fn every_metric_is_on_the_page_and_described() {
    const MACROS: [&str; 4] = ["counter!(", "gauge!(", "histogram!(", "fn gauge("];
    let sources = files(&["src"], "rs");
    let exporting = |file: &&File| MACROS.iter().any(|start| file.text.contains(start));
    let described = |name: &str| {
        let places = ["src/http/metrics.rs", "src/http/scrape.rs"];
        sources
            .iter()
            .filter(|file| places.contains(&file.path.as_str()))
            .any(|file| file.literals.iter().any(|(_, literal)| literal == name))
    };
    let pages = files(&["docs"], "md");
    let page = pages.iter().find(|page| page.path == "docs/HTTP.md").expect("it is there");
    let words = page.text.split('`').skip(1).step_by(2);
    let listed: Vec<&str> = words.filter_map(metric_name).collect();
    let (mut faults, mut exported) = (Vec::new(), Vec::new());
    for file in sources.iter().filter(exporting) {
        for (line, literal) in &file.literals {
            let Some(name) = metric_name(literal) else { continue };
            exported.push(name);
            if !listed.contains(&name) {
                faults.push(format!("{}:{line}: {name} is not in {}", file.path, page.path));
            }
            if !described(name) {
                faults.push(format!("{}:{line}: {name} is not described", file.path));
            }
        }
    }
    for name in listed.iter().filter(|name| !exported.contains(name)) {
        faults.push(format!("{}: nothing exports {name}", page.path));
    }
    assert!(!exported.is_empty(), "the metrics are found");
    no_faults(&faults);
}

/// The file and the function of a test that a page names by its path, as the test runner prints it.
fn test_of(name: &str) -> (Vec<String>, &str) {
    let (module, function) = name.rsplit_once("::").expect("a path");
    let path = module.trim_end_matches("::tests").replace("::", "/");
    let places = ["tests/it", "src"].map(|place| format!("{place}/{path}"));
    let files = places.iter().flat_map(|place| [format!("{place}.rs"), format!("{place}/mod.rs")]);
    (files.collect(), function)
}

/// What the pages say and what they name for it: guarantees are items, failures are rows.
fn claims(page: &File) -> Vec<(&str, &str)> {
    let (claims, _) = page.text.split_once("## Not ").expect("the page says where it ends");
    let title = |text: &str| text.lines().next().unwrap_or_default().len();
    match page.path.as_str() {
        "docs/GUARANTEES.md" => {
            let items = claims.split("\n- ").skip(1);
            items.map(|item| (&item[..title(item)], item)).collect()
        }
        _ => {
            let rows = claims
                .lines()
                .filter(|line| line.starts_with("| ") && !line.ends_with("| shown by |"));
            rows.map(|row| row.rsplitn(3, " | ").collect::<Vec<_>>())
                .map(|cells| (cells[2], cells[0]))
                .collect()
        }
    }
}

#[test]
fn every_promise_names_tests_that_are_there() {
    let sources = files(&["tests", "src"], "rs");
    let exists = |name: &str| {
        let (places, function) = test_of(name);
        let start = format!("fn {function}(");
        sources.iter().any(|file| places.contains(&file.path) && file.text.contains(&start))
    };
    let mut faults = Vec::new();
    for page in files(&["docs"], "md") {
        if !["docs/GUARANTEES.md", "docs/FAILURES.md"].contains(&page.path.as_str()) {
            continue;
        }
        for (title, text) in claims(&page) {
            let named: Vec<_> = text.split('`').skip(1).step_by(2).collect();
            let tests: Vec<_> = named.into_iter().filter(|name| name.contains("::")).collect();
            let judged = text.rsplit_once("Shown by").is_some_and(|(_, end)| end.contains(" L"));
            if tests.is_empty() && !judged {
                faults.push(format!("{}: nothing shows: {title}", page.path));
            }
            for name in tests.iter().filter(|name| !exists(name)) {
                faults.push(format!("{}: there is no test {name}", page.path));
            }
        }
    }
    no_faults(&faults);
}
