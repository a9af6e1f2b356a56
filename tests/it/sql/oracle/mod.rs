//! Random graphs and random lives of them, on the database and on an oracle in memory.
//!
//! `ROWLOCK_SEED` repeats a case, and `ROWLOCK_ORACLE_ROUNDS` is how many follow from there.

mod chance;
mod crowd;
mod look;
mod model;
mod ops;
mod play;
mod retry;
mod rounds;
mod shrink;
mod stretch;

use crate::harness::Db;
use crowd::Crowd;
use play::{Stage, operations};
use rounds::Rounds;
use stretch::stretch;

/// Operations a case, one after another.
const OPERATIONS: usize = 25;
/// Rounds of operations at once, a case.
const ROUNDS: usize = 8;

/// The seeds of the cases, the last of them being that of a failure.
fn seeds(cases: u64) -> impl Iterator<Item = u64> {
    let number = |variable: &str| {
        let text = std::env::var(variable).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    let first = number("ROWLOCK_SEED").unwrap_or_else(rand::random);
    let seeds =
        (0..number("ROWLOCK_ORACLE_ROUNDS").unwrap_or(cases)).map(move |n| first.wrapping_add(n));
    seeds.inspect(|seed| println!("ROWLOCK_SEED={seed}"))
}

#[tokio::test]
async fn one_after_another_all_is_as_the_oracle_says() {
    let db = Db::new().await;
    let stage = Stage::new(&db).await;
    for seed in seeds(40) {
        let ops = operations(seed, OPERATIONS);
        if let Err(failure) = stage.play(&ops).await {
            let failure = stage.shrink(ops, failure).await;
            panic!("{}{}", failure.script, failure.what);
        }
    }
    drop(stage);
    db.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_at_once_some_order_explains_it() {
    let db = Db::new().await;
    stretch(&db.connect().await).await;
    let rounds = Rounds::new(&db).await;
    for seed in seeds(25) {
        if let Err(what) = rounds.play(seed, ROUNDS).await {
            panic!("{what}");
        }
    }
    drop(rounds);
    db.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_on_a_large_graph_leaves_every_job_as_its_parents_say() {
    let db = Db::new().await;
    stretch(&db.connect().await).await;
    let crowd = Crowd::new(&db).await;
    for seed in seeds(4) {
        if let Err(what) = crowd.play(seed).await {
            panic!("{what}");
        }
    }
    drop(crowd);
    db.finish().await;
}
