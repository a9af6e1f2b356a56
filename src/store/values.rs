//! How values travel that the driver has no type for: JSON as text, and lengths of time.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::db::{Error, Typed};
use crate::model::{Code, Execution, RawJson};

type Fault = Box<dyn StdError + Sync + Send>;

/// The version in front of the text of a `jsonb` on the wire.
const JSONB_VERSION: u8 = 1;

const MICROS_A_DAY: i64 = 86_400_000_000;

/// From where a `timestamptz` counts its microseconds.
const EPOCH: OffsetDateTime = datetime!(2000-01-01 0:00 UTC);
/// 0001-01-01T00:00:00Z.
const FIRST_MOMENT: i64 = -730_119 * MICROS_A_DAY;
/// 9999-12-31T23:59:59.999999Z.
const LAST_MOMENT: i64 = 2_921_940 * MICROS_A_DAY - 1;

/// A `jsonb` parameter, sent as the text that it is.
#[derive(Debug)]
pub(super) struct Jsonb<'a>(pub(super) &'a RawValue);

impl ToSql for Jsonb<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        out.extend_from_slice(&[JSONB_VERSION]);
        out.extend_from_slice(self.0.get().as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

impl Typed for Jsonb<'_> {
    const TYPE: Type = Type::JSONB;
    const ARRAY: Type = Type::JSONB_ARRAY;
}

/// A `jsonb` column, kept as text.
pub(super) struct JsonbText(pub(super) RawJson);

impl<'a> FromSql<'a> for JsonbText {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Fault> {
        let text = match raw.split_first() {
            Some((&JSONB_VERSION, text)) => std::str::from_utf8(text)?,
            _ => return Err("a jsonb of another version".into()),
        };
        Ok(JsonbText(RawValue::from_string(text.to_owned())?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }
}

/// An `interval`. Read back, a month is 30 days and less than nothing is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval(pub(super) Duration);

impl ToSql for Interval {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        let micros = i64::try_from(self.0.as_micros())?;
        out.extend_from_slice(&micros.to_be_bytes());
        // No days and no months: their length would depend on the calendar.
        out.extend_from_slice(&[0; 8]);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::INTERVAL
    }

    to_sql_checked!();
}

impl Typed for Interval {
    const TYPE: Type = Type::INTERVAL;
    const ARRAY: Type = Type::INTERVAL_ARRAY;
}

impl<'a> FromSql<'a> for Interval {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Fault> {
        let raw: [u8; 16] = raw.try_into()?;
        let [micros, days, months] = [&raw[..8], &raw[8..12], &raw[12..]].map(number);
        let days = days.saturating_add(months.saturating_mul(30));
        let whole = micros.saturating_add(days.saturating_mul(MICROS_A_DAY));
        Ok(Interval(Duration::from_micros(u64::try_from(whole).unwrap_or(0))))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::INTERVAL
    }
}

/// A big-endian number of four or eight bytes.
fn number(bytes: &[u8]) -> i64 {
    let start = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
    bytes.iter().fold(start, |value, byte| (value << 8) | i64::from(*byte))
}

/// A `timestamptz`. The driver's own type has no infinity, and panics at it: those before year 1
/// and after 9999 are read as the first and the last moment in between.
pub(super) struct Moment(pub(super) OffsetDateTime);

impl<'a> FromSql<'a> for Moment {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Fault> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        let bounded = micros.clamp(FIRST_MOMENT, LAST_MOMENT);
        Ok(Moment(EPOCH + time::Duration::microseconds(bounded)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// Executions as the arrays that the finishing verbs take.
pub(super) struct Executions {
    pub(super) job_ids: Vec<uuid::Uuid>,
    pub(super) attempts: Vec<i32>,
    pub(super) tokens: Vec<uuid::Uuid>,
}

impl Executions {
    pub(super) fn of(executions: impl Iterator<Item = Execution> + Clone) -> Self {
        Executions {
            job_ids: executions.clone().map(|execution| execution.job_id).collect(),
            attempts: executions.clone().map(|execution| execution.attempt).collect(),
            tokens: executions.map(|execution| execution.token.expose()).collect(),
        }
    }
}

/// An array, or null where every place would be null: the functions take one for the other.
pub(super) fn unless_all_null<T>(values: Vec<Option<T>>) -> Option<Vec<Option<T>>> {
    values.iter().any(Option::is_some).then_some(values)
}

/// Values that no column can hold (NUL, half a surrogate pair, numbers past all bounds) are refused
/// by Postgres before a function of ours sees them; callers are told in the same way.
pub(super) fn refuse_data(error: Error) -> Error {
    let Error::Other(source) = &error else { return error };
    let database = source
        .downcast_ref::<tokio_postgres::Error>()
        .and_then(|error| error.as_db_error())
        .filter(|error| {
            // Data exceptions, and JSON nested past what the parser's stack can take.
            let state = error.code().code();
            state.starts_with("22") || state.starts_with("54")
        });
    match database {
        Some(found) => Error::Refused {
            code: Code::Invalid,
            // What has the value in it is for the caller, and stays out of logs.
            message: "a value is not valid".to_owned(),
            detail: Some(excerpt(found.message(), found.detail())),
            hint: Some("Send text without NUL characters, and numbers within bounds.".to_owned()),
        },
        None => error,
    }
}

/// What Postgres said, cut to 200 characters.
fn excerpt(message: &str, detail: Option<&str>) -> String {
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{message}{detail}").chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(interval: Duration) -> Duration {
        let mut out = BytesMut::new();
        Interval(interval).to_sql(&Type::INTERVAL, &mut out).unwrap();
        Interval::from_sql(&Type::INTERVAL, &out).unwrap().0
    }

    #[test]
    fn an_interval_comes_back_as_it_went() {
        for interval in [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(86_400)] {
            assert_eq!(through(interval), interval);
        }
    }

    #[test]
    fn days_and_months_become_time_and_what_is_negative_nothing() {
        let read = |micros: i64, days: i32, months: i32| {
            let mut raw = micros.to_be_bytes().to_vec();
            raw.extend(days.to_be_bytes());
            raw.extend(months.to_be_bytes());
            Interval::from_sql(&Type::INTERVAL, &raw).unwrap().0
        };
        assert_eq!(read(-1_000_000, 1, 0), Duration::from_secs(86_399));
        assert_eq!(read(0, -1, 1), Duration::from_secs(29 * 86_400));
        assert_eq!(read(-5, 0, 0), Duration::ZERO);
    }

    #[test]
    fn no_moment_is_beyond_reading() {
        let read =
            |micros: i64| Moment::from_sql(&Type::TIMESTAMPTZ, &micros.to_be_bytes()).unwrap().0;
        assert_eq!(read(0), EPOCH);
        assert_eq!(read(i64::MIN), datetime!(0001-01-01 0:00 UTC));
        assert_eq!(read(i64::MAX), datetime!(9999-12-31 23:59:59.999999 UTC));
    }

    #[test]
    fn json_keeps_its_text() {
        let text = r#"{"n":123456789012345678901234567890}"#;
        let json = RawValue::from_string(text.to_owned()).unwrap();
        let mut out = BytesMut::new();
        Jsonb(&json).to_sql(&Type::JSONB, &mut out).unwrap();
        assert_eq!(JsonbText::from_sql(&Type::JSONB, &out).unwrap().0.get(), text);
        assert!(JsonbText::from_sql(&Type::JSONB, b"\x02{}").is_err());
    }
}
