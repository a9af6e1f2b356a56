//! The lines of one bench, and which of them are wanted.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::machine::machine;
use super::median;

/// The rows that `ROW` asks for: all of a bench, or one.
#[derive(Clone, Debug)]
pub(crate) struct Rows(String);

impl Rows {
    /// Every row where the name is empty or the bench's own, else the one of this name.
    pub(crate) fn named(name: &str) -> Rows {
        Rows(name.to_owned())
    }

    /// Whether this row is to be measured.
    pub(crate) fn has(&self, row: &str) -> bool {
        self.0.is_empty() || self.0 == row
    }

    /// Whether one of these rows is.
    pub(crate) fn any(&self, rows: &[&str]) -> bool {
        rows.iter().any(|row| self.has(row))
    }
}

/// The lines of one bench, written as they come.
pub(crate) struct Report {
    file: File,
    table: comfy_table::Table,
}

/// Where the reports go.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench")
}

impl Report {
    /// A report in `target/bench/<name>.jsonl`, of rows with value and unit. Its first line has the
    /// machine's own figures.
    pub(crate) async fn rows(name: &str) -> Report {
        let mut report = Report::begin(name, &["row", "value", "unit", "beside it"]).await;
        report.line(machine().await);
        report
    }

    /// The same with a table, and lines, of another shape: the machine's figures go to
    /// `machine.jsonl` beside it.
    pub(crate) async fn begin(name: &str, columns: &[&str]) -> Report {
        fs::create_dir_all(folder()).expect("target/bench can be made");
        let mut table = comfy_table::Table::new();
        table.set_header(columns.to_vec());
        let machine = format!("{}\n", machine().await);
        fs::write(folder().join("machine.jsonl"), machine).expect("a file");
        let file = File::create(folder().join(format!("{name}.jsonl"))).expect("a file");
        Report { file, table }
    }

    /// A figure measured several times: the median, and all of them beside it.
    pub(crate) fn median(&mut self, row: &str, unit: &str, runs: Vec<f64>) {
        let value = median(runs.clone());
        self.figure(row, unit, value, json!({ "runs": runs }));
    }

    /// The median of ratios, with both figures of that run by their names.
    pub(crate) fn ratio(&mut self, row: &str, names: [&str; 2], runs: &[(f64, f64)]) {
        let of = |run: &(f64, f64)| run.0 / run.1;
        let value = median(runs.iter().map(of).collect());
        let middle = runs.iter().find(|run| of(run).total_cmp(&value).is_eq());
        let (over, under) = middle.expect("the median is one of them");
        let ratios: Vec<f64> = runs.iter().map(of).collect();
        let beside = json!({ names[0]: over, names[1]: under, "runs": ratios });
        self.figure(row, "ratio", value, beside);
    }

    /// One figure, with whatever belongs to it.
    pub(crate) fn figure(&mut self, row: &str, unit: &str, value: f64, beside: Value) {
        let mut line = json!({ "row": row, "value": round(value), "unit": unit });
        let fields = beside.as_object().expect("what stands beside has names");
        for (name, field) in fields {
            line[name] = rounded(field);
        }
        self.line(&line);
        let beside = fields.keys().map(|name| format!("{name} {}", line[name]));
        let beside = beside.collect::<Vec<_>>().join(", ");
        // Told at once too: the whole takes minutes.
        println!("{row}: {} {unit} ({beside})", line["value"]);
        self.row(vec![row.to_owned(), line["value"].to_string(), unit.to_owned(), beside]);
    }

    /// One JSON line.
    pub(crate) fn line(&mut self, line: &Value) {
        writeln!(self.file, "{line}").expect("writes the report");
    }

    /// One line of the table.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.table.add_row(cells);
    }

    /// Prints the table.
    pub(crate) fn end(self) {
        println!("{}", self.table);
    }
}

/// Four digits: the machine repeats fewer.
fn round(value: f64) -> Value {
    let digits = if value == 0.0 { 0.0 } else { 3.0 - value.abs().log10().floor() };
    if digits <= 0.0 {
        return json!(value.round() as i64);
    }
    let scale = 10_f64.powf(digits);
    json!((value * scale).round() / scale)
}

fn rounded(field: &Value) -> Value {
    match field {
        Value::Array(fields) => fields.iter().map(rounded).collect(),
        Value::Number(number) if number.is_f64() => round(number.as_f64().expect("it is")),
        other => other.clone(),
    }
}
