//! The cases.

use super::jobs::{Case, bad, kept};

fn nested(open: &str, inner: &str, close: &str, levels: usize) -> String {
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

fn text(unit: &str, times: usize) -> String {
    format!("\"{}\"", unit.repeat(times))
}

/// Fields of a job.
pub(super) fn of_jobs() -> Vec<Case> {
    [good_args(), bad_numbers(), bad_texts(), no_json(), names(), integers(), times(), edges()]
        .into_iter()
        .flatten()
        .collect()
}

fn good_args() -> Vec<Case> {
    let keys = (0..10_000).map(|key| format!("\"k{key}\":1")).collect::<Vec<_>>().join(",");
    let args = |json: String| kept("args", json);
    let mut cases: Vec<Case> = [
        "null",
        "true",
        "0",
        "-0",
        "0e-1000",
        "1.10",
        "1e2",
        "1e999",
        "-1e999",
        "1e-1000",
        "9007199254740993",
        "123456789012345678901234567890.0000000001",
        r#""""#,
        "[]",
        "{}",
        r#"{"":1,"__proto__":{"constructor":2}}"#,
        r#"{"a":1,"a":2}"#,
        " [ 1 , 2 ] ",
        r#""\\u0000""#,
        r#""😀 😀""#,
        "\"\u{202e}\u{200b}\u{feff}\u{fffd}\u{ffff}\"",
        "\"\u{7f}\u{85}\u{2028}\"",
        r#""\u0001\u001b[31m<script>alert(1)</script>""#,
        r#""'; drop table jobs; -- %s%n %00 ../../etc/passwd \r\n""#,
        r#"{"'":"\"","$1":"{}"}"#,
    ]
    .map(|json| args(json.to_owned()))
    .into();
    cases.extend([
        args("9".repeat(1000)),
        args(format!("-0.{}", "9".repeat(1000))),
        args(nested("[", "1", "]", 64)),
        args(nested("{\"a\":", "{}", "}", 63)),
        args(text("x", 262_142)),
        args(text("é", 131_071)),
        args(text("9", 100_000)),
        args(format!("{{{keys}}}")),
    ]);
    cases
}

fn bad_numbers() -> Vec<Case> {
    let args = |json: String| bad("args", json);
    vec![
        args("1e1000".to_owned()),
        args("-1e1000".to_owned()),
        args("1e-1001".to_owned()),
        args("1e131071".to_owned()),
        args("-1e131071".to_owned()),
        args("[1e-16383]".to_owned()),
        args("{\"a\":[0e-16383]}".to_owned()),
        args("-1e-131071".to_owned()).sql("22003"),
        args("1e131072".to_owned()).sql("22003"),
        args("1e400000".to_owned()).sql("22003"),
        args("1e99999999999999999999".to_owned()).sql("22003"),
        args("9".repeat(1001)),
        args("9".repeat(100_000)),
        args("9".repeat(140_000)).sql("22003"),
        args(format!("0.{}", "9".repeat(1001))),
        args(format!("[{}0]", "1e131071,".repeat(9000))),
        args(format!("[{}0]", "1e-16383,".repeat(9000))),
    ]
}

fn bad_texts() -> Vec<Case> {
    let args = |json: String| bad("args", json);
    vec![
        args(r#""\u0000""#.to_owned()).sql("22P05"),
        args(r#"{"\u0000":1}"#.to_owned()).sql("22P05"),
        args(r#"{"a":[{"b":"x\u0000y"}]}"#.to_owned()).sql("22P05"),
        args(r#""\ud800""#.to_owned()).sql("22P02"),
        args(r#""\udc00""#.to_owned()).sql("22P02"),
        args(r#"{"\ud83d\ud83d":1}"#.to_owned()).sql("22P02"),
        args(r#""\ude00\ud83d""#.to_owned()).sql("22P02"),
        args(nested("[", "1", "]", 65)),
        args(nested("{\"a\":", "[]", "}", 64)),
        args(nested("[", "", "]", 3000)),
        args(nested("[", "", "]", 20_000)).sql("54001"),
        args(nested("{\"a\":", "1", "}", 20_000)).sql("54001"),
        args("[".repeat(20_000)).sql("54001|22P02").http(400),
        args(text("x", 262_143)).sql("RL413").http(413),
        args(text("é", 131_072)).sql("RL413").http(413),
        args(text("\\u0001", 43_691)).sql("RL413").http(413),
        args(format!("[{}1]", "1,".repeat(131_072))).sql("RL413").http(413),
        args(text("x", 3_000_000)).sql("RL413").http(413),
    ]
}

fn no_json() -> Vec<Case> {
    [
        "",
        "tru",
        "nul",
        "NaN",
        "-Infinity",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "0x10",
        "'a'",
        "{'a':1}",
        "{a:1}",
        "[1,]",
        "{\"a\":1,}",
        "\"a",
        "\"a\tb\"",
        "\"\\x41\"",
        "\"\\u12\"",
        "[1] // no",
        "\u{feff}1",
        "1 2",
        "undefined",
    ]
    .map(|json| bad("args", json).sql("22P02").http(400))
    .into()
}

fn names() -> Vec<Case> {
    let mut cases = Vec::new();
    for field in ["kind", "queue", "unique_key", "ref"] {
        cases.extend([
            bad(field, r#""""#),
            bad(field, text("x", 129)),
            bad(field, text("x", 100_000)),
            kept(field, text("x", 128)),
            bad(field, "7").one("-"),
            bad(field, "true"),
            bad(field, "[\"a\"]"),
            bad(field, "{\"a\":1}"),
            bad(field, r#""a\u0000b""#).sql("22P05").one("22021"),
        ]);
    }
    for json in [r#""é""#, r#""'\" %s ../ $1""#, "\"\u{202e}k\"", r#""rowlock_owner""#] {
        cases.push(kept("kind", json));
        cases.push(kept("unique_key", json));
    }
    for json in [r#""a\nb""#, r#""\r\n""#, r#""\u0007""#, "\"\u{7f}\"", "null"] {
        cases.push(bad("kind", json));
    }
    for json in ["a b", "-a", ".a", "/a", "é", "a\\r\\n", "q%2F", "'; --", "\u{202e}q", "a\\\\b"] {
        cases.push(bad("queue", format!("\"{json}\"")));
    }
    for json in ["a/b", "A", "a", "rowlock", "pg_temp", "default", "a..b", "0:1_-./"] {
        cases.push(kept("queue", format!("\"{json}\"")));
    }
    cases.extend([
        bad("id", r#""""#).one("22P02"),
        bad("id", r#""x""#).one("22P02"),
        bad("id", r#""0190a7b6-0000-7000-8000-00000000000g""#).one("22P02"),
        bad("id", r#""0190a7b6-0000-7000-8000-0000000000001""#).one("22P02"),
        bad("id", "7").one("22P02"),
        bad("id", "-1").one("22P02"),
        bad("on_parent_failure", r#""explode""#),
        bad("on_parent_failure", r#""CANCEL""#),
        bad("on_parent_failure", "1").one("RL422"),
        bad("wait_for", r#""none""#),
        bad("wait_for", "1"),
        bad("?prio", "3"),
        bad("?Kind", r#""a""#),
        bad("?", "1"),
        bad("?__proto__", "{}"),
    ]);
    cases
}

fn integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for field in ["priority", "max_attempts"] {
        for json in ["-1", "32768", "-32768"] {
            cases.push(bad(field, json));
        }
        let wide = ["2147483648", "-2147483649", "9223372036854775808", "18446744073709551616"];
        for json in wide {
            cases.push(bad(field, json).one("22003"));
        }
        cases.push(bad(field, "1.5").one("22P02"));
        // serde_json has no such number, and calls it no JSON.
        for json in ["1e131071", "1e400"] {
            cases.push(bad(field, json).one("22P02").http(400));
        }
        for json in ["\"3\"", "true", "[]", "{}", "\"\"", "\"1; drop\""] {
            cases.push(bad(field, json).one("-"));
        }
        cases.push(kept(field, "1"));
        cases.push(kept(field, "9"));
        cases.push(kept(field, "null"));
    }
    cases.extend([
        kept("priority", "0"),
        bad("priority", "10"),
        bad("max_attempts", "0"),
        kept("max_attempts", "1000"),
        bad("max_attempts", "1001"),
    ]);
    cases
}

fn times() -> Vec<Case> {
    let mut cases = vec![
        kept("run_at", r#""1970-01-01T00:00:00Z""#),
        kept("run_at", r#""2020-02-29T23:59:59.999999+05:30""#),
        kept("run_at", "null"),
        kept("timeout", r#""1 ms""#),
        kept("timeout", r#""365 days""#),
        kept("timeout", r#""PT30S""#),
        kept("timeout", "null"),
    ];
    for at in ["infinity", "-infinity", "epoch", "1969-12-31T23:59:59Z", "2999-01-01T00:00:00Z"] {
        let one = if at == "epoch" { "-" } else { "RL422" };
        cases.push(bad("run_at", format!("\"{at}\"")).one(one));
    }
    for at in ["9999-12-31T23:59:59Z", "294276-12-31T23:59:59Z", "0044-03-15T00:00:00Z BC"] {
        cases.push(bad("run_at", format!("\"{at}\"")));
    }
    for at in ["294277-01-01T00:00:00Z", "2030-02-30T00:00:00Z", "2030-13-01T00:00:00Z"] {
        cases.push(bad("run_at", format!("\"{at}\"")).one("22008"));
    }
    // SQL reads more forms than the others do.
    for at in ["tomorrow", "now", "2030-01-01T00:00:00", "2030-01-01", ""] {
        cases.push(bad("run_at", format!("\"{at}\"")).one("-"));
    }
    cases.extend([bad("run_at", "1").one("-"), bad("run_at", "[]"), bad("run_at", "true")]);
    for length in ["0s", "0 seconds", "366 days"] {
        cases.push(bad("timeout", format!("\"{length}\"")));
    }
    for length in ["soon", "", "1e9999 s", "infinity", "1 s; drop"] {
        cases.push(bad("timeout", format!("\"{length}\"")).one("-"));
    }
    cases.extend([bad("timeout", r#""-1 s""#), bad("timeout", "30").one("-")]);
    cases.push(bad("timeout", "{}"));
    cases
}

fn edges() -> Vec<Case> {
    let nobody = r#"["0190a7b6-0000-7000-8000-000000000000"]"#;
    [
        r#""b""#,
        "{}",
        "7",
        "[null]",
        "[1]",
        "[[]]",
        r#"[["b"]]"#,
        r#"[{"job":["b"]}]"#,
        r#"[["b","hold"]]"#,
        "[{}]",
        r#"["nobody"]"#,
        r#"[""]"#,
        r#"["' or 1=1"]"#,
        nobody,
        r#"[{"job":"b","x":1}]"#,
        r#"[{"job":"b","on_parent_failure":"go"}]"#,
    ]
    .map(|json| bad("depends_on", json))
    .into_iter()
    .chain([kept("depends_on", "[]"), kept("depends_on", "null")])
    .collect()
}
