//! The cases of workers' calls.

use super::work::{Call, Entry};

const ANYBODY: &str = "0190a7b6-0000-4000-8000-000000000000";

/// Executions that a worker may name and not touch.
pub(super) fn of_entries() -> Vec<Entry> {
    let entry =
        |worker, job, attempt, token, sql, http| Entry { worker, job, attempt, token, sql, http };
    let stale = |worker, job, attempt, token| entry(worker, job, attempt, token, "stale", 200);
    let wrong = |job, attempt, token, sql| entry("$W", job, attempt, token, sql, 422);
    vec![
        stale("$W", "$J", "$A", "$T2"),
        stale("$W2", "$J", "$A", "$T"),
        stale("$W2", "$J", "$A", "$T2"),
        stale("$W", "$J2", "$A", "$T2"),
        stale("$W", "$J2", "$A", "$T"),
        stale(ANYBODY, "$J", "$A", "$T"),
        stale("$W", ANYBODY, "$A", "$T"),
        stale("$W", "$J", "$A", ANYBODY),
        stale("$W", "$J", "2", "$T"),
        stale("$W", "$J", "0", "$T"),
        stale("$W", "$J", "-1", "$T"),
        stale("$W", "$J", "2147483647", "$T"),
        wrong("$J", "2147483648", "$T", "22003"),
        wrong("$J", "-2147483649", "$T", "22003"),
        wrong("$J", "1.5", "$T", "22P02"),
        wrong("$J", "null", "$T", "stale"),
        wrong("null", "$A", "$T", "stale"),
        wrong("$J", "$A", "null", "stale"),
        wrong("x", "$A", "$T", "22P02"),
        wrong("0190a7b6-0000-4000-8000-00000000000", "$A", "$T", "22P02"),
        wrong("$J", "$A", "0190a7b6-0000-4000-8000-00000000000g", "22P02"),
        wrong("7", "$A", "$T", "22P02"),
        entry("x", "$J", "$A", "$T", "22P02", 422),
        entry("null", "$J", "$A", "$T", "RL422", 422),
    ]
}

const ENTRY: &str = r#"{"job_id":"$J","attempt":$A,"token":"$T""#;
const THREE: &str = "'$W', '{$J}', '{$A}', '{$T}'";

fn call(
    sql: impl Into<String>,
    code: &'static str,
    path: &'static str,
    body: impl Into<String>,
    status: u16,
) -> Call {
    Call { sql: sql.into(), code, path, body: body.into(), status }
}

fn sql(sql: impl Into<String>, code: &'static str) -> Call {
    call(sql, code, "", "", 0)
}

fn http(path: &'static str, body: impl Into<String>, status: u16) -> Call {
    call("", "", path, body, status)
}

/// Calls that are refused as a whole.
pub(super) fn of_workers() -> Vec<Call> {
    [acquires(), arrays(), extras(), bodies()].into_iter().flatten().collect()
}

