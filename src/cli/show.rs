//! How commands show what they found: tables for people, a JSON object a line for programs.

use std::io::Write;

use comfy_table::{Table, presets};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Prints to standard output; a reader who has gone away is no fault.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Prints one object a line.
pub(super) fn lines(values: impl IntoIterator<Item = Value>) -> anyhow::Result<()> {
    values.into_iter().try_for_each(|value| line(&value.to_string()))
}

/// Prints a table, or says that there is nothing.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>, nothing: &str) -> anyhow::Result<()> {
    if rows.is_empty() {
        return line(nothing);
    }
    let mut table = Table::new();
    let rows = rows.into_iter().map(|row| row.iter().map(|cell| printable(cell)).collect());
    let rows: Vec<Vec<String>> = rows.collect();
    table.load_style(presets::NOTHING).set_header(header.to_vec()).add_rows(rows);
    let text = table.to_string();
    text.lines().try_for_each(|row| line(row.trim_end()))
}

/// Text of others, such as a kind or an error, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// A time for programs.
pub(super) fn rfc3339(time: OffsetDateTime) -> Value {
    time.format(&Rfc3339).map_or(Value::Null, Value::String)
}

/// A time for people, in UTC.
pub(super) fn time(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    time.format(format).unwrap_or_default()
}

/// Seconds for people.
pub(super) fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds.abs() < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds.abs() < 120.0 => format!("{seconds:.1} s"),
        Some(seconds) => format!("{:.0} min", seconds / 60.0),
    }
}

/// What may be missing.
pub(super) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_told_what_to_do_by_others() {
        assert_eq!(printable("a\u{1b}[2J\r\nb \u{9b}ü"), "a\\u{1b}[2J\\r\\nb \\u{9b}ü");
    }
}
