//! The audit at the start of a service and of a worker.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::harness::sql::{run, value};
use crate::harness::{Db, Service, rowlock};
use crate::proxy::{Mode, Protocol, Proxy, Upstream};
use crate::worker::DEADLINE;

#[tokio::test]
async fn nothing_starts_where_acknowledged_jobs_may_be_lost() {
    let db = Db::new().await;
    let client = db.connect().await;
    let name: String = value(&client, "select current_database()::text").await;
    run(&client, &format!("alter database {name} set rowlock.allow_data_loss = off")).await;
    let url = db.url();
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0", "--database-url", &url][..],
        &["work", "q", "--database-url", &url, "--", "true"][..],
    ] {
        let output = rowlock(arguments).output().await.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}: {said}");
        for word in ["refusing to", "fsync", "rowlock.allow_data_loss = on"] {
            assert!(said.contains(word), "{arguments:?} does not say {word}: {said}");
        }
    }
    run(&client, &format!("alter database {name} set rowlock.allow_data_loss = on")).await;
    let service = Service::start(&["--database-url", &url]).await;
    assert!(!service.log().contains("fsync"), "{}", service.log());
    drop((service, client));
    db.finish().await;
}

#[tokio::test]
async fn a_database_that_comes_later_is_looked_at_then() {
    let db = Db::new().await;
    let client = db.connect().await;
    let name: String = value(&client, "select current_database()::text").await;
    run(&client, &format!("alter database {name} set rowlock.allow_data_loss = off")).await;
    let proxy = Proxy::start(Upstream::of(&db.url()), Protocol::Postgres).await;
    proxy.set(Mode::Refuse);
    let url = proxy.url(&db.url());
    let mut worker = rowlock(&["work", "q", "--database-url", &url, "--", "true"]);
    worker.stderr(std::process::Stdio::piped());
    let mut worker = worker.spawn().expect("it runs");
    let mut said = BufReader::new(worker.stderr.take().expect("piped")).lines();
    let mut line = String::new();
    while !line.contains("does not answer yet") {
        let next = tokio::time::timeout(DEADLINE, said.next_line()).await.expect("it waits");
        line = next.expect("readable").expect("it does not end");
    }
    proxy.set(Mode::Pass);
    let status = tokio::time::timeout(DEADLINE, worker.wait()).await.expect("it ends");
    assert!(!status.expect("its status").success());
    let mut rest = String::new();
    said.into_inner().read_to_string(&mut rest).await.expect("readable");
    assert!(rest.contains("refusing to"), "{rest}");
    drop((proxy, client));
    db.finish().await;
}

#[tokio::test]
async fn what_is_wrong_is_logged_once() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "alter table jobs set (autovacuum_enabled = off)").await;
    let url = db.login(&["service"]).await;
    let service = Service::start(&["--database-url", &url]).await;
    assert_eq!(service.request("GET", "/readyz", "").await.0, 200);
    let log = service.log();
    assert_eq!(log.matches("dead rows are not removed from jobs").count(), 1, "{log}");
    assert!(log.contains("check=\"tables\""), "{log}");
    assert!(!log.contains("superuser"), "{log}");
    drop((service, client));
    db.finish().await;
}
