//! The machine's own figures: what the rest is read against.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::database::{cluster_url, connect};
use super::rate;

static MACHINE: OnceCell<Value> = OnceCell::const_new();

/// Cores and one-row commits a second, measured once a process and printed.
pub(crate) async fn machine() -> &'static Value {
    MACHINE.get_or_init(measure).await
}

async fn measure() -> Value {
    let client = connect(&cluster_url()).await;
    let shown = |setting: &'static str| {
        let client = &client;
        async move {
            let row = client.query_one(&format!("show {setting}"), &[]).await.expect("a setting");
            row.get::<_, String>(0)
        }
    };
    let (fsync, version) = (shown("fsync").await, shown("server_version").await);
    assert_eq!(fsync, "on", "figures without fsync are no figures");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (one, ten) = (commits_per_second(1).await, commits_per_second(10).await);
    println!(
        "{cores} cores, Postgres {version}, fsync on, one-row commits a second: \
         {one:.0} (1 client), {ten:.0} (10)"
    );
    json!({
        "row": "machine", "value": ten.round(), "unit": "commits/s", "cores": cores,
        "postgres": version, "fsync": fsync, "commits_1": one.round(), "commits_10": ten.round(),
    })
}

/// One-row commits a second on a bare table, from so many clients.
async fn commits_per_second(clients: usize) -> f64 {
    let url = cluster_url();
    let first = connect(&url).await;
    first.batch_execute("create table if not exists one_row (n int)").await.expect("a table");
    let window = Duration::from_secs(1);
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let client = connect(&url).await;
        tasks.push(tokio::spawn(async move {
            let insert = client.prepare("insert into one_row values (1)").await.expect("prepares");
            let (started, mut done) = (Instant::now(), 0_usize);
            while started.elapsed() < window {
                client.execute(&insert, &[]).await.expect("inserts");
                done += 1;
            }
            done
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await.expect("a client");
    }
    first.batch_execute("drop table one_row").await.expect("drops");
    rate(total, window)
}
