//! TLS to Postgres: what is encrypted, whom it believes, and what it says when it does not.

mod server;

use std::time::Duration;

use rowlock::config::Settings;
use rowlock::db::{Client, Options, Pool, connect};
use rowlock::shutdown::Shutdown;
use rowlock::worker::{Job, Outcome, Worker};
use rowlock::{Client as Rowlock, NewJob};
use tokio::net::TcpListener;

use crate::harness::{Service, rowlock, wait_until};
use server::{NAME, TlsServer};

const DEADLINE: Duration = Duration::from_secs(60);

/// How a connection fares: whether it is encrypted, or what the refusal says.
async fn fares(url: &str) -> Result<bool, String> {
    let client = connect(&url.into()).await.map_err(|error| error.chain())?;
    let query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    Ok(client.query_one(query, &[]).await.expect("query").get(0))
}

/// Tries each; `Err` holds a part of what is said.
async fn all_fare(server: &TlsServer, cases: &[(&str, &str, Result<bool, &str>)]) {
    for (name, parameters, expected) in cases {
        let parameters = parameters.replace("FILE:", &server.file(""));
        let fared = fares(&server.url(name, &parameters)).await;
        let as_expected = match (&fared, expected) {
            (Ok(encrypted), Ok(expected)) => encrypted == expected,
            (Err(said), Err(part)) => said.contains(part),
            _ => false,
        };
        assert!(as_expected, "{name} {parameters}: {fared:?}, not {expected:?}");
    }
}

#[tokio::test]
async fn each_mode_believes_as_much_as_it_says() {
    let server = TlsServer::start().await;
    let other = "other.example";
    let (full, authority) = ("sslmode=verify-full", "sslmode=verify-ca");
    let (ours, another) = ("sslrootcert=FILE:ca.pem", "sslrootcert=FILE:other-ca.pem");
    let with = |mode: &str, root: &str| format!("{mode}&{root}");
    let cases = |list: Vec<(&'static str, String, Result<bool, &'static str>)>| list;
    for (name, parameters, expected) in cases(vec![
        (NAME, "sslmode=disable".into(), Ok(false)),
        (NAME, String::new(), Ok(true)),
        (NAME, "sslmode=allow".into(), Ok(true)),
        (other, "sslmode=require".into(), Ok(true)),
        (NAME, with("sslmode=require", another), Err("give the certificate of its CA")),
        (NAME, with("sslmode=prefer", another), Err("give the certificate of its CA")),
        (other, with("sslmode=require", ours), Ok(true)),
        (other, with(authority, ours), Ok(true)),
        (NAME, with(authority, another), Err("give the certificate of its CA")),
        (NAME, with(full, ours), Ok(true)),
        (NAME, with(full, another), Err("give the certificate of its CA")),
        (other, with(full, ours), Err("subjectAltName")),
        (NAME, with(full, "sslrootcert=FILE:none.pem"), Err("none.pem")),
        (NAME, with(full, "sslrootcert=FILE:client.key"), Err("no certificate in it")),
        // Signed by nobody whom this system knows.
        (NAME, full.into(), Err("CA")),
    ]) {
        all_fare(&server, &[(name, &parameters, expected)]).await;
    }
    server.end().await;
}

#[tokio::test]
async fn a_bad_certificate_or_none_is_refused() {
    let server = TlsServer::start().await;
    let full = "sslmode=verify-full&sslrootcert=FILE:ca.pem";
    server.present(&[NAME], 2021);
    server.reload().await;
    all_fare(
        &server,
        &[
            (NAME, full, Err("renew it")),
            (NAME, "sslmode=verify-ca&sslrootcert=FILE:ca.pem", Err("renew it")),
            (NAME, "sslmode=require", Ok(true)),
        ],
    )
    .await;
    server.present(&[], 2100);
    server.reload().await;
    all_fare(&server, &[(NAME, full, Err("CA")), (NAME, "sslmode=require", Ok(true))]).await;

    // As if somebody on the way had taken it out.
    let direct = server.direct().await;
    direct.batch_execute("alter system set ssl = off").await.expect("off");
    server.reload().await;
    all_fare(
        &server,
        &[
            (NAME, full, Err("does not offer TLS")),
            (NAME, "sslmode=require", Err("does not offer TLS")),
            (NAME, "", Ok(false)),
        ],
    )
    .await;
    // Without patience: no wait makes it better.
    let url = server.url(NAME, "sslmode=require");
    let started = std::time::Instant::now();
    let output = rowlock(&["serve", "--listen", "127.0.0.1:0", "--database-url", &url])
        .output()
        .await
        .expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("set ssl = on there"), "{said}");
    assert!(!said.contains("waiting up to"), "{said} after {:?}", started.elapsed());
    let url = server.url(NAME, "");
    let service = Service::start(&["--database-url", &url]).await;
    let log = service.log();
    assert_eq!(log.matches("leaves this host unencrypted").count(), 1, "{log}");
    drop(service);
    server.end().await;
}

