//! Request bodies: JSON, read once.
//!
//! Content type, encoding and announced length are judged before a byte is read. A NUL is refused
//! here, since no Postgres text can hold one.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use tokio::sync::OwnedSemaphorePermit;

use super::app::App;
use super::problem::{Kind, Problem};
use super::strict::Strict;
use crate::model::RawJson;

/// A body that says it is JSON, not parsed yet.
pub(super) struct JsonText {
    bytes: Bytes,
    /// Its part of the room for long bodies, while it is there.
    _room: Option<OwnedSemaphorePermit>,
}

/// A body parsed into `T`; keys that `T` does not have are refused by `T`.
pub(super) struct Json<T>(pub(super) T);

/// The same where no text of `T` is refused for what is in it: NUL may come, and bytes that are not
/// UTF-8 are replaced.
pub(super) struct AnyJson<T>(pub(super) T);

/// The query string as `T`.
pub(super) struct Params<T>(pub(super) T);

/// A path segment as `T`, percent-decoded.
pub(super) struct Path<T>(pub(super) T);

impl FromRequest<App> for JsonText {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let text = read(request, app).await?;
        match nul_at(&text.bytes) {
            Some(at) => Err(Problem::invalid(format!("the body has a \\u0000 at byte {at}"))
                .hint("Postgres text cannot hold NUL; leave it out or encode the bytes.")),
            None => Ok(text),
        }
    }
}

async fn read(request: Request, app: &App) -> Result<JsonText, Problem> {
    check_headers(request.headers())?;
    let (bytes, _room) = app.bodies.read(request.into_body()).await?;
    Ok(JsonText { bytes, _room })
}

impl JsonText {
    /// Parses the body.
    ///
    /// # Errors
    ///
    /// 400 when it is not JSON, 422 when it is and does not fit.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        let mut deserializer = serde_json::Deserializer::from_slice(&self.bytes);
        let value = serde_path_to_error::deserialize(Strict(&mut deserializer)).map_err(unfit)?;
        deserializer.end().map_err(|error| malformed(&error))?;
        Ok(value)
    }

    /// Whether the body is an array.
    pub(super) fn is_array(&self) -> bool {
        self.bytes.trim_ascii_start().starts_with(b"[")
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        JsonText::from_request(request, app).await?.parse().map(Json)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for AnyJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let mut text = read(request, app).await?;
        if let Cow::Owned(mended) = String::from_utf8_lossy(&text.bytes) {
            text.bytes = mended.into();
        }
        text.parse().map(AnyJson)
    }
}

/// A text that may have halves of surrogate pairs, as JSON from JavaScript has them where a text was
/// cut: they are replaced.
pub(super) fn any_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let Some(raw) = Option::<RawJson>::deserialize(deserializer)? else { return Ok(None) };
    let json = raw.get();
    let read = serde_json::from_str(json);
    read.or_else(|_| serde_json::from_str(&without_halves(json))).map_err(D::Error::custom)
}

/// The JSON with `\ufffd` in place of the escapes of halves without their other half.
fn without_halves(json: &str) -> String {
    let mut text = json.to_owned();
    let mut at = 0;
    while let Some(offset) = text[at..].find('\\') {
        at += offset;
        let unit = |from: usize| {
            let digits = text.get(from..from + 6)?.strip_prefix("\\u")?;
            u16::from_str_radix(digits, 16).ok()
        };
        at += match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                text.replace_range(at..at + 6, "\\ufffd");
                6
            }
            _ => 2,
        };
        if text.len() <= at || !text.is_char_boundary(at) {
            break;
        }
    }
    text
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Params(params)),
            Err(error) => Err(Problem::invalid(error.body_text())
                .hint("/openapi.json lists the parameters of every route.")),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Path(value)),
            Err(error) => Err(Problem::invalid(error.body_text())
                .hint("Ids are UUIDs; names are percent-encoded, a slash as %2F.")),
        }
    }
}

