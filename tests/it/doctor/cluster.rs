//! Faults of a whole server, on one of the test's own.

use rowlock::embedded::{self, Cluster, Options, Profile, fresh_data_dir};
use tokio_postgres::Client;

use super::{doctor, told};
use crate::embedded::Folder;
use crate::harness::sql::run;
use crate::harness::wait_until;
use crate::worker::DEADLINE;

async fn open(cluster: &Cluster) -> (Client, String) {
    let url = cluster.url("rowlock");
    let (client, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connects");
    tokio::spawn(connection);
    (client, url)
}

/// A setting that a reload changes, and the default again.
async fn told_of(client: &Client, url: &str, setting: &str, expected: (&str, &str, &str)) {
    let (check, severity, word) = expected;
    let (name, _) = setting.split_once(' ').expect("a name");
    assert_eq!(doctor(url, &[]).await.severity(check, word), None, "before {setting}");
    // ALTER SYSTEM wants no transaction, and several statements at once are one.
    run(client, &format!("alter system set {setting}")).await;
    run(client, "select pg_reload_conf()").await;
    wait_until("it is found", DEADLINE, || async {
        doctor(url, &[]).await.severity(check, word) == Some(severity)
    })
    .await;
    run(client, &format!("alter system reset {name}")).await;
    run(client, "select pg_reload_conf()").await;
    wait_until("it is not found any more", DEADLINE, || async {
        doctor(url, &[]).await.severity(check, word).is_none()
    })
    .await;
}

#[tokio::test]
async fn faults_of_a_server_are_found() {
    let folder = Folder(fresh_data_dir(Profile::Durable));
    let options = Options::durable(&folder.0);
    let cluster = embedded::start(&options).await.expect("a cluster");
    let (mut client, url) = open(&cluster).await;
    let schema = "rowlock".parse().expect("a name");
    rowlock::db::migrate::run(&mut client, &schema).await.expect("migrates");
    assert_eq!(doctor(&url, &[]).await.code, 0);
    for (setting, expected) in [
        ("fsync = off", ("durability", "error", "fsync = off")),
        ("full_page_writes = off", ("durability", "error", "full_page_writes = off")),
        ("synchronous_commit = off", ("durability", "error", "synchronous_commit = off")),
        ("autovacuum = off", ("autovacuum", "error", "autovacuum is off")),
        ("autovacuum_naptime = '1min'", ("autovacuum", "info", "every 60 s")),
        ("log_statement = 'all'", ("log", "info", "logs statements")),
    ] {
        told_of(&client, &url, setting, expected).await;
    }
    run(&client, "alter system set wal_level = 'logical'").await;
    drop(client);
    cluster.stop().await.expect("stops");

    let cluster = embedded::start(&options).await.expect("starts again");
    let (client, url) = open(&cluster).await;
    let slot = "select pg_create_logical_replication_slot('forgotten', 'test_decoding')";
    let drop_slot = "select pg_drop_replication_slot('forgotten')";
    let expected = ("holders", "warning", "replication slot forgotten (nobody reads it)");
    told(&client, &url, [slot, drop_slot], expected).await;
    drop(client);
    cluster.stop().await.expect("stops");

    // A standby of nobody.
    let signal = folder.0.join("data/standby.signal");
    std::fs::write(&signal, "").expect("the folder is writable");
    let cluster = embedded::start(&options).await.expect("starts as a standby");
    let report = doctor(&cluster.url("rowlock"), &[]).await;
    assert_eq!(report.severity("recovery", "a standby"), Some("error"), "{:#?}", report.findings);
    assert_eq!(report.code, 1);
    cluster.destroy().await.expect("is deleted");
}
