//! Lane floors: never past a job that somebody may still insert, and stopped by nobody else.

use std::time::Duration;

use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    acquire, column, complete, discard, drain, enqueue, ids, pages, refused, retry, run, state,
    value,
};
use crate::harness::{Db, wait_until};

const DEADLINE: Duration = Duration::from_secs(30);

/// More than a floor has to rise to be worth a row.
const STEP: i64 = 200;

/// What `note_floors` gave.
struct Notes {
    mark: i64,
    holders: Vec<String>,
    server: String,
}

async fn note(client: &Client) -> Notes {
    let row = client.query_one("select * from note_floors()", &[]).await.expect("notes");
    Notes { mark: row.get(0), holders: row.get(1), server: row.get(2) }
}

/// Who still stands, and how many queues' floors rose.
async fn raise(client: &Client, notes: &Notes) -> (Vec<String>, i64) {
    let sql = "select * from raise_floors($1, $2, $3, 100)";
    let given: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&notes.mark, &notes.holders, &notes.server];
    let row = client.query_one(sql, &given).await.expect("raises");
    (row.get(0), row.get(1))
}

/// The newest floors of the queue `default`.
async fn floors(client: &Client) -> Vec<i64> {
    let sql = "select unnest(floors) from lane_floors where queue = 'default'
               and id = (select max(id) from lane_floors where queue = 'default')";
    column(client, sql).await
}

/// So many jobs through the queue, which leaves it empty with floors that want to rise.
async fn flow(client: &Client, jobs: i64) {
    let fill = format!("select enqueue('flow') from generate_series(1, {jobs})");
    run(client, &fill).await;
    assert!(i64::try_from(drain(client).await).expect("few") >= jobs);
}

/// Notes and raises until everybody noted is gone.
async fn raise_at_last(client: &Client, notes: &Notes) {
    wait_until("the floors rise", DEADLINE, || async {
        let (standing, done) = raise(client, notes).await;
        standing.is_empty() && done > 0
    })
    .await;
}

async fn late_job_is_acquired(client: &Client, job: Uuid) {
    let got = acquire(client, Uuid::new_v4(), 1000).await;
    assert!(got.iter().any(|execution| execution.job_id == job), "{job} was skipped: {got:?}");
    complete(client, &got).await;
    assert_eq!(state(client, job).await, "completed");
}

#[tokio::test]
async fn an_emptied_lane_starts_above_all_that_went_through_it() {
    let db = Db::new().await;
    let client = db.connect().await;
    let none: (Vec<String>, i64) = (Vec::new(), 0);
    assert_eq!(raise(&client, &note(&client).await).await, none);
    flow(&client, STEP).await;
    let waiting = enqueue(&client, "'waits', priority => 7").await;
    run(&client, "select enqueue('more', priority => 7) from generate_series(1, 50)").await;
    raise_at_last(&client, &note(&client).await).await;
    let after = STEP + 52;
    assert_eq!(
        floors(&client).await,
        [after, after, after, after, after, after, after, STEP + 1, after, after]
    );
    // Too little to be worth a row.
    flow(&client, 20).await;
    assert_eq!(raise(&client, &note(&client).await).await, none);
    assert_eq!(state(&client, waiting).await, "completed");
    for _ in 0..3 {
        flow(&client, STEP).await;
        raise_at_last(&client, &note(&client).await).await;
    }
    assert_eq!(value::<i64>(&client, "select count(*) from lane_floors").await, 1);
    db.finish().await;
}

/// A transaction makes a job ready and stays open while many jobs pass it; whatever its statement,
/// the floors wait for it, and the job is acquired.
async fn never_skipped(prepare: &str, make_ready: &str) {
    let db = Db::new().await;
    let (slow, client) = (db.connect().await, db.connect().await);
    flow(&client, STEP).await;
    run(&client, prepare).await;
    run(&slow, &format!("begin; {make_ready}")).await;
    let job: Uuid = value(&slow, "select job_id from ready order by seq desc limit 1").await;
    let notes = note(&client).await;
    assert!(!notes.holders.is_empty());
    flow(&client, STEP).await;
    let (standing, done) = raise(&client, &notes).await;
    assert_eq!((&standing, done), (&notes.holders, 0), "{make_ready}");
    let duty = "select done from try_duty('floors', 100)";
    assert_eq!(value::<i64>(&client, duty).await, 0);
    run(&slow, "commit").await;
    raise_at_last(&client, &notes).await;
    late_job_is_acquired(&client, job).await;
    // And on they go.
    flow(&client, STEP).await;
    raise_at_last(&client, &note(&client).await).await;
    db.finish().await;
}

#[tokio::test]
async fn a_job_enqueued_in_an_open_transaction_is_not_skipped() {
    never_skipped("select 1", "select enqueue('late')").await;
    never_skipped(
        "select 1",
        "savepoint a; select enqueue('gone'); rollback to a; select enqueue('late');
         savepoint b; select enqueue('gone'); rollback to b",
    )
    .await;
}