fn check_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let wrong = |detail| Problem::new(Kind::WrongMediaType, detail);
    if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| encoding != "identity") {
        return Err(wrong(format!("a body encoded as {encoding} is not read"))
            .hint("Send the body without Content-Encoding."));
    }
    let fix = "Send `Content-Type: application/json`.";
    let Some(content_type) = text(CONTENT_TYPE) else {
        return Err(wrong("the request has no Content-Type".to_owned()).hint(fix));
    };
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let json = essence == "application/json"
        || essence.starts_with("application/") && essence.ends_with("+json");
    if json { Ok(()) } else { Err(wrong(format!("{essence} is not JSON")).hint(fix)) }
}

/// Where the first escaped NUL begins. An escape is one only where its backslash is not escaped.
fn nul_at(json: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(offset) = json[from..].iter().position(|byte| *byte == b'\\') {
        let at = from + offset;
        if json[at..].starts_with(b"\\u0000") {
            return Some(at);
        }
        from = (at + 2).min(json.len());
    }
    None
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(Kind::Malformed, format!("the body is not JSON: {error}"))
}

fn unfit(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = error.path().to_string();
    let inner = error.into_inner();
    if !inner.is_data() {
        return malformed(&inner);
    }
    let place = if path == "." { String::new() } else { format!("{path}: ") };
    Problem::invalid(format!("{place}{inner}"))
        .hint("/openapi.json has the keys and types of every body.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        args: RawJson,
        #[serde(default)]
        priority: Option<i16>,
    }

    fn parse(text: &str) -> Result<Vec<Entry>, String> {
        let text = JsonText { bytes: Bytes::copy_from_slice(text.as_bytes()), _room: None };
        let parsed = text.parse();
        parsed.map_err(|problem| serde_json::to_string(&problem).unwrap())
    }

    #[test]
    fn raw_json_keeps_every_digit() {
        let entries = parse(r#"[{"args": {"n":123456789012345678901234567890, "f":1.50}}]"#);
        let entries = entries.unwrap();
        assert_eq!(entries[0].args.get(), r#"{"n":123456789012345678901234567890, "f":1.50}"#);
        assert_eq!(entries[0].priority, None);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = parse(r#"[{"args":1},{"args":1,"priority":"3"}]"#).unwrap_err();
        assert!(wrong.contains("RL422") && wrong.contains("[1].priority"), "{wrong}");
        for array in ["[[1, 3]]", r#"[{"args":1},[2]]"#] {
            assert!(parse(array).unwrap_err().contains("RL422"), "{array}");
        }
        let unknown = parse(r#"[{"args":1,"prio":3}]"#).unwrap_err();
        assert!(unknown.contains("RL422") && unknown.contains("prio"), "{unknown}");
        for text in ["", "[", "[{]", "[] []", "[{\"args\":tru}]"] {
            let broken = parse(text).unwrap_err();
            assert!(broken.contains("malformed"), "{text}: {broken}");
        }
    }

    #[test]
    fn halves_of_surrogate_pairs_are_replaced_and_pairs_are_not() {
        for (json, expected) in [
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\ude00\ud83d\ude00\ud83dx""#, "\u{fffd}\u{1f600}\u{fffd}x"),
            (r#""\\ud83d\u0000""#, "\\ud83d\0"),
        ] {
            let read = any_text(&mut serde_json::Deserializer::from_str(json));
            assert_eq!(read.unwrap().as_deref(), Some(expected), "{json}");
        }
        assert!(any_text(&mut serde_json::Deserializer::from_str("7")).is_err());
    }

    #[test]
    fn an_escaped_nul_is_found_and_an_escaped_backslash_is_none() {
        assert_eq!(nul_at(br#"{"a":"\u0000"}"#), Some(6));
        assert_eq!(nul_at(br#"{"a":"\\\u0000"}"#), Some(8));
        assert_eq!(nul_at(br#"{"a":"\\u0000"}"#), None);
        assert_eq!(nul_at(br#"{"a":"\u0001\n"}"#), None);
        assert_eq!(nul_at(b"\\"), None);
    }
}
