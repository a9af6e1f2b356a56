//! Requests as bytes: what is wrong before a verb could be asked, in the line, the headers, the query
//! and the bytes of the body.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::answered;
use crate::harness::{Api, Db};

/// A request without its common headers, and the status of its answer.
struct Case {
    line: String,
    headers: Vec<u8>,
    body: Vec<u8>,
    status: u16,
}

const JSON: &[u8] = b"content-type: application/json\r\n";
const JOB: &[u8] = br#"{"kind":"k"}"#;

fn get(path: &str, status: u16) -> Case {
    Case { line: format!("GET {path}"), headers: Vec::new(), body: Vec::new(), status }
}

fn post(headers: &[u8], body: &[u8], status: u16) -> Case {
    Case {
        line: "POST /v1/jobs".to_owned(),
        headers: headers.to_owned(),
        body: body.to_owned(),
        status,
    }
}

/// A job whose args are a string of these bytes.
fn string(bytes: &[u8], status: u16) -> Case {
    let body = [&br#"{"kind":"k","args":""#[..], bytes, br#""}"#].concat();
    post(JSON, &body, status)
}

fn bytes_of_bodies() -> Vec<Case> {
    vec![
        string(b"\xff", 400),
        string(b"\xc3", 400),
        string(b"\xc0\x80", 400),
        string(b"\xc1\xbf", 400),
        string(b"\xe0\x80\xaf", 400),
        string(b"\xed\xa0\x80", 400),
        string(b"\xed\xa0\xbd\xed\xb8\x80", 400),
        string(b"\xf5\x80\x80\x80", 400),
        string(b"\xf8\x88\x80\x80\x80", 400),
        string(b"\x00", 400),
        string(b"\x1b", 400),
        string("\u{feff}é\u{202e}".as_bytes(), 201),
        post(JSON, b"\xef\xbb\xbf{\"kind\":\"k\"}", 400),
        post(JSON, b"\xff\xfe{\x00", 400),
        post(JSON, b"\x00", 400),
        post(JSON, b"", 400),
        post(JSON, b"   ", 400),
        post(JSON, b"{\"kind\":\"k\"}{}", 400),
        post(JSON, b"{\"kind\":\"k\"}\0", 400),
        post(JSON, b"{\"kind\":\"k\",\"kind\":\"k\"}", 422),
        post(JSON, b"{\"kind\":\"k\",\"\\u006bind\":\"k\"}", 422),
        post(JSON, b"[]", 200),
        post(JSON, b"[[]]", 422),
        post(JSON, br#"["k"]"#, 422),
        post(JSON, br#""k""#, 422),
        post(JSON, b"null", 422),
    ]
}

fn headers() -> Vec<Case> {
    let kind =
        |value: &str, status| post(format!("content-type: {value}\r\n").as_bytes(), JOB, status);
    let with = |more: &[u8], status| post(&[JSON, more].concat(), JOB, status);
    let long = format!("idempotency-key: {}\r\n", "x".repeat(201));
    vec![
        post(b"", JOB, 415),
        kind("", 415),
        kind("text/plain", 415),
        kind("application/jsonp", 415),
        kind("application/x-www-form-urlencoded", 415),
        kind("application/json, text/plain", 415),
        kind("application/json; charset=utf-8", 201),
        kind("APPLICATION/JSON", 201),
        with(b"content-encoding: gzip\r\n", 415),
        with(b"content-encoding: identity\r\n", 201),
        with(b"idempotency-key: \r\n", 422),
        with(b"idempotency-key: a\r\nidempotency-key: b\r\n", 422),
        with("idempotency-key: é\r\n".as_bytes(), 422),
        with(b"idempotency-key: \xff\r\n", 422),
        with(long.as_bytes(), 422),
        with(b"x-request-id: \xff\xfe\r\n", 201),
        with(b"authorization: Bearer \xff\r\nauthorization: Basic x\r\n", 201),
    ]
}

fn lines() -> Vec<Case> {
    let anybody = "0190a7b6-0000-7000-8000-000000000000";
    let mut cases = vec![get(&format!("/v1/jobs/{anybody}"), 404)];
    for id in ["7", "-1", "x", "%00", "%ff", "..%2f..", "0190a7b6-0000-7000-8000-00000000000g"] {
        for route in ["/v1/jobs/$", "/v1/jobs/$/explain", "/v1/jobs/$/inputs", "/v1/workflows/$"] {
            cases.push(get(&route.replace('$', id), 422));
        }
    }
    for query in [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1.5",
        "limit=99999999999999999999",
        "limit=",
        "limit=1&limit=2",
        "state=done",
        "state=",
        "colour=red",
        "queue=%00",
        "kind=a%00b",
        "cursor=",
        "cursor=zz",
        "cursor=%ff",
        "cursor=MDE5MGE3YjY",
        "cursor=' or 1=1",
    ] {
        cases.push(get(&format!("/v1/jobs?{}", query.replace(' ', "%20")), 422));
    }
    for query in ["limit=0", "limit=101", "cursor=zz", "colour=red"] {
        cases.push(get(&format!("/v1/workflows?{query}"), 422));
    }
    for query in ["wait=-1", "wait=1.5", "wait=x", "wait=18446744073709551616", "wait=0&wait=0"] {
        cases.push(get(&format!("/v1/jobs/{anybody}?{query}"), 422));
    }
    for query in ["queue=%25", "queue=%C3%A9", "queue=nobody%27s", "queue=%E2%80%AE", "queue=%zz"] {
        cases.push(get(&format!("/v1/jobs?{query}"), 200));
    }
    for name in ["%00", "%ff", "a%20b", "%C3%A9", "-", "%0d%0ax:%20y", &"q".repeat(129)] {
        let line = format!("POST /v1/queues/{name}/pause");
        cases.push(Case { line, headers: Vec::new(), body: Vec::new(), status: 422 });
    }
    cases
}

#[tokio::test]
async fn requests_that_are_wrong_before_a_verb_is_asked() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let cases: Vec<Case> = [bytes_of_bodies(), headers(), lines()].into_iter().flatten().collect();
    let mut faults = 0;
    for Case { line, headers, body, status } in &cases {
        let length = format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\n");
        let request = [head.as_bytes(), headers, length.as_bytes(), body].concat();
        let shown = String::from_utf8_lossy(&request).into_owned();
        let asked = async {
            answered(&shown, &api.raw(&request).await, *status);
        };
        faults += usize::from(AssertUnwindSafe(asked).catch_unwind().await.is_err());
    }
    assert_eq!(faults, 0, "of {} requests", cases.len());
    api.post("/v1/jobs", r#"{"kind":"canary"}"#).await.json(201);
    api.stop().await;
    db.finish().await;
}
