//! verify() sees each kind of corruption, and names the invariant.

use serde_json::json;
use tokio_postgres::Client;

use crate::harness::Db;
use crate::harness::sql::{acquire_job, cancel, column, drain, enqueue, enqueue_many, run};

/// One job of each state, named by its kind, and a child of the running one.
async fn one_of_each(client: &Client) {
    enqueue(client, "'completed'").await;
    drain(client).await;
    let cancelled = enqueue(client, "'cancelled'").await;
    cancel(client, &[cancelled]).await;
    let running = enqueue(client, "'running'").await;
    acquire_job(client, running).await;
    let graph = json!([
        {"kind": "ready", "ref": "p", "unique_key": "k", "queue": "other"},
        {"kind": "blocked", "depends_on": ["p"]},
        {"kind": "scheduled", "run_at": "2030-01-01T00:00:00Z"},
    ]);
    enqueue_many(client, &graph).await;
    enqueue(client, &format!("'child', depends_on => '{{{running}}}'")).await;
    let held = enqueue(client, "'held'").await;
    let hold = format!("'waiting', depends_on => '{{{held}}}', on_parent_failure => 'hold'");
    enqueue(client, &hold).await;
    cancel(client, &[held]).await;
}

async fn violated(client: &Client) -> Vec<String> {
    column(client, "select invariant from verify() where violations > 0 and sample is not null")
        .await
}

/// What is planted, and the words in the invariants that it must break.
const PLANTED: &[(&str, &[&str])] = &[
    ("delete from ready", &["a ready job has"]),
    (
        "insert into ready (queue, priority, job_id, ready_at, args_bytes, kind)
      select queue, priority, id, now(), 2, kind from jobs where kind = 'ready'",
        &["a ready job has"],
    ),
    ("update ready set priority = 0", &["a ready job has"]),
    ("update ready set kind = 'other'", &["a ready job has"]),
    ("delete from scheduled", &["a scheduled job has"]),
    ("update scheduled set run_at = now()", &["a scheduled job has"]),
    (
        "insert into scheduled select id, run_at, priority, queue from jobs where kind = 'completed'",
        &["a scheduled job has"],
    ),
    ("delete from blocked", &["a blocked job has"]),
    ("update blocked set queue = 'wrong'", &["a blocked job has"]),
    (
        "insert into blocked select id, 1, priority, queue from jobs where kind = 'ready'",
        &["a blocked job has"],
    ),
    ("update blocked set remaining = 2", &["remaining counts"]),
    ("update blocked set remaining = 0", &["remaining counts"]),
    ("delete from dependencies", &["remaining counts"]),
    (
        "insert into dependencies select a.id, b.id, 'cancel' from jobs a, jobs b
      where a.kind = 'running' and b.kind = 'ready'",
        &["nothing ready, scheduled or running"],
    ),
    (
        "insert into dependencies select a.id, b.id, 'cancel' from jobs a, jobs b
      where a.kind = 'running' and b.kind = 'scheduled'",
        &["nothing ready, scheduled or running"],
    ),
    (
        "insert into dependencies select a.id, b.id, 'cancel' from jobs a, jobs b
      where a.kind = 'cancelled' and b.kind = 'blocked'",
        &["no blocked job has a parent"],
    ),
    ("update blocked set wait_for_any = true", &["a blocked job has"]),
    (
        "with a as (update jobs set wait_for_any = true where kind = 'blocked'),
            b as (update blocked set wait_for_any = true)
        insert into dependencies select a.id, b.id, 'cancel' from jobs a, jobs b
      where a.kind = 'completed' and b.kind = 'blocked'",
        &["no blocked job waits for any"],
    ),
    (
        "with a as (update jobs set wait_for_any = true where kind = 'waiting'),
            b as (update dependencies set policy = 'cancel'
                where child = (select id from jobs where kind = 'waiting'))
        update blocked set wait_for_any = true
      where job_id = (select id from jobs where kind = 'waiting')",
        &["has one left"],
    ),
    ("update jobs set cause = null where kind = 'waiting'", &["exactly while it is held"]),
    (
        "insert into links select a.id, b.id, '1', 'cancel' from jobs a, jobs b
      where a.kind = 'running' and b.kind = 'ready'",
        &["no child is stranded by a lost link"],
    ),
    (
        "insert into links select a.id, b.id, '1', 'cancel' from jobs a, jobs b
      where a.kind = 'running' and b.kind = 'blocked'",
        &["remaining counts"],
    ),
    (
        "insert into dependencies select a.id, '00000000-0000-7000-8000-000000000001', 'cancel'
      from jobs a where a.kind = 'running'",
        &["an edge joins two jobs"],
    ),
    ("update jobs set has_dependents = false", &["a parent knows"]),
    ("update jobs set has_dependents = false where kind = 'held'", &["a parent knows"]),
    (
        "update executions set finished_at = now(), outcome = 'failed' where finished_at is null",
        &["a running job has one open execution"],
    ),
    (
        "insert into executions select id, attempt + 1, id, id, now(), now() from jobs
      where kind = 'ready'",
        &["a running job has one open execution", "attempts have no gaps", "has a worker"],
    ),
    ("delete from workers", &["an open execution has a worker"]),
    ("delete from grants", &["an open execution has a worker"]),
    (
        "update jobs set state = 'completed', finished_at = now() where kind = 'cancelled'",
        &["a completed job ended with a completed execution"],
    ),
    ("update jobs set attempt = 2 where kind = 'completed'", &["attempts have no gaps"]),
    ("update executions set attempt = 2 where finished_at is not null", &["attempts have no gaps"]),
    ("delete from executions where finished_at is not null", &["attempts have no gaps"]),
    (
        "insert into executions select '00000000-0000-7000-8000-000000000001', 1, id, id, now(),
      now(), now(), 'failed' from jobs where kind = 'ready'",
        &["an execution belongs to a job"],
    ),
    (
        "update executions set outcome = 'failed' where outcome = 'completed'",
        &["a completed job ended with a completed execution"],
    ),
    ("delete from unique_keys", &["one live job has a unique key"]),
    (
        "update unique_keys set job_id = (select id from jobs where kind = 'running')",
        &["one live job has a unique key"],
    ),
    ("update jobs set unique_key = 'k' where kind = 'running'", &["one live job has a unique key"]),
    (
        "insert into unique_keys select 'x', id from jobs where kind = 'completed'",
        &["one live job has a unique key"],
    ),
    (
        "update jobs set cancel_requested_at = now() where kind = 'ready'",
        &["only running and cancelled jobs"],
    ),
    ("update jobs set failures = attempt + 1 where kind = 'ready'", &["failures never exceed"]),
    (
        "insert into lane_floors (mark, queue, floors)
         select s.last_value, r.queue, array_fill(s.last_value + 1, array[10])
         from ready_seq s, (select x.queue from ready x limit 1) r",
        &["no ready job lies below"],
    ),
    (
        "insert into lane_floors (mark, queue, floors)
         values (1000000, 'other', array_fill(1000001::bigint, array[10]))",
        &["no lane floor is more than one above"],
    ),
];