#[tokio::test]
async fn a_job_retried_in_an_open_transaction_is_not_skipped() {
    let id = "'00000000-0000-7000-8000-000000000001'";
    let cancelled = format!("select enqueue('late', id => {id}); select cancel(array[{id}::uuid])");
    never_skipped(&cancelled, &format!("select retry(array[{id}::uuid])")).await;
}

#[tokio::test]
async fn a_job_released_in_an_open_transaction_is_not_skipped() {
    let worker = Uuid::new_v4();
    let take = format!(
        "create table took as select * from acquire('{worker}', '{{other}}', 1);
         update jobs set queue = 'default' where id in (select job_id from took)"
    );
    never_skipped(
        &format!("select enqueue('late', queue => 'other'); {take}"),
        &format!(
            "select release('{worker}', array[job_id], array[attempt], array[token]) from took"
        ),
    )
    .await;
}

#[tokio::test]
async fn a_job_promoted_in_an_open_transaction_is_not_skipped() {
    never_skipped(
        "select enqueue('late', run_at => clock_timestamp() + interval '1 h');
         update jobs set run_at = run_at - interval '2 h' where state = 'scheduled';
         update scheduled set run_at = run_at - interval '2 h'",
        "select try_duty('promote', 10)",
    )
    .await;
}

#[tokio::test]
async fn a_number_drawn_after_the_note_lies_above_the_mark() {
    let db = Db::new().await;
    let (slow, client) = (db.connect().await, db.connect().await);
    flow(&client, STEP).await;
    run(&slow, "begin").await;
    let notes = note(&client).await;
    let late = enqueue(&slow, "'late'").await;
    flow(&client, STEP).await;
    // The transaction that came later stops nothing, and is passed by nothing.
    raise_at_last(&client, &notes).await;
    assert!(floors(&client).await.iter().all(|floor| *floor == notes.mark + 1));
    run(&slow, "commit").await;
    late_job_is_acquired(&client, late).await;
    db.finish().await;
}

#[tokio::test]
async fn numbers_of_a_savepoint_rolled_back_hold_nothing_up() {
    let db = Db::new().await;
    let (slow, client) = (db.connect().await, db.connect().await);
    flow(&client, STEP).await;
    run(&slow, "begin; savepoint a; select enqueue('gone'); rollback to a").await;
    let notes = note(&client).await;
    raise_at_last(&client, &notes).await;
    let late = enqueue(&slow, "'late'").await;
    run(&slow, "commit").await;
    late_job_is_acquired(&client, late).await;
    db.finish().await;
}

#[tokio::test]
async fn a_prepared_transaction_holds_them_whenever_it_was_prepared() {
    let db = Db::new().await;
    let (slow, client) = (db.connect().await, db.connect().await);
    if value::<String>(&client, "show max_prepared_transactions").await == "0" {
        return db.finish().await;
    }
    flow(&client, STEP).await;
    for prepared_before in [true, false] {
        let name = Uuid::new_v4();
        run(&slow, "begin; set local rowlock.notify = off").await;
        let late = enqueue(&slow, "'late'").await;
        let prepare = format!("prepare transaction '{name}'");
        if prepared_before {
            run(&slow, &prepare).await;
        }
        let notes = note(&client).await;
        if !prepared_before {
            // It is gone from under the name that was noted.
            run(&slow, &prepare).await;
        }
        flow(&client, STEP).await;
        let (standing, done) = raise(&client, &notes).await;
        assert!(standing.len() == 1 && standing[0].starts_with("prepared "), "{standing:?}");
        assert_eq!(done, 0);
        let later = Notes { holders: standing, ..notes };
        assert_eq!(raise(&client, &later).await, (later.holders.clone(), 0));
        run(&client, &format!("commit prepared '{name}'")).await;
        raise_at_last(&client, &later).await;
        late_job_is_acquired(&client, late).await;
    }
    db.finish().await;
}

#[tokio::test]
async fn writers_elsewhere_do_not_stop_them() {
    let (db, other) = (Db::new().await, Db::new().await);
    let (client, writer, foreign) = (db.connect().await, db.connect().await, other.connect().await);
    run(&writer, "create table public.other (n int); begin; insert into public.other values (1)")
        .await;
    // A clone of the same template: its ready has the same oid.
    run(&foreign, "begin; select enqueue('k')").await;
    run(&writer, "select count(*) from ready").await;
    flow(&client, STEP).await;
    let notes = note(&client).await;
    assert_eq!(notes.holders, Vec::<String>::new());
    assert_eq!(raise(&client, &notes).await, (Vec::new(), 1));
    run(&writer, "commit").await;
    run(&foreign, "commit").await;
    other.finish().await;
    db.finish().await;
}

#[tokio::test]
async fn notes_of_another_life_of_the_server_raise_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    flow(&client, STEP).await;
    let notes = note(&client).await;
    let other = Notes { server: format!("{} ", notes.server), ..notes };
    assert_eq!(raise(&client, &other).await, (Vec::new(), 0));
    let ahead = Notes { mark: notes.mark + 1, holders: Vec::new(), server: notes.server };
    assert_eq!(raise(&client, &ahead).await, (Vec::new(), 0));
    db.finish().await;
}

