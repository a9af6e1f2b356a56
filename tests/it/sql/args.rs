//! The limits of args, exactly at their bounds, and bombs that are small until they are measured.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::harness::Db;
use crate::harness::sql::{enqueue, refused, value};

/// A bomb takes many seconds to be written out; a refusal takes milliseconds.
const QUICK: Duration = Duration::from_secs(1);

async fn refused_quickly(client: &Client, code: &str, sql: &str) -> String {
    let started = Instant::now();
    let error = refused(client, code, sql).await;
    assert!(started.elapsed() < QUICK, "{:.80} took {:?}", sql, started.elapsed());
    error.message().to_owned()
}

#[tokio::test]
async fn args_of_256_kib_are_the_largest() {
    let db = Db::new().await;
    let client = db.connect().await;
    // `"` + text + `"`, and two bytes for each é.
    let fits = ["to_jsonb(repeat('x', 262142))", "to_jsonb(repeat('é', 131071))"];
    for args in fits {
        enqueue(&client, &format!("'a', {args}")).await;
    }
    let largest: i32 = value(&client, "select min(args_bytes) from jobs").await;
    assert_eq!(largest, 262_144);
    let sql = "select enqueue('a', to_jsonb(repeat('x', 262143)))";
    let error = refused(&client, "RL413", sql).await;
    assert_eq!(error.message(), "args is too large");
    assert_eq!(error.detail(), Some("more than 262144 bytes as text"));
    let sql = "select enqueue_many(jsonb_build_array('{\"kind\": \"a\"}'::jsonb,
        jsonb_build_object('kind', 'a', 'args', repeat('é', 131072))))";
    let error = refused(&client, "RL413", sql).await;
    assert_eq!(error.message(), "args of job 2 is too large");
    assert_eq!(value::<i64>(&client, "select count(*) from jobs").await, 2);
    db.finish().await;
}

#[tokio::test]
async fn args_nest_64_levels_deep() {
    let db = Db::new().await;
    let client = db.connect().await;
    let nest = |open: &str, inner: &str, close: &str, levels: usize| {
        format!("'a', '{}{inner}{}'", open.repeat(levels), close.repeat(levels))
    };
    for (open, inner, close) in [("[", "", "]"), ("[", "1", "]"), ("{\"a\":", "{}", "}")] {
        let levels = if inner == "{}" { 63 } else { 64 };
        enqueue(&client, &nest(open, inner, close, levels)).await;
        let call = format!("select enqueue({})", nest(open, inner, close, levels + 1));
        let error = refused(&client, "RL422", &call).await;
        assert_eq!(error.message(), "args is nested too deep", "{call}");
        let wide = format!("select enqueue({})", nest(open, inner, close, 3000));
        refused_quickly(&client, "RL422", &wide).await;
    }
    assert_eq!(value::<i64>(&client, "select count(*) from jobs").await, 3);
    db.finish().await;
}

#[tokio::test]
async fn numbers_have_at_most_1000_digits_and_places() {
    let db = Db::new().await;
    let client = db.connect().await;
    let nines = |n: usize| "9".repeat(n);
    let fits = [
        nines(1000),
        format!("-{}", nines(1000)),
        "1e999".to_owned(),
        "-1e999".to_owned(),
        "1e-1000".to_owned(),
        "-1e-1000".to_owned(),
        format!("0.{}", nines(1000)),
        format!("-0.{}", nines(1000)),
        format!("{}.{}", nines(500), nines(500)),
        format!("-{}.{}", nines(999), nines(1)),
        "0".to_owned(),
        "0e-1000".to_owned(),
    ];
    for number in &fits {
        for args in [number.clone(), format!("{{\"a\": [1, {number}]}}")] {
            let job = enqueue(&client, &format!("'a', '{args}'")).await;
            let kept =
                format!("select args::text = '{args}'::jsonb::text from jobs where id = '{job}'");
            assert!(value::<bool>(&client, &kept).await, "{args} is kept digit for digit");
        }
    }
    let over = [
        nines(1001),
        format!("-{}", nines(1001)),
        "1e1000".to_owned(),
        "-1e1000".to_owned(),
        "1e131071".to_owned(),
        "1e-1001".to_owned(),
        "-1e-1001".to_owned(),
        "0e-1001".to_owned(),
        format!("0.{}", nines(1001)),
        format!("{}.{}", nines(500), nines(501)),
        format!("1.{}", nines(1000)),
    ];
    for number in &over {
        for args in [number.clone(), format!("{{\"a\": [1, {number}]}}")] {
            let error = refused(&client, "RL422", &format!("select enqueue('a', '{args}')")).await;
            assert_eq!(error.message(), "args has a number out of range", "{args}");
        }
    }
    db.finish().await;
}

#[tokio::test]
async fn long_digits_in_strings_are_no_numbers() {
    let db = Db::new().await;
    let client = db.connect().await;
    enqueue(&client, "'a', jsonb_build_object('d', repeat('9', 100000), repeat('8', 5000), 1)")
        .await;
    enqueue(&client, "'a', to_jsonb('1e131071'::text)").await;
    db.finish().await;
}

#[tokio::test]
async fn number_bombs_are_refused_quickly() {
    let db = Db::new().await;
    let client = db.connect().await;
    let bombs = ["1e131071", "-1e131071", "1e-16383", "0e-16383"];
    for number in bombs {
        let many = format!("'[{}]'::jsonb", vec![number; 9000].join(","));
        let message =
            refused_quickly(&client, "RL422", &format!("select enqueue('a', {many})")).await;
        assert_eq!(message, "args has a number out of range");
        let batch = format!(
            "select enqueue_many(jsonb_build_array(jsonb_build_object(
            'kind', 'a', 'args', {many})))"
        );
        let message = refused_quickly(&client, "RL422", &batch).await;
        assert_eq!(message, "args of job 1 has a number out of range");
        for elsewhere in [
            format!("select enqueue_many(jsonb_build_array({many}))"),
            format!("select enqueue_many(jsonb_build_object('a', {many}))"),
            format!("select enqueue_many(jsonb_build_array(jsonb_build_object('kind', {many})))"),
            format!(
                "select enqueue_many(jsonb_build_array(jsonb_build_object('kind', 'a', 'depends_on', {many})))"
            ),
        ] {
            refused_quickly(&client, "RL422", &elsewhere).await;
        }
    }
    for field in ["priority", "max_attempts", "id", "run_at", "timeout"] {
        let job = format!("{{\"kind\": \"a\", \"{field}\": 1e131071}}");
        let batch = format!("select enqueue_many('[{}]')", vec![job; 9000].join(","));
        let message = refused_quickly(&client, "RL422", &batch).await;
        assert_eq!(message, format!("{field} of job 1 is not valid"));
    }
    db.finish().await;
}
