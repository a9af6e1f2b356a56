//! Tokens from the command line to a service of its own, which may read them and no more.

use std::time::Duration;

use rowlock::model::ApiToken;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Db, Service, rowlock, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
const WORKER: &str = "01900000-0000-7000-8000-000000000001";

async fn token(url: &str, arguments: &[&str]) -> Result<String, String> {
    let arguments = [&["token"], arguments, &["--database-url", url]].concat();
    let output = rowlock(&arguments).output().await.expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

async fn status(service: &Service, token: &str) -> u16 {
    ask(service, token, "GET /v1/jobs", &Value::Null).await
}

async fn ask(service: &Service, token: &str, line: &str, body: &Value) -> u16 {
    let mut stream = TcpStream::connect(service.address()).await.expect("connects");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[tokio::test]
async fn a_token_is_made_shown_once_used_rotated_and_revoked() {
    let db = Db::new().await;
    let owner = db.url();
    let as_service = db.login(&["service"]).await;
    let everywhere =
        ["--database-url", &as_service, "--tokens", "--log", "trace", "--listen", "0.0.0.0:0"];
    let service = Service::start(&everywhere).await;
    let create = ["create", "--name", "ci", "--action", "observe", "--queue", "etl/*"];
    let made = token(&owner, &create).await.expect("made");
    let parsed = ApiToken::parse(&made).expect("a token and nothing else is printed");
    assert_eq!(status(&service, &made).await, 200);
    assert_eq!(status(&service, "").await, 401);

    let listed = token(&owner, &["list", "--json"]).await.expect("listed");
    let json: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&json["id"], &json["state"]), (&parsed.id().into(), &"live".into()));
    assert_eq!(json["queues"], json!(["etl/*"]));
    assert!(json["last_used_at"].is_string(), "{json}");
    let table = token(&owner, &["list"]).await.expect("listed");
    let digest: String = parsed.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = &made[made.len() - 72..];
    for shown in [&listed, &table] {
        assert!(shown.contains(parsed.id()), "{shown}");
        assert!(!shown.contains(&secret[..16]) && !shown.contains(&digest[..16]), "{shown}");
    }
    let rotate = ["rotate", parsed.id(), "--overlap", "1d", "--expires", "90d"];
    let next = token(&owner, &rotate).await.expect("rotated");
    assert_ne!(made, next);
    for good in [&made, &next] {
        assert_eq!(status(&service, good).await, 200);
    }
    assert_eq!(token(&owner, &["revoke", parsed.id()]).await.expect("revoked"), "revoked");
    wait_until("it is refused", DEADLINE, || async { status(&service, &made).await == 401 }).await;
    assert_eq!(status(&service, &next).await, 200);

    let create = ["create", "--name", "etl", "--action", "work", "--queue", "etl"];
    let worker = token(&owner, &create).await.expect("made");
    let take = |queue| json!({"worker": WORKER, "queues": [queue]});
    assert_eq!(ask(&service, &worker, "POST /v1/acquire", &take("etl")).await, 200);
    assert_eq!(ask(&service, &worker, "POST /v1/acquire", &take("mail")).await, 403);
    let beat = json!({"executions": []});
    assert_eq!(
        ask(&service, &worker, &format!("POST /v1/workers/{WORKER}/heartbeat"), &beat).await,
        200
    );

    // The service's own login makes none and ends none.
    let create = ["create", "--name", "ci", "--action", "observe"];
    let next_id = ApiToken::parse(&next).expect("a token").id().to_owned();
    for verb in [&create[..], &["rotate", &next_id], &["revoke", &next_id]] {
        let refused = token(&as_service, verb).await.expect_err("it may not");
        assert!(refused.contains("permission denied"), "{refused}");
    }
    let unknown = token(&owner, &["revoke", "0000000000000000"]).await.expect_err("unknown");
    assert!(unknown.contains("RL404"), "{unknown}");

    // A burst of guesses is looked at no more, and does no harm to who is known.
    let guess = || ApiToken::generate().expose().to_owned();
    wait_until("guesses are refused unseen", DEADLINE, || async {
        status(&service, &guess()).await == 429
    })
    .await;
    // Longer than it is remembered.
    let patience = std::time::Instant::now() + Duration::from_secs(7);
    while std::time::Instant::now() < patience {
        assert!(matches!(status(&service, &guess()).await, 401 | 429));
        assert_eq!(status(&service, &next).await, 200);
    }
    let log = service.log();
    assert!(log.contains(&format!("token=\"{}\"", parsed.id())), "who asked is in the log");
    for made in [&made, &next] {
        assert!(!log.contains(&made[made.len() - 72..][..16]), "a secret is in the log");
    }
    drop(service);
    db.finish().await;
}