fn acquires() -> Vec<Call> {
    let acquire = |arguments: &str, code, field: &str| {
        let body = if field.contains("\"queues\"") {
            String::new()
        } else {
            r#""queues":["default"],"#.to_owned()
        };
        let status = if code == "RL413" { 413 } else { 422 };
        let body = format!(r#"{{"worker":"$W",{body}{field}}}"#);
        call(format!("acquire('$W', {arguments})"), code, "/v1/acquire", body, status)
    };
    let more = |arguments: &str, code, field: &str| {
        acquire(&format!("'{{default}}', {arguments}"), code, field)
    };
    let names = |count: usize| vec!["\"q\""; count].join(",");
    let mut calls = vec![
        acquire("'{}'", "RL422", r#""queues":[]"#),
        acquire("null", "RL422", r#""queues":null"#),
        acquire("'{null}'", "RL422", r#""queues":[null]"#),
        acquire("'{\"\"}'", "RL422", r#""queues":[""]"#),
        acquire("'{\"a b\"}'", "RL422", r#""queues":["a b"]"#),
        acquire(
            "array_fill('q'::text, array[101])",
            "RL413",
            &format!("\"queues\":[{}]", names(101)),
        ),
        acquire(
            "array[repeat('q', 129)]",
            "RL422",
            &format!("\"queues\":[\"{}\"]", "q".repeat(129)),
        ),
        more("0", "RL422", r#""max_jobs":0"#),
        more("-1", "RL422", r#""max_jobs":-1"#),
        more("1001", "RL422", r#""max_jobs":1001"#),
        more("2147483647", "RL422", r#""max_jobs":2147483647"#),
        more("'2147483648'", "22003", r#""max_jobs":2147483648"#),
        more("'1.5'", "22P02", r#""max_jobs":1.5"#),
        more("'x'", "22P02", r#""max_jobs":"3""#),
        more("1, '0'", "RL422", r#""lease":"0s""#),
        more("1, '-1 s'", "RL422", r#""lease":"-1 s""#),
        more("1, '25 h'", "RL422", r#""lease":"25 hours""#),
        more("1, 'soon'", "22007", r#""lease":"soon""#),
        more("1, kinds => '{null}'", "RL422", r#""kinds":[null]"#),
        more("1, kinds => '{\"\"}'", "RL422", r#""kinds":[""]"#),
        more(
            "1, kinds => array_fill('k'::text, array[1001])",
            "RL413",
            &format!("\"kinds\":[{}]", names(1001)),
        ),
        more("1, name => ''", "RL422", r#""name":"""#),
        more("1, name => repeat('n', 129)", "RL422", &format!("\"name\":\"{}\"", "n".repeat(129))),
        more("1, capacity => 0", "RL422", r#""capacity":0"#),
        more("1, capacity => -2147483648", "RL422", r#""capacity":-2147483648"#),
        more("1, metadata => '[1e131071]'", "RL422", r#""metadata":[1e131071]"#),
        more("1, metadata => '\"\\u0000\"'", "22P05", r#""metadata":"\u0000""#),
        more(
            "1, metadata => to_jsonb(repeat('x', 262143))",
            "RL413",
            &format!("\"metadata\":\"{}\"", "x".repeat(262_143)),
        ),
        more(
            "1, call_number => '9223372036854775808'",
            "22003",
            r#""call_number":9223372036854775808"#,
        ),
        sql("acquire(null, '{default}')", "RL422"),
        sql("acquire('$W', '{default}', null)", "RL422"),
        sql("acquire('$W', '{default}', 1, null)", "RL422"),
        // Before 17 no interval was infinite.
        sql("acquire('$W', '{default}', 1, 'infinity')", "22007|RL422"),
    ];
    for (field, status) in [
        (r#""wait_ms":-1"#, 422),
        (r#""wait_ms":1.5"#, 422),
        (r#""wait_ms":18446744073709551616"#, 422),
        (r#""wait_ms":1e999"#, 400),
        (r#""inputs":1"#, 422),
        (r#""prio":1"#, 422),
        (r#""max_jobs":1,"max_jobs":2"#, 422),
    ] {
        calls.push(http(
            "/v1/acquire",
            format!(r#"{{"worker":"$W","queues":["default"],{field}}}"#),
            status,
        ));
    }
    calls
}

fn arrays() -> Vec<Call> {
    let mut calls = Vec::new();
    for (verb, more) in [
        ("complete", ""),
        ("fail", ""),
        ("release", ""),
        ("heartbeat", ""),
        ("snooze", ", '{2027-01-01Z}'"),
    ] {
        for (arguments, code) in [
            ("null, '{$J}', '{$A}', '{$T}'", "RL422"),
            ("'$W', null, '{$A}', '{$T}'", "RL422"),
            ("'$W', '{$J}', null, '{$T}'", "RL422"),
            ("'$W', '{$J}', '{$A}', null", "RL422"),
            ("'$W', '{$J,$J}', '{$A}', '{$T}'", "RL422"),
            ("'$W', '{$J}', '{$A,$A}', '{$T}'", "RL422"),
            ("'$W', '{$J}', '{$A}', '{}'", "RL422"),
            ("'$W', '{{$J},{$J}}', '{$A}', '{$T}'", "RL422"),
            ("'$W', '{$J}', '{{$A,$A},{$A,$A}}', '{$T}'", "RL422"),
        ] {
            calls.push(sql(format!("{verb}({arguments}{more})"), code));
        }
        let many = "array_fill('$J'::uuid, array[10001]), array_fill($A, array[10001]), array_fill('$T'::uuid, array[10001])";
        let more = if more.is_empty() {
            ""
        } else {
            ", array_fill(timestamptz '2027-01-01Z', array[10001])"
        };
        calls.push(sql(format!("{verb}('$W', {many}{more})"), "RL413"));
    }
    calls
}

fn extras() -> Vec<Call> {
    let entry = |more: &str| format!(r#"{{"worker":"$W","executions":[{ENTRY},{more}}}]}}"#);
    let (fail, snooze) = ("/v1/executions/fail", "/v1/executions/snooze");
    let mut calls = Vec::new();
    for (at, code) in [
        ("infinity", "RL422"),
        ("-infinity", "RL422"),
        ("1969-12-31T23:59:59Z", "RL422"),
        ("2999-01-01T00:00:00Z", "RL422"),
        ("294277-01-01T00:00:00Z", "22008"),
        ("2027-02-30T00:00:00Z", "22008"),
        ("soon", "22007"),
    ] {
        calls.push(call(
            format!("fail({THREE}, retry_at => '{{{at}}}')"),
            code,
            fail,
            entry(&format!("\"retry_at\":\"{at}\"")),
            422,
        ));
        calls.push(call(
            format!("snooze({THREE}, '{{{at}}}')"),
            code,
            snooze,
            entry(&format!("\"until\":\"{at}\"")),
            422,
        ));
    }
    calls.extend([
        sql(format!("fail({THREE}, '{{a,b}}')"), "RL422"),
        sql(format!("fail({THREE}, discard => '{{t,f}}')"), "RL422"),
        sql(format!("fail({THREE}, discard => '{{maybe}}')"), "22P02"),
        sql(format!("complete({THREE}, array['1', '2']::jsonb[])"), "RL422"),
        sql(format!("complete({THREE}, array['\"\\u0000\"']::jsonb[])"), "22P05"),
        sql(format!("snooze({THREE}, null)"), "RL422"),
        sql(format!("snooze({THREE}, '{{null}}')"), "RL422"),
        sql(format!("heartbeat({THREE}, '0 s')"), "RL422"),
        sql(format!("heartbeat({THREE}, '25 h')"), "RL422"),
        sql(format!("heartbeat({THREE}, null)"), "RL422"),
        http(fail, entry(r#""discard":"yes""#), 422),
        http(fail, entry(r#""error":7"#), 422),
        http(fail, entry(r#""error":["a"]"#), 422),
        http(fail, entry(r#""prio":1"#), 422),
        http(snooze, entry(r#""until":null"#), 422),
        http(snooze, format!(r#"{{"worker":"$W","executions":[{ENTRY}}}]}}"#), 422),
        http("/v1/executions/release", entry(r#""result":1"#), 422),
    ]);
    calls
}

fn bodies() -> Vec<Call> {
    let mut calls = Vec::new();
    for path in [
        "/v1/executions/complete",
        "/v1/executions/fail",
        "/v1/executions/release",
        "/v1/executions/snooze",
    ] {
        for (body, status) in [
            ("", 400),
            ("[", 422),
            ("null", 422),
            ("[]", 422),
            ("7", 422),
            ("{}", 422),
            (r#"["$W",[]]"#, 422),
            (r#"{"worker":"$W"}"#, 422),
            (r#"{"worker":"$W","executions":{}}"#, 422),
            (r#"{"worker":"$W","executions":[1]}"#, 422),
            (r#"{"worker":"$W","executions":[["$J",1,"$T"]]}"#, 422),
            (r#"{"worker":"$W","worker":"$W","executions":[]}"#, 422),
            (r#"{"worker":"$W","executions":[]} x"#, 400),
            (r#"{"worker":"$W","executions":[],"\u0077orker2":1}"#, 422),
        ] {
            calls.push(http(path, body, status));
        }
    }
    for (body, status) in [
        (r#"{"executions":[],"lease":"0s"}"#, 422),
        (r#"{"executions":[],"lease":30}"#, 422),
        (r#"{"executions":[],"seen_call":9223372036854775808}"#, 422),
        (r#"{"executions":[],"seen_call":"1"}"#, 422),
        (r#"{"lease":"30s"}"#, 422),
    ] {
        calls.push(http("/v1/workers/$W/heartbeat", body, status));
    }
    calls
}
