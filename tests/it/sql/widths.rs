//! Graphs as wide, as deep and as tangled as they come: every child is released or ended, once, by
//! however many completers.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire, acquire_job, acquire_with, complete, discard, enqueue, ids, run, value,
};

/// Jobs of one call.
const CALL: usize = 10_000;

/// Executions of one completing call.
const BATCH: i32 = 16;

/// Enqueues jobs whose entries are made by SQL from `n`, which counts from 1, and whatever else
/// the caller names; the jobs' ids by n.
async fn graph(client: &Client, jobs: usize, entry: &str) -> Vec<Uuid> {
    let call = format!(
        "select job_id from enqueue_many((select jsonb_agg({entry} order by n)
            from generate_series(1, {jobs}) n))"
    );
    let rows = client.query(&call, &[]).await.expect("enqueues");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn count(client: &Client, what: &str) -> usize {
    let n: i64 = value(client, &format!("select count(*) from {what}")).await;
    usize::try_from(n).expect("a count")
}

/// A root, and so many children of it in the queue `children`.
async fn fan(client: &Client, children: usize) -> Uuid {
    let root = enqueue(client, "'root'").await;
    let entry = format!(
        "jsonb_build_object('kind', 'c', 'queue', 'children',
            'depends_on', jsonb_build_array('{root}'))"
    );
    for start in (0..children).step_by(CALL) {
        graph(client, CALL.min(children - start), &entry).await;
    }
    root
}

/// Acquires and completes from so many connections until `default` is empty and nothing in it is
/// blocked; how many each completed.
async fn drain_by(db: &Db, completers: usize) -> Vec<usize> {
    let mut sessions = JoinSet::new();
    for _ in 0..completers {
        let client = db.connect().await;
        sessions.spawn(async move {
            let (worker, mut done) = (Uuid::new_v4(), 0);
            let waiting = "(select from ready where queue = 'default' union all
                select from blocked where queue = 'default' limit 1) x";
            loop {
                let executions = acquire(&client, worker, BATCH).await;
                if executions.is_empty() {
                    if count(&client, waiting).await == 0 {
                        return done;
                    }
                    tokio::task::yield_now().await;
                    continue;
                }
                let verdicts = complete(&client, &executions).await;
                assert!(verdicts.iter().all(|word| word == "completed"), "{verdicts:?}");
                done += executions.len();
            }
        });
    }
    sessions.join_all().await
}

#[tokio::test]
async fn a_fan_out_of_any_width_is_released_by_one_call() {
    let db = Db::new().await;
    let client = db.connect().await;
    for children in [1, 50, 1_000, 100_000] {
        let root = fan(&client, children).await;
        assert_eq!(count(&client, "blocked").await, children);
        let execution = acquire_job(&client, root).await;
        assert_eq!(complete(&client, &[execution]).await, ["completed"]);
        assert_eq!(count(&client, "blocked").await, 0);
        assert_eq!(count(&client, "ready where queue = 'children'").await, children);
        assert_eq!(count(&client, "(select distinct job_id from ready) x").await, children);
        run(
            &client,
            "delete from ready; delete from jobs where queue = 'children';
            delete from dependencies",
        )
        .await;
    }
    db.finish().await;
}

#[tokio::test]
async fn a_fan_out_that_statistics_do_not_expect_takes_no_longer() {
    const CHILDREN: usize = 10_000;
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "alter table blocked set (autovacuum_enabled = off)").await;
    let mut took = Vec::new();
    for statistics in [None, Some("(1, 100)")] {
        let root = fan(&client, CHILDREN).await;
        let execution = acquire_job(&client, root).await;
        if let Some(statistics) = statistics {
            // As ANALYZE leaves them when all but one of many have just been released.
            let small = format!("update pg_class set (reltuples, relpages) = {statistics}");
            run(&client, &format!("{small} where oid = 'blocked'::regclass")).await;
        }
        let before = Instant::now();
        assert_eq!(complete(&client, &[execution]).await, ["completed"]);
        took.push(before.elapsed());
    }
    assert_eq!(count(&client, "ready").await, 2 * CHILDREN);
    assert!(took[1] < took[0] * 8 + Duration::from_secs(1), "{took:?}");
    db.finish().await;
}

#[tokio::test]
async fn a_fan_in_releases_its_child_once() {
    let db = Db::new().await;
    let client = db.connect().await;
    for (parents, completers) in [(2, 2), (10_000, 64)] {
        let above = graph(&client, parents, "jsonb_build_object('kind', 'p')").await;
        let call = format!("'c', queue => 'children', depends_on => {}", ids(&above));
        let child = enqueue(&client, &call).await;
        let remaining: i32 = value(&client, "select remaining from blocked").await;
        assert_eq!(usize::try_from(remaining), Ok(parents));
        let done = drain_by(&db, completers).await;
        assert_eq!(done.iter().sum::<usize>(), parents, "{done:?}");
        let released = acquire_with(&client, Uuid::new_v4(), "'{children}', 10").await;
        assert_eq!(released.iter().map(|one| one.job_id).collect::<Vec<_>>(), [child]);
        assert_eq!(complete(&client, &released).await, ["completed"]);
        assert_eq!(count(&client, "executions").await, count(&client, "jobs").await);
    }
    db.finish().await;
}

