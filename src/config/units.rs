//! Durations and sizes as people write them: `500ms`, `30s`, `2m`; `256KiB`, `64MiB`.

use std::time::Duration;

/// A duration or a size that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct BadUnit {
    text: String,
    what: &'static str,
}

const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a whole number with a unit: `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
///
/// When the unit is missing or unknown, or the number is not whole or too large.
///
/// ```
/// use rowlock::config::units;
/// assert_eq!(units::duration("2m")?, std::time::Duration::from_secs(120));
/// assert!(units::duration("30").is_err());
/// # Ok::<(), units::BadUnit>(())
/// ```
pub fn duration(text: &str) -> Result<Duration, BadUnit> {
    let what = "a duration such as 500ms, 30s or 2m";
    number_with_unit(text, &DURATIONS)
        .map(Duration::from_millis)
        .ok_or_else(|| BadUnit { text: text.to_owned(), what })
}

/// Reads a size in bytes: a whole number with `B`, `KiB`, `MiB` or `GiB`.
///
/// # Errors
///
/// When the unit is missing or unknown, or the number is not whole or too large.
pub fn size(text: &str) -> Result<usize, BadUnit> {
    let what = "a size such as 256KiB or 64MiB";
    number_with_unit(text, &SIZES)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| BadUnit { text: text.to_owned(), what })
}

/// Writes a duration with the largest unit that keeps it whole.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, DURATIONS.iter().rev(), "s")
}

/// Writes a size with the largest unit that keeps it whole.
#[must_use]
pub fn show_size(bytes: usize) -> String {
    show(bytes as u64, SIZES.iter(), "B")
}

fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show<'a>(value: u64, units: impl Iterator<Item = &'a (&'a str, u64)>, zero: &str) -> String {
    let fitting = units.into_iter().find(|(_, factor)| value.is_multiple_of(*factor));
    match fitting {
        Some((unit, factor)) if value != 0 => format!("{}{unit}", value / factor),
        _ => format!("0{zero}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1d", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(show_duration(duration("90s").unwrap()), "90s");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn sizes_read_and_write() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(show_size(64 << 20), "64MiB");
        assert_eq!(show_size(1000), "1000B");
    }

    #[test]
    fn what_is_not_plain_is_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "1 week", "1S", "99999999999999999999s", "1e3s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("300000000000000d").is_err());
        assert_eq!(
            size("64MB").unwrap_err().to_string(),
            "\"64MB\" is not a size such as 256KiB or 64MiB"
        );
    }
}