#[tokio::test]
async fn each_kind_of_corruption_is_seen_and_named() {
    let db = Db::new().await;
    let client = db.connect().await;
    one_of_each(&client).await;
    assert!(violated(&client).await.is_empty());
    for (corruption, words) in PLANTED {
        run(&client, "begin").await;
        let changed = client.execute(*corruption, &[]).await.expect("it can be planted");
        assert!(0 < changed, "{corruption} changed nothing");
        let violated = violated(&client).await;
        for word in *words {
            let seen = violated.iter().any(|invariant| invariant.contains(word));
            assert!(seen, "{corruption} broke {violated:?}, not {word:?}");
        }
        run(&client, "rollback").await;
    }
    db.finish().await;
}

/// A ticket is gone when its transaction ends; only a hand can leave one.
#[tokio::test]
async fn a_ticket_that_stays_is_seen() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "begin; set local session_replication_role = replica").await;
    run(&client, "insert into tickets values ('1')").await;
    let violated = violated(&client).await;
    assert_eq!(violated, ["no ticket outlives its transaction"]);
    run(&client, "rollback").await;
    db.finish().await;
}

#[tokio::test]
async fn every_invariant_has_a_corruption_here() {
    let db = Db::new().await;
    let client = db.connect().await;
    let invariants: Vec<String> = column(&client, "select invariant from verify()").await;
    for invariant in &invariants {
        let planted =
            PLANTED.iter().any(|(_, words)| words.iter().any(|word| invariant.contains(word)));
        assert!(planted || invariant.contains("ticket"), "nothing breaks {invariant:?}");
    }
    assert!(17 <= invariants.len());
    let clean = "select count(*) from verify() where violations <> 0 or sample is not null";
    assert_eq!(column::<i64>(&client, clean).await, [0]);
    db.finish().await;
}