#[tokio::test]
async fn layers_are_drained_to_the_end() {
    const LAYERS: usize = 10;
    const WIDTH: usize = 1_000;
    let db = Db::new().await;
    let client = db.connect().await;
    let mut above = Vec::new();
    for layer in 0..LAYERS {
        // Each of a block of ten waits for the ten above.
        let entry = if layer == 0 {
            "jsonb_build_object('kind', 'a')".to_owned()
        } else {
            format!(
                "jsonb_build_object('kind', 'a', 'depends_on', to_jsonb(
                    ({})[(n - 1) / 10 * 10 + 1:(n - 1) / 10 * 10 + 10]))",
                ids(&above)
            )
        };
        above = graph(&client, WIDTH, &entry).await;
    }
    assert_eq!(count(&client, "dependencies").await, (LAYERS - 1) * WIDTH * 10);
    let done = drain_by(&db, 8).await;
    assert_eq!(done.iter().sum::<usize>(), LAYERS * WIDTH, "{done:?}");
    assert_eq!(count(&client, "jobs where state = 'completed'").await, LAYERS * WIDTH);
    let early = "dependencies d
        join executions p on p.job_id = d.parent join executions c on c.job_id = d.child
        where c.started_at < p.finished_at";
    assert_eq!(count(&client, early).await, 0, "started before a parent had ended");
    db.finish().await;
}

#[tokio::test]
async fn a_chain_of_ten_thousand_is_walked_to_its_end() {
    let db = Db::new().await;
    let client = db.connect().await;
    graph(&client, CALL, CHAIN).await;
    let walk = "do $$
        declare got record; verdict text; worker uuid := gen_random_uuid();
        begin
            for hop in 1 .. 10000 loop
                select * into strict got from acquire(worker, '{default}', 10);
                select c.verdict into strict verdict
                from complete(worker, array[got.job_id], array[got.attempt], array[got.token]) c;
                assert verdict = 'completed';
                commit;
            end loop;
        end $$";
    run(&client, walk).await;
    assert_eq!(count(&client, "jobs where state = 'completed'").await, CALL);
    db.finish().await;
}

/// Each waits for the one before.
const CHAIN: &str = "jsonb_build_object('kind', 'a', 'ref', n::text,
    'depends_on', case when n > 1 then jsonb_build_array((n - 1)::text) else '[]' end)";

/// All but the root are cancelled, and say why.
async fn falls_with_its_root(client: &Client, root: Uuid, jobs: usize) {
    let execution = acquire_job(client, root).await;
    assert_eq!(discard(client, &[execution]).await, ["discarded"]);
    let fallen = format!(
        "jobs where state = 'cancelled' and cause = '{root}' and reason = 'a parent was discarded'"
    );
    assert_eq!(count(client, &fallen).await, jobs - 1);
    assert_eq!(count(client, "blocked").await, 0);
}

#[tokio::test]
async fn a_discarded_root_ends_a_chain_of_ten_thousand() {
    let db = Db::new().await;
    let client = db.connect().await;
    let jobs = graph(&client, CALL, CHAIN).await;
    falls_with_its_root(&client, jobs[0], jobs.len()).await;
    db.finish().await;
}

#[tokio::test]
async fn a_discarded_root_ends_a_tree_of_a_hundred_thousand() {
    const JOBS: usize = 100_000;
    let db = Db::new().await;
    let client = db.connect().await;
    let mut jobs = Vec::<Uuid>::new();
    for start in (0..JOBS).step_by(CALL) {
        // Job n, from 1, waits for job n / 2: one of this call, or of one before.
        let first = start.max(1) / 2;
        let above = ids(jobs.get(first.saturating_sub(1)..(start + CALL) / 2).unwrap_or_default());
        let entry = format!(
            "jsonb_build_object('kind', 'a', 'ref', ({start} + n)::text, 'depends_on', case
                when {start} + n = 1 then '[]'
                when ({start} + n) / 2 > {start}
                    then jsonb_build_array((({start} + n) / 2)::text)
                else jsonb_build_array(({above})[({start} + n) / 2 - {first} + 1]) end)"
        );
        jobs.extend(graph(&client, CALL, &entry).await);
    }
    falls_with_its_root(&client, jobs[0], JOBS).await;
    db.finish().await;
}
