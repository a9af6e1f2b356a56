//! Tokens of the HTTP API: what their functions refuse.

use crate::harness::Db;
use crate::harness::sql::{refused, run, value};

fn create(id: &str, rest: &str) -> String {
    format!("select create_token('{id}', sha256('{id}'), {rest})")
}

const ID: &str = "0123456789abcdef";

#[tokio::test]
async fn a_token_that_would_allow_something_else_is_refused() {
    let db = Db::new().await;
    let client = db.connect().await;
    let long = "x".repeat(129);
    let many = format!("array_fill('q'::text, array[{}])", 101);
    for (rest, code, message) in [
        ("null, '{work}'", "RL422", "name is not valid"),
        ("'', '{work}'", "RL422", "name is not valid"),
        (&format!("'{long}', '{{work}}'"), "RL422", "name is not valid"),
        ("'n', null", "RL422", "actions is not valid"),
        ("'n', '{}'", "RL422", "actions is not valid"),
        ("'n', '{work,NULL}'", "RL422", "actions is not valid"),
        ("'n', '{work,everything}'", "RL422", "actions is not valid"),
        ("'n', '{work}', '{}'", "RL422", "queues is not valid"),
        ("'n', '{work}', '{NULL}'", "RL422", "queues is not valid"),
        ("'n', '{work}', '{a b}'", "RL422", "queues is not valid"),
        ("'n', '{work}', '{*a}'", "RL422", "queues is not valid"),
        ("'n', '{work}', '{a**}'", "RL422", "queues is not valid"),
        ("'n', '{work}', '{%}'", "RL422", "queues is not valid"),
        (&format!("'n', '{{work}}', {many}"), "RL413", "a token takes at most 100 queues"),
        ("'n', '{work}', '{a}', '0'", "RL422", "expires_in is not valid"),
        ("'n', '{work}', '{a}', '-1 day'", "RL422", "expires_in is not valid"),
        ("'n', '{work}', '{a}', '4000 days'", "RL422", "expires_in is not valid"),
    ] {
        let error = refused(&client, code, &create(ID, rest)).await;
        assert_eq!(error.message(), message, "{rest}");
    }
    run(&client, &create(ID, "'n', '{work,observe}', '{a,etl/*,*}', '1 day'")).await;
    refused(&client, "23505", &create(ID, "'n', '{work}'")).await;
    refused(&client, "23514", &create("short", "'n', '{work}'")).await;
    let digest = "select create_token('1123456789abcdef', 'x', 'n', '{work}')";
    refused(&client, "23514", digest).await;
    db.finish().await;
}

#[tokio::test]
async fn only_a_live_token_is_rotated_and_never_made_to_last() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, &create(ID, "'n', '{work}', '{a}', '1 hour'")).await;
    let rotate = |new: &str, overlap: &str| {
        format!("select rotate_token('{ID}', '{new}', sha256('{new}'), {overlap})")
    };
    refused(&client, "RL422", &rotate("1123456789abcdef", "null")).await;
    refused(&client, "RL422", &rotate("1123456789abcdef", "'-1 s'")).await;
    run(&client, &rotate("1123456789abcdef", "'1 day'")).await;
    let kept = "select expires_at < clock_timestamp() + interval '2 hours' from tokens
                where id = '0123456789abcdef'";
    assert!(value::<bool>(&client, kept).await, "an overlap does not lengthen it");
    run(&client, &rotate("2123456789abcdef", "'0'")).await;
    refused(&client, "RL404", &rotate("3123456789abcdef", "'1 day'")).await;
    refused(&client, "RL404", "select revoke_token('none')").await;
    assert_eq!(value::<i64>(&client, "select count(*) from tokens").await, 3);
    db.finish().await;
}

#[tokio::test]
async fn a_use_is_noted_once_a_minute() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, &create(ID, "'n', '{work}'")).await;
    let touch = format!("select touch_token('{ID}')");
    let version = "select xmin::text || last_used_at::text from tokens";
    run(&client, &touch).await;
    let first: String = value(&client, version).await;
    run(&client, &touch).await;
    assert_eq!(value::<String>(&client, version).await, first, "nothing is written");
    run(&client, "update tokens set last_used_at = last_used_at - interval '61 s'").await;
    run(&client, &touch).await;
    let recent = "select last_used_at > clock_timestamp() - interval '30 s' from tokens";
    assert!(value::<bool>(&client, recent).await);
    db.finish().await;
}