#[tokio::test]
async fn a_renewed_file_counts_without_a_restart() {
    let server = TlsServer::start().await;
    let file = server.file("renewed.pem");
    std::fs::copy(server.file("other-ca.pem"), &file).expect("copied");
    let url = server.url(NAME, &format!("sslmode=verify-full&sslrootcert={file}"));
    let mut options = Options::new(url.as_str().into(), &Settings::default().database);
    options.settings.connect_timeout = Duration::from_secs(2);
    let pool = Pool::new(&options).expect("the url is good");
    let error = pool.get().await.err().expect("it believes another");
    assert!(error.chain().contains("give the certificate of its CA"), "{}", error.chain());
    std::fs::copy(server.file("ca.pem"), &file).expect("copied");
    drop(pool.get().await.expect("it believes ours now"));
    server.end().await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("bound").port();
    for mode in ["disable", "require"] {
        let url = format!("host=127.0.0.1 port={port} user=a sslmode={mode} connect_timeout=1");
        let url = url.as_str().into();
        let error = tokio::time::timeout(DEADLINE, connect(&url))
            .await
            .expect("within the deadline")
            .unwrap_err();
        assert!(error.chain().contains("took too long"), "{}", error.chain());
    }
}

#[tokio::test]
async fn a_client_may_prove_itself_by_certificate_or_bound_password() {
    let server = TlsServer::start().await;
    let tls = "sslmode=verify-full&sslrootcert=FILE:ca.pem";
    let certified = format!("{tls}&user=certified");
    let scrambled = format!("{tls}&user=scrambled&password=s3cret&channel_binding=require");
    let plain = "sslmode=disable&user=scrambled&password=s3cret&channel_binding=require";
    let key = |file: &str| format!("{certified}&sslcert=FILE:client.crt&sslkey=FILE:{file}");
    all_fare(
        &server,
        &[
            (NAME, &certified, Err("certificate")),
            (NAME, &key("client.key"), Ok(true)),
            (NAME, &key("open.key"), Err("chmod 0600")),
            (NAME, &key("none.key"), Err("none.key")),
            (NAME, &scrambled, Ok(true)),
            (NAME, plain, Err("channel binding")),
        ],
    )
    .await;
    server.end().await;
}

#[tokio::test]
async fn tls_may_begin_without_asking() {
    let server = TlsServer::start().await;
    let port = server.terminator().await;
    let name = format!("{NAME}:{port}");
    let direct = "sslmode=verify-full&sslrootcert=FILE:ca.pem&sslnegotiation=direct";
    let another = direct.replace("ca.pem", "other-ca.pem");
    let asking = direct.replace("=direct", "=postgres");
    all_fare(
        &server,
        &[
            // What it leads to is plain, and says so.
            (&name, direct, Ok(false)),
            (&name, &another, Err("give the certificate of its CA")),
            (&name, &asking, Err("")),
        ],
    )
    .await;
    server.end().await;
}

/// Encrypted and plain sessions of programs that came over the network, and listeners among them.
async fn sessions(direct: &Client) -> (i64, i64, i64) {
    let query = "select count(*) filter (where s.ssl), count(*) filter (where not s.ssl),
                        count(*) filter (where s.ssl and a.application_name like '% listener')
                 from pg_stat_activity a join pg_stat_ssl s using (pid)
                 where a.client_addr is not null";
    let row = direct.query_one(query, &[]).await.expect("query");
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_worker_listener_and_commands_are_encrypted() {
    let server = TlsServer::start().await;
    let root = server.file("ca.pem");
    let url = server.url(NAME, &format!("sslmode=verify-full&sslrootcert={root}"));
    // The system's certificates, of which ours is made one.
    let by_system = server.url(NAME, "sslmode=verify-full");
    let output = rowlock(&["migrate", "--database-url", &by_system])
        .env("SSL_CERT_FILE", &root)
        .output()
        .await
        .expect("it ends");
    assert!(output.status.success(), "{output:?}");

    let service = Service::start(&["--database-url", &url]).await;
    let direct = server.direct().await;
    wait_until("the service listens", DEADLINE, || async {
        service.request("GET", "/readyz", "").await.1.contains(r#""listener":"listen""#)
    })
    .await;
    let options = Options::new(url.as_str().into(), &Settings::default().database);
    let worker = Worker::with_options(options)
        .queue("default", 1)
        // Beyond the test: only a wake-up can start the job.
        .poll(Duration::from_secs(300))
        .on("a", |_: Job| async { Ok::<_, String>(Outcome::Complete) });
    let shutdown = Shutdown::new();
    let own = shutdown.clone();
    let running = tokio::spawn(async move { worker.run(&own).await });
    wait_until("both listen", DEADLINE, || async { sessions(&direct).await.2 == 2 }).await;
    let (status, text) = service.request("POST", "/v1/jobs", r#"{"kind": "a"}"#).await;
    assert_eq!(status, 201, "{text}");
    let client = connect(&url.as_str().into()).await.expect("connects");
    client.batch_execute("set search_path = rowlock").await.expect("set");
    let job = NewJob::new("a", &1).expect("JSON");
    Rowlock::default().enqueue_one(&client, job).await.expect("taken");
    wait_until("both jobs have run", DEADLINE, || async {
        let query = "select count(*) from rowlock.jobs where state = 'completed'";
        direct.query_one(query, &[]).await.expect("query").get::<_, i64>(0) == 2
    })
    .await;
    let (encrypted, plain, _) = sessions(&direct).await;
    assert!(4 <= encrypted && plain == 0, "{encrypted} encrypted, {plain} plain");
    shutdown.stop();
    running.await.expect("no panic").expect("the worker ends well");
    assert!(shutdown.drain(DEADLINE).await, "all tasks end");
    let log = service.log();
    assert!(!log.contains("unencrypted"), "{log}");
    drop((service, client));
    server.end().await;
}
