//! The service as a process: its start, its end, and its sudden death.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rowlock::embedded::{self, Profile, Status};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_postgres::config::Host;
use uuid::Uuid;

use crate::harness::{Db, Service, rowlock, wait_until};

const SOON: Duration = Duration::from_secs(30);

const LONG_POLL: &str = r#"{"worker":"01900000-0000-7000-8000-000000000001","queues":["q"],
    "wait_ms":30000}"#;

#[tokio::test]
async fn without_a_database_url_it_brings_its_own() {
    let folder = embedded::fresh_data_dir(Profile::Throwaway);
    let data_dir = folder.to_str().expect("a plain path");
    let first = Service::start(&["--data-dir", data_dir]).await;
    assert_eq!(first.request("GET", "/readyz", "").await.0, 200);
    assert!(first.log().contains(&format!("started a Postgres in {data_dir}")), "{}", first.log());
    let (status, job) = first.request("POST", "/v1/jobs", r#"{"kind":"test"}"#).await;
    assert_eq!(status, 201, "{job}");

    // A second one finds the Postgres of the first, and leaves it alone when it ends.
    let second = Service::start(&["--data-dir", data_dir]).await;
    second.signal(Signal::SIGTERM);
    assert!(second.ended().await.0.success());
    assert_eq!(first.request("GET", "/readyz", "").await.0, 200);

    // Killed, it leaves its Postgres behind, and the next goes on with it.
    first.signal(Signal::SIGKILL);
    first.ended().await;
    assert!(matches!(embedded::status(&folder).await, Ok(Status::Running(_))));
    let third = Service::start(&["--data-dir", data_dir]).await;
    let (_, jobs) = third.request("GET", "/v1/jobs", "").await;
    assert!(jobs.contains(r#""kind":"test""#), "{jobs}");
    third.signal(Signal::SIGTERM);
    assert!(third.ended().await.0.success());
    let Ok(Status::Running(cluster)) = embedded::status(&folder).await else {
        panic!("a Postgres that ran before was stopped");
    };
    cluster.stop().await.expect("stops");

    // What it has started itself, it stops.
    let fourth = Service::start(&["--data-dir", data_dir]).await;
    fourth.signal(Signal::SIGINT);
    assert!(fourth.ended().await.0.success());
    assert!(matches!(embedded::status(&folder).await, Ok(Status::Stopped)));
    std::fs::remove_dir_all(&folder).expect("can be removed");
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_returns_long_polls() {
    let db = Db::new().await;
    let service = Arc::new(Service::start(&["--database-url", &db.url()]).await);
    service.request("POST", "/v1/jobs", r#"{"kind":"test","queue":"slow"}"#).await;
    let take = LONG_POLL.replace(r#""q""#, r#""slow""#);
    let (_, taken) = service.request("POST", "/v1/acquire", &take).await;
    let taken: serde_json::Value = serde_json::from_str(&taken).expect("JSON");
    let job = &taken["jobs"][0];
    let complete = serde_json::json!({
        "worker": "01900000-0000-7000-8000-000000000001",
        "executions": [{"job_id": job["job_id"], "attempt": job["attempt"], "token": job["token"]}],
    });

    let polling = {
        let service = service.clone();
        tokio::spawn(async move { service.request("POST", "/v1/acquire", LONG_POLL).await })
    };
    let observer = db.connect().await;
    let watched = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock'
                   and database = (select oid from pg_database where datname = current_database())";
    wait_until("the long poll sleeps", SOON, || async {
        observer.query_one(watched, &[]).await.expect("reads").get::<_, i64>(0) == 1
    })
    .await;
    let holder = db.connect().await;
    holder.batch_execute("begin; select from executions for update").await.expect("locks");
    let completing = {
        let service = service.clone();
        let body = complete.to_string();
        tokio::spawn(async move { service.request("POST", "/v1/executions/complete", &body).await })
    };
    let blocked = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
    wait_until("the completion waits", SOON, || async {
        observer.query_one(blocked, &[]).await.expect("reads").get::<_, i64>(0) == 1
    })
    .await;

    let began = Instant::now();
    service.signal(Signal::SIGTERM);
    let (status, body) = polling.await.expect("joins");
    assert_eq!((status, body.as_str()), (200, r#"{"jobs":[]}"#));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    wait_until("new connections are refused", SOON, || async {
        TcpStream::connect(service.address()).await.is_err()
    })
    .await;
    assert!(!completing.is_finished());
    holder.batch_execute("rollback").await.expect("lets go");
    let (status, body) = completing.await.expect("joins");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("completed"), "{body}");
    let service = Arc::into_inner(service).expect("the tasks have ended");
    let (status, log) = service.ended().await;
    assert!(status.success(), "{status}: {log}");
    drop((observer, holder));
    db.finish().await;
}

#[tokio::test]
async fn a_killed_service_has_kept_what_it_acknowledged() {
    let db = Db::new().await;
    let url = db.url();
    let arguments = ["--database-url", url.as_str(), "--maintenance-interval", "200ms"];
    let service = Arc::new(Service::start(&arguments).await);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (service, stop) = (service.clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let id = Uuid::now_v7();
                    let body = format!(r#"{{"kind":"test","queue":"q","id":"{id}"}}"#);
                    match service.try_request("POST", "/v1/jobs", &body).await {
                        Some((201, _)) => acknowledged.push(id),
                        Some(other) => panic!("{other:?}"),
                        None => break,
                    }
                }
                acknowledged
            })
        })
        .collect();
    let observer = db.connect().await;
    wait_until("it is in full swing", SOON, || async {
        let query = "select count(*) > 100 from jobs";
        observer.query_one(query, &[]).await.expect("reads").get(0)
    })
    .await;
    // A worker takes some, and will never be heard of again.
    let take = LONG_POLL.replace('}', r#","max_jobs":20,"lease":"1s"}"#);
    let (status, taken) = service.request("POST", "/v1/acquire", &take).await;
    assert_eq!(status, 200, "{taken}");
    service.signal(Signal::SIGKILL);
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for caller in callers {
        acknowledged.extend(caller.await.expect("joins"));
    }
    assert!(100 < acknowledged.len(), "{}", acknowledged.len());
    let known = "select count(*) from jobs where id = any($1)";
    let found: i64 = observer.query_one(known, &[&acknowledged]).await.expect("reads").get(0);
    assert_eq!(usize::try_from(found), Ok(acknowledged.len()));

    let service = Service::start(&arguments).await;
    wait_until("the lost worker's jobs are ready again", SOON, || async {
        let query = "select count(*) = 20 from executions where outcome = 'lost'";
        observer.query_one(query, &[]).await.expect("reads").get(0)
    })
    .await;
    service.signal(Signal::SIGTERM);
    assert!(service.ended().await.0.success());
    drop(observer);
    db.finish().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_unless_the_next_will_do() {
    let db = Db::new().await;
    let url = db.url();
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("it has one").to_string();
    let arguments = ["serve", "--listen", &address, "--database-url", &url];
    let output = rowlock(&arguments).output().await.expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(&format!("{address} is in use")), "{said}");
    assert!(said.contains("--port-fallback"), "{said}");

    let arguments = ["--listen", &address, "--port-fallback", "--database-url", &url];
    let service = Service::start(&arguments).await;
    assert_ne!(service.address(), address);
    assert!(service.log().contains(&format!("{address} is in use")), "{}", service.log());
    assert_eq!(service.request("GET", "/healthz", "").await.0, 200);
    service.signal(Signal::SIGTERM);
    assert!(service.ended().await.0.success());
    db.finish().await;
}

#[tokio::test]
async fn it_refuses_to_start_where_it_should_not() {
    let db = Db::new().await;
    let url = db.url();
    let free = "127.0.0.1:0";
    for (arguments, reason) in [
        (vec!["--listen", "0.0.0.0:0"], "there is no ROWLOCK_TOKEN"),
        (vec!["--listen", free, "--schema", "nobody", "--no-migrate"], "run `rowlock migrate`"),
        (vec!["--listen", free, "--pool-size", "1"], "ROWLOCK_POOL_SIZE is 1"),
    ] {
        let mut command = rowlock(&["serve", "--database-url", &url]);
        let output = command.args(&arguments).output().await.expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said.contains(reason), "{said}");
    }
    let nowhere = "postgres://nowhere.invalid/x";
    let mut command = rowlock(&["serve", "--listen", free, "--database-url", nowhere]);
    command.args(["--connect-timeout", "200ms"]);
    let output = command.output().await.expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("waiting up to 0.6 s for the database"), "{said}");
    assert!(said.contains("the database is not available"), "{said}");
    db.finish().await;
}

#[tokio::test]
async fn a_database_that_is_away_at_start_is_waited_for() {
    let db = Db::new().await;
    let config: tokio_postgres::Config = db.url().parse().expect("a url");
    let host = config.get_hosts()[0].clone();
    let port = config.get_ports().first().copied().unwrap_or(5432);
    // The port is known, and nobody listens on it yet.
    let door = tokio::net::TcpSocket::new_v4().expect("a socket");
    door.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let there = door.local_addr().expect("it has one");
    let mut url = format!("host=127.0.0.1 port={}", there.port());
    url += &format!(" dbname={}", config.get_dbname().expect("a database"));
    url += &format!(" user={}", config.get_user().expect("a user"));
    if let Some(password) = config.get_password() {
        url += &format!(" password={}", String::from_utf8_lossy(password));
    }
    let mut command = rowlock(&["serve", "--listen", "127.0.0.1:0", "--database-url", &url]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    while !said.contains("waiting up to 15 s for the database") {
        let line = tokio::time::timeout(SOON, log.next_line()).await.expect("it says so in time");
        said += &line.expect("readable").unwrap_or_else(|| panic!("it ended: {said}"));
    }
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    let listener = door.listen(16).expect("listens");
    tokio::spawn(async move {
        while let Ok((mut inside, _)) = listener.accept().await {
            let host = host.clone();
            tokio::spawn(async move {
                match host {
                    Host::Tcp(name) => {
                        let mut to = TcpStream::connect((name.as_str(), port)).await?;
                        copy_bidirectional(&mut inside, &mut to).await
                    }
                    Host::Unix(folder) => {
                        let socket = folder.join(format!(".s.PGSQL.{port}"));
                        let mut to = UnixStream::connect(socket).await?;
                        copy_bidirectional(&mut inside, &mut to).await
                    }
                }
            });
        }
    });
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = tokio::time::timeout(SOON, lines.next_line()).await.expect("it starts in time");
    let line = line.expect("readable").unwrap_or_default();
    assert!(line.starts_with("listening on http://"), "{line}");
    child.kill().await.expect("ends");
    db.finish().await;
}

#[tokio::test]
async fn headers_that_never_end_are_cut_off() {
    let db = Db::new().await;
    let url = db.url();
    let arguments = ["--database-url", url.as_str(), "--header-timeout", "300ms"];
    let service = Service::start(&arguments).await;
    let mut stream = TcpStream::connect(service.address()).await.expect("connects");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").await.expect("writes");
    let mut rest = Vec::new();
    let cut = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    cut.expect("the connection is closed in time").expect("closed, not broken");
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    service.signal(Signal::SIGTERM);
    assert!(service.ended().await.0.success());
    db.finish().await;
}
