//! Everybody at once on one random graph: no deadlock, no child stranded, everything drains.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::Barrier;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{column, drain, enqueue, ids, retry, run, value};

const CONNECTIONS: usize = 16;
const FOR: Duration = Duration::from_secs(5);
const PARENTS: usize = 40;

/// One of the many: its connection, its chance, and what it has seen.
struct Hunter {
    client: Client,
    rng: StdRng,
    parents: Vec<Uuid>,
    refused: usize,
    done: usize,
}

impl Hunter {
    /// Calls, and accepts a refusal for now; anything else is a bug.
    async fn call(&mut self, sql: &str) -> Vec<Row> {
        match self.client.query(sql, &[]).await {
            Ok(rows) => {
                self.done += 1;
                rows
            }
            Err(error) if error.code().is_some_and(|code| code.code() == "RL429") => {
                self.refused += 1;
                Vec::new()
            }
            Err(error) => panic!("{sql}: {error:?}"),
        }
    }

    fn some_parents(&mut self) -> Vec<Uuid> {
        let count = self.rng.random_range(1..=4);
        self.parents.choose_multiple(&mut self.rng, count).copied().collect()
    }

    async fn work(&mut self) {
        let worker = Uuid::new_v4();
        let count = self.rng.random_range(1..=6);
        let sql = format!(
            "select job_id, attempt, token from acquire('{worker}', '{{default}}', {count})"
        );
        let rows = self.call(&sql).await;
        if rows.is_empty() {
            return;
        }
        let jobs: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        let attempts: Vec<String> =
            rows.iter().map(|row| row.get::<_, i32>(1).to_string()).collect();
        let tokens: Vec<Uuid> = rows.iter().map(|row| row.get(2)).collect();
        let each = |value: &str| vec![value; rows.len()].join(",");
        let (verb, more) = match self.rng.random_range(0..10) {
            0..5 => ("complete", String::new()),
            5 => ("release", String::new()),
            6 => ("fail", format!(", retry_at => '{{{}}}'", each("2020-01-01Z"))),
            _ => ("fail", format!(", discard => '{{{}}}'", each("true"))),
        };
        let finish = format!(
            "select verdict from {verb}('{worker}', {}, '{{{}}}', {}{more})",
            ids(&jobs),
            attempts.join(","),
            ids(&tokens)
        );
        for row in self.call(&finish).await {
            let verdict: String = row.get(0);
            assert!(verdict != "stale" && verdict != "repeated", "{verb} answered {verdict}");
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..20) {
            0..9 => self.work().await,
            9..13 => {
                let policy = *["cancel", "continue", "hold"].choose(&mut self.rng).expect("three");
                let parents = ids(&self.some_parents());
                let sql = format!(
                    "select enqueue('c', depends_on => {parents}, on_parent_failure => '{policy}')"
                );
                self.call(&sql).await;
            }
            13..15 => {
                let jobs = ids(&self.some_parents());
                self.call(&format!("select cancel({jobs})")).await;
            }
            15..17 => {
                let jobs = ids(&self.some_parents());
                self.call(&format!("select retry({jobs})")).await;
            }
            17 => {
                let some = "array(select id from jobs where kind = 'c' order by random() limit 3)";
                let verb = if self.rng.random() { "retry" } else { "cancel" };
                self.call(&format!("select {verb}({some})")).await;
            }
            _ => {
                // maintain() would wait for whoever is at it.
                let duty = *["link", "promote", "rescue", "prune", "floors"]
                    .choose(&mut self.rng)
                    .expect("5");
                self.call(&format!("select try_duty('{duty}', 100)")).await;
            }
        }
    }

    async fn hunt(mut self, together: Arc<Barrier>) -> (usize, usize) {
        // The first calls of a connection plan the functions, which takes longest of all.
        for _ in 0..20 {
            self.step().await;
        }
        together.wait().await;
        let started = Instant::now();
        while started.elapsed() < FOR {
            self.step().await;
        }
        (self.done, self.refused)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_connections_on_one_graph_neither_deadlock_nor_strand() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut parents = Vec::new();
    for n in 0..PARENTS {
        // Some are below others, so that cascades have depth.
        let below = match n {
            0..20 => String::new(),
            _ => format!(", depends_on => {}", ids(&parents[n - 20..n - 18])),
        };
        parents.push(enqueue(&client, &format!("'p'{below}")).await);
    }
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let together = Arc::new(Barrier::new(CONNECTIONS));
    let mut hunters = Vec::new();
    for n in 0..CONNECTIONS {
        let hunter = Hunter {
            client: db.connect().await,
            rng: StdRng::seed_from_u64(seed.wrapping_add(n as u64)),
            parents: parents.clone(),
            refused: 0,
            done: 0,
        };
        hunters.push(tokio::spawn(hunter.hunt(Arc::clone(&together))));
    }
    let watched = watch_invariants(db.connect().await).await;
    let (mut done, mut refused) = (0, 0);
    for hunter in hunters {
        let (more, less) = hunter.await.expect("a hunter ends well");
        done += more;
        refused += less;
    }
    println!("{done} calls, {refused} refused for now, {watched} looks at the invariants");
    assert!(10 * refused < done, "{refused} of {done} calls were refused for now");
    drain_all(&client).await;
    db.finish().await;
}

/// The invariants hold at any moment, not only in the end.
async fn watch_invariants(client: Client) -> usize {
    let started = Instant::now();
    let mut looks = 0;
    while started.elapsed() < FOR {
        let sql = "select v::text from verify() v where violations > 0";
        let violations: Vec<String> = column(&client, sql).await;
        assert!(violations.is_empty(), "under load: {violations:#?}");
        looks += 1;
    }
    looks
}

/// Whatever is left completes: links, released children, and those that were held.
async fn drain_all(client: &Client) {
    let unfinished = "select count(*) from jobs where finished_at is null";
    for _ in 0..50 {
        run(client, "select * from maintain()").await;
        drain(client).await;
        let held: Vec<Uuid> = column(client, "select job_id from blocked limit 500").await;
        retry(client, &held).await;
        if value::<i64>(client, unfinished).await == 0 {
            return;
        }
    }
    let left: Vec<String> =
        column(client, "select j::text || b::text from jobs j join blocked b on b.job_id = j.id")
            .await;
    panic!("these are stranded: {left:#?}");
}
