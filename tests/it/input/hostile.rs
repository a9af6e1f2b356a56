//! Clients that mean no good, on real sockets: each is cut off, and others go on being served.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::harness::{Db, Service, wait_until};

const SOON: Duration = Duration::from_secs(30);
/// A good client's patience, on a busy machine.
const PROMPT: Duration = Duration::from_secs(10);
const DRIP: Duration = Duration::from_millis(50);

const BODY_HEAD: &str = "POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

/// A service and its database, with these settings.
async fn serve(settings: &[&str]) -> (Db, Service) {
    let db = Db::new().await;
    let url = db.url();
    let service = Service::start(&[&["--database-url", url.as_str()], settings].concat()).await;
    (db, service)
}

async fn end((db, service): (Db, Service)) {
    service.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(service.ended().await.0.success());
    db.finish().await;
}

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.address()).await.expect("connects")
}

/// Whatever comes until the other side closes, which it must do soon.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut bytes)).await;
    // A reset is an end too.
    let _ = ended.expect("it is cut off in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends these bytes one by one, slowly, until the other side has had enough.
async fn drip(mut stream: TcpStream, head: &str, bytes: &str) -> String {
    stream.write_all(head.as_bytes()).await.expect("writes");
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    let dripping = async {
        for byte in bytes.bytes().cycle() {
            if writing.write_all(&[byte]).await.is_err() {
                // What was answered may not have been read yet.
                std::future::pending::<()>().await;
            }
            sleep(DRIP).await;
        }
    };
    let ending = timeout(SOON, async {
        tokio::select! {
            () = dripping => {}
            _ = reading.read_to_end(&mut answer) => {}
        }
    });
    ending.await.expect("it is cut off in time");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn good_client_is_served(service: &Service) {
    let began = Instant::now();
    let body = r#"{"kind":"good","queue":"good"}"#;
    assert_eq!(service.request("POST", "/v1/jobs", body).await.0, 201);
    let worker = Uuid::new_v4();
    let body = json!({"worker": worker, "queues": ["good"]}).to_string();
    let (_, got) = service.request("POST", "/v1/acquire", &body).await;
    let mut execution = serde_json::from_str::<Value>(&got).expect("JSON")["jobs"][0].take();
    let keep = ["job_id", "attempt", "token"];
    execution.as_object_mut().expect("a job").retain(|key, _| keep.contains(&key.as_str()));
    let body = json!({"worker": worker, "executions": [execution]}).to_string();
    let (status, done) = service.request("POST", "/v1/executions/complete", &body).await;
    assert!(status == 200 && done.contains("completed"), "{done}");
    assert!(began.elapsed() < PROMPT, "a good client waited {:?}", began.elapsed());
}

#[tokio::test]
async fn who_sends_nothing_or_too_slowly_is_cut_off() {
    let served = serve(&["--header-timeout", "300ms", "--transfer-timeout", "600ms"]).await;
    let service = &served.1;
    let silent = async { rest(&mut connect(service).await).await };
    let idle = async {
        let mut stream = connect(service).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
        rest(&mut stream).await
    };
    let headers = async { drip(connect(service).await, "GET / HTTP/1.1\r\n", "x: y\r\n").await };
    let whole = async {
        let head = format!("{BODY_HEAD}content-length: 100000\r\n\r\n");
        drip(connect(service).await, &head, " ").await
    };
    let chunked = async {
        let head = format!("{BODY_HEAD}transfer-encoding: chunked\r\n\r\n1\r\n \r\n");
        drip(connect(service).await, &head, "1\r\n \r\n").await
    };
    let stalled = async {
        let mut stream = connect(service).await;
        let head = format!("{BODY_HEAD}content-length: 100000\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.expect("writes");
        rest(&mut stream).await
    };
    let (silent, idle, headers, whole, chunked, stalled, ()) = tokio::join!(
        silent,
        idle,
        headers,
        whole,
        chunked,
        stalled,
        good_client_is_served(service)
    );
    assert_eq!((silent.as_str(), headers.as_str()), ("", ""));
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
    for answer in [whole, chunked, stalled] {
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("slow_body"), "{answer}");
    }
    end(served).await;
}

#[tokio::test]
async fn who_sends_too_much_is_refused_before_the_end_of_it() {
    let served = serve(&["--body-limit", "100KiB"]).await;
    let service = &served.1;
    let get = |head: String| format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{head}\r\n");
    let endless = |head: &str| (format!("{BODY_HEAD}{head}\r\n\r\n"), "2000\r\n".to_owned());
    let plain = |text: String| (text, String::new());
    for ((head, more), status) in [
        (plain(get(format!("x: {}\r\n", "y".repeat(70_000)))), "431"),
        (plain(get("x: y\r\n".repeat(101))), "431"),
        (plain(format!("GET /{} HTTP/1.1\r\n\r\n", "u".repeat(70_000))), "4"),
        (endless("content-length: 102401"), "413"),
        (endless("content-length: 18446744073709551615"), "4"),
        (endless("content-length: 18446744073709551616"), "400"),
        (endless("content-length: -1"), "400"),
        (endless("content-length: 5\r\ncontent-length: 6"), "400"),
        (endless("transfer-encoding: chunked"), "413"),
        (endless("transfer-encoding: gzip, chunked\r\ncontent-encoding: gzip"), "415"),
    ] {
        let mut stream = connect(service).await;
        let (mut reading, mut writing) = stream.split();
        let mut answer = vec![0; 13];
        let sending = async {
            let _ = writing.write_all(head.as_bytes()).await;
            let piece = format!("{more}{}\r\n", " ".repeat(8192));
            while !more.is_empty() && writing.write_all(piece.as_bytes()).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let answered = timeout(SOON, async {
            tokio::select! {
                () = sending => unreachable!("it is pending"),
                answered = reading.read_exact(&mut answer) => answered,
            }
        });
        let shown: String = head.chars().take(120).collect();
        answered.await.expect("in time").unwrap_or_else(|error| panic!("{shown}: {error}"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown}: {answer}");
    }
    good_client_is_served(service).await;
    end(served).await;
}

#[tokio::test]
async fn who_does_not_read_is_cut_off() {
    let served = serve(&["--transfer-timeout", "500ms"]).await;
    let service = &served.1;
    let jobs = vec![json!({"kind": "k".repeat(128), "queue": "q".repeat(128)}); 500];
    let (status, _) = service.request("POST", "/v1/jobs", &json!(jobs).to_string()).await;
    assert_eq!(status, 201);
    let stream = connect(service).await;
    let request = b"GET /v1/jobs?limit=500 HTTP/1.1\r\nhost: x\r\n\r\n";
    // Asks on and on, and reads nothing: once it is cut off, it can ask no more.
    wait_until("the connection is reset", SOON, || async {
        let written = stream.try_write(request);
        matches!(written, Err(error) if error.kind() != std::io::ErrorKind::WouldBlock)
    })
    .await;
    good_client_is_served(service).await;
    end(served).await;
}

#[tokio::test]
async fn long_bodies_share_a_room_and_short_ones_need_none() {
    let served = serve(&["--body-limit", "100KiB", "--transfer-timeout", "5s"]).await;
    let service = &served.1;
    // 400 KiB of room, and each has 35 KiB of it. The space is no JSON yet, and the end never comes.
    let head = format!("{BODY_HEAD}content-length: 101000\r\n\r\n{}", " ".repeat(100_000));
    let mut stalled = Vec::new();
    for _ in 0..16 {
        let mut stream = connect(service).await;
        stream.write_all(head.as_bytes()).await.expect("writes");
        stalled.push(stream);
    }
    let long = format!(r#"{{"kind":"a","args":"{}"}}"#, "x".repeat(99_000));
    wait_until("a long body finds no room", SOON, || async {
        let (status, answer) = service.request("POST", "/v1/jobs", &long).await;
        status == 503 && answer.contains("overloaded")
    })
    .await;
    good_client_is_served(service).await;
    let mut answers = Vec::new();
    for stream in &mut stalled {
        answers.push(rest(stream).await);
    }
    let some = |status: &str| answers.iter().any(|answer| answer.contains(status));
    assert!(some("HTTP/1.1 408") && some("HTTP/1.1 503"), "{answers:?}");
    assert_eq!(service.request("POST", "/v1/jobs", &long).await.0, 201);
    end(served).await;
}

#[tokio::test]
async fn connections_beyond_the_most_wait_and_those_that_only_take_room_lose_it() {
    let served = serve(&["--max-connections", "16", "--header-timeout", "2s"]).await;
    let service = &served.1;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(connect(service).await);
    }
    // The first twelve have two seconds, each of the others one.
    let status = timeout(SOON, service.request("GET", "/healthz", "")).await.expect("in time").0;
    assert_eq!(status, 200);
    for stream in &mut silent {
        assert_eq!(rest(stream).await, "");
    }
    end(served).await;
}

#[tokio::test]
async fn a_flood_of_connections_and_requests_leaves_room_for_a_good_client() {
    let served = serve(&[]).await;
    let service = &served.1;
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, files, files).expect("as many as there may be");
    let mut silent = Vec::new();
    for _ in 0..2_000 {
        silent.push(connect(service).await);
    }
    let flood = (0..64).map(|number| {
        let address = service.address().to_owned();
        tokio::spawn(async move {
            let path = ["/v1/jobs?limit=500", "/v1/stats", "/v1/workers", "/nowhere"][number % 4];
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            let mut stream = TcpStream::connect(address).await.expect("connects");
            let mut piece = vec![0; 64 << 10];
            while stream.write_all(request.as_bytes()).await.is_ok() {
                if stream.read(&mut piece).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        })
    });
    let flood: Vec<_> = flood.collect();
    for _ in 0..5 {
        good_client_is_served(service).await;
    }
    assert!(flood.iter().all(|client| !client.is_finished()), "the flood ended before");
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    drop(silent);
    end(served).await;
}