#[tokio::test]
async fn a_sequence_that_fell_back_takes_its_floors_along() {
    let db = Db::new().await;
    let client = db.connect().await;
    flow(&client, 2 * STEP).await;
    raise_at_last(&client, &note(&client).await).await;
    run(&client, "select setval('ready_seq', 10)").await;
    let violated = "select count(*) from verify() where violations > 0";
    assert_eq!(value::<i64>(&client, violated).await, 1);
    run(&client, "select enqueue('k') from generate_series(1, 5)").await;
    assert_eq!(acquire(&client, Uuid::new_v4(), 10).await.len(), 0);
    assert_eq!(value::<i64>(&client, violated).await, 2);
    run(&client, "select * from maintain()").await;
    assert_eq!(value::<i64>(&client, "select count(*) from lane_floors").await, 0);
    assert_eq!(drain(&client).await, 5);
    flow(&client, STEP).await;
    raise_at_last(&client, &note(&client).await).await;
    db.finish().await;
}

#[tokio::test]
async fn floors_of_queues_without_workers_go() {
    let db = Db::new().await;
    let client = db.connect().await;
    flow(&client, STEP).await;
    raise_at_last(&client, &note(&client).await).await;
    run(&client, "select tidy_floors(10)").await;
    assert_eq!(floors(&client).await.len(), 10);
    run(&client, "delete from workers").await;
    run(&client, "select tidy_floors(10)").await;
    assert_eq!(floors(&client).await.len(), 0);
    db.finish().await;
}

#[tokio::test]
async fn only_queues_that_live_workers_ask_for_have_floors() {
    let db = Db::new().await;
    let client = db.connect().await;
    flow(&client, STEP).await;
    run(&client, "update workers set lease_ends_at = clock_timestamp() - interval '1 s'").await;
    assert_eq!(raise(&client, &note(&client).await).await, (Vec::new(), 0));
    // Another queue's jobs raise the floors of this one: its lanes are empty up to there.
    run(&client, "select enqueue('k', queue => 'a') from generate_series(1, 100)").await;
    acquire(&client, Uuid::new_v4(), 1).await;
    raise_at_last(&client, &note(&client).await).await;
    assert_eq!(floors(&client).await, [STEP + 101; 10]);
    let queues: Vec<String> = column(&client, "select queue from lane_floors").await;
    assert_eq!(queues, ["default"]);
    db.finish().await;
}

#[tokio::test]
async fn the_verbs_need_read_committed() {
    let db = Db::new().await;
    let client = db.connect().await;
    for call in ["note_floors()", "raise_floors(0, '{}', '', 1)", "floors(1)"] {
        run(&client, "begin isolation level repeatable read").await;
        refused(&client, "RL025", &format!("select {call}")).await;
        run(&client, "rollback").await;
    }
    db.finish().await;
}

/// Pages that an acquire of ten reads. In a transaction rolled back, so that it is the same job.
async fn pages_of_acquire(client: &Client) -> i64 {
    let acquire = format!("select acquire('{}', '{{default}}', 10)", Uuid::new_v4());
    run(client, "begin").await;
    let read = pages(client, &acquire).await;
    run(client, "rollback").await;
    read
}

#[tokio::test]
async fn under_a_held_snapshot_a_late_acquire_reads_no_more_than_an_early_one() {
    const ROUNDS: usize = 60;
    let db = Db::new().await;
    let (client, holder) = (db.connect().await, db.connect().await);
    run(&holder, "begin isolation level repeatable read; select 1").await;
    let worker = Uuid::new_v4();
    let mut early = 0;
    for round in 0..=ROUNDS {
        let fill = "select count(*) from enqueue_many((select jsonb_agg(jsonb_build_object(
            'kind', 'k', 'priority', n % 10)) from generate_series(1, 500) n))";
        run(&client, fill).await;
        let read = pages_of_acquire(&client).await;
        match round {
            1 => early = read,
            ROUNDS => assert!(read <= 3 * early, "{read} pages after {early}"),
            _ => {}
        }
        let got = acquire(&client, worker, 500).await;
        assert_eq!(got.len(), 500);
        complete(&client, &got).await;
        wait_until("the floors rise", DEADLINE, || async {
            value::<i64>(&client, "select done from try_duty('floors', 100)").await == 1
        })
        .await;
    }
    run(&holder, "rollback").await;
    db.finish().await;
}

#[tokio::test]
async fn a_discarded_job_retried_behind_the_floors_is_ready_above_them() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'k'").await;
    let got = acquire(&client, Uuid::new_v4(), 1).await;
    discard(&client, &got).await;
    flow(&client, STEP).await;
    raise_at_last(&client, &note(&client).await).await;
    assert_eq!(retry(&client, &[job]).await, ["retried"], "{}", ids(&[job]));
    late_job_is_acquired(&client, job).await;
    db.finish().await;
}
