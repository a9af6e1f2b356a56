//! Lengths of time in JSON: strings that Postgres reads as the same interval.
//!
//! Taken: `30 seconds`, `1 hour 30 minutes`, `90s`, `250 ms`, `01:30:00`, `PT30S`, `P1DT2H`. Given:
//! ISO 8601 in seconds, as `PT30S` or `PT0.25S`. A bare number is refused: it has no unit.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::PartialSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// A length of time, zero or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval(pub(super) Duration);

const MOST_SECONDS: f64 = 1e10;

/// Names of a unit and its seconds, as Postgres knows them.
const UNITS: &[(&[&str], f64)] = &[
    (&["ms", "msec", "msecs", "millisecond", "milliseconds"], 0.001),
    (&["s", "sec", "secs", "second", "seconds"], 1.0),
    (&["m", "min", "mins", "minute", "minutes"], 60.0),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600.0),
    (&["d", "day", "days"], 86_400.0),
];

impl Interval {
    /// Reads one of the forms above; nothing for any other text.
    pub(super) fn parse(text: &str) -> Option<Interval> {
        let text = text.trim();
        let seconds = if let Some(rest) = text.strip_prefix('P') {
            iso_seconds(rest)?
        } else if text.contains(':') {
            clock_seconds(text)?
        } else {
            worded_seconds(text)?
        };
        // Microseconds are what Postgres keeps.
        let micros = (0.0..=MOST_SECONDS).contains(&seconds).then(|| (seconds * 1e6).round())?;
        Some(Interval(Duration::from_micros(micros as u64)))
    }
}

/// `1DT2H30M4.5S`: each designator once, in this order.
fn iso_seconds(rest: &str) -> Option<f64> {
    let (date, clock) = rest.split_once('T').map_or((rest, None), |(d, t)| (d, Some(t)));
    let mut total = designated(date, &[('D', 86_400.0)])?;
    if let Some(clock) = clock.filter(|clock| !clock.is_empty()) {
        total += designated(clock, &[('H', 3_600.0), ('M', 60.0), ('S', 1.0)])?;
    } else if clock.is_some() || date.is_empty() {
        return None;
    }
    Some(total)
}

fn designated(mut text: &str, units: &[(char, f64)]) -> Option<f64> {
    let mut total = 0.0;
    for (designator, seconds) in units {
        if let Some((count, rest)) = text.split_once(*designator) {
            total += number(count)? * seconds;
            text = rest;
        }
    }
    text.is_empty().then_some(total)
}

/// `01:30:00.5`: hours, minutes and seconds.
fn clock_seconds(text: &str) -> Option<f64> {
    let parts: Vec<&str> = text.split(':').collect();
    let [hours, minutes, seconds] = parts[..] else { return None };
    let whole = |part: &str| part.parse::<u32>().ok().map(f64::from);
    let (minutes, seconds) = (whole(minutes)?, number(seconds)?);
    (minutes < 60.0 && seconds < 60.0).then_some(whole(hours)? * 3_600.0 + minutes * 60.0 + seconds)
}

/// `1 hour 30 minutes`, with or without the spaces.
fn worded_seconds(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (count, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, left) = after.split_at(letters);
        let (_, seconds) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        total += number(count)? * seconds;
        rest = left.trim_start();
    }
    (!text.is_empty()).then_some(total)
}

fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let framed = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit());
    (plain && framed).then(|| text.parse().ok())?
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Interval::parse(&text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            D::Error::custom(format!(
                "{shown:?} is not an interval such as \"30 seconds\" or \"PT30S\""
            ))
        })
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("PT{}S", self.0.as_secs_f64()))
    }
}

impl PartialSchema for Interval {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "An interval: `30 seconds`, `1 hour 30 minutes`, `01:30:00`, `PT30S`",
            ))
            .examples(["PT30S"])
            .into()
    }
}

impl utoipa::ToSchema for Interval {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_postgres_are_read() {
        for (text, seconds) in [
            ("30 seconds", 30.0),
            ("90s", 90.0),
            ("1 hour 30 minutes", 5_400.0),
            ("1h30m", 5_400.0),
            ("250 ms", 0.25),
            ("1.5 days", 129_600.0),
            ("01:30:00.5", 5_400.5),
            ("PT30S", 30.0),
            ("PT0.25S", 0.25),
            ("P1DT2H", 93_600.0),
            ("P2D", 172_800.0),
            ("0 seconds", 0.0),
        ] {
            let interval = Interval::parse(text).unwrap_or_else(|| panic!("{text} is not read"));
            assert_eq!(interval.0.as_secs_f64(), seconds, "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            " ",
            "30",
            "-1 second",
            "1e3 s",
            "1 week",
            "P",
            "PT",
            "PT1H2",
            "P1D2H",
            "PT5S3M",
            "1:2",
            "00:61:00",
            "1. s",
            ".5 s",
            "second",
            "1 second ago",
            "99999999999 s",
            "NaN s",
            "infinity",
            "PT-1S",
            "1 Second",
        ] {
            assert_eq!(Interval::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_given_can_be_taken() {
        for millis in [0, 1, 250, 30_000, 86_400_000] {
            let interval = Interval(Duration::from_millis(millis));
            let json = serde_json::to_string(&interval).unwrap();
            assert_eq!(serde_json::from_str::<Interval>(&json).unwrap(), interval, "{json}");
        }
        assert_eq!(serde_json::to_string(&Interval(Duration::from_secs(30))).unwrap(), "\"PT30S\"");
        assert!(serde_json::from_str::<Interval>("30").is_err());
    }
}
