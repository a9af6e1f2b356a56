//! The verbs of several workers in one statement: each answers as its own call would.

use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{acquire, cancel, column, enqueue, pid, refused, run, value};
use crate::harness::{Db, blocked_on_lock};

/// A worker's name in a test, as an id.
fn worker(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// Runs `acquire_batch` for workers 1, 2, 3 ... and gives what went to which place.
async fn deal(client: &Client, max_jobs: &str, more: &str) -> Vec<(i32, Uuid, Uuid)> {
    let sql = format!(
        "select place, job_id, token from acquire_batch(
            array(select lpad(to_hex(n), 32, '0')::uuid
                from generate_series(1, cardinality('{max_jobs}'::int[])) n),
            '{max_jobs}', '{{default}}'{more})"
    );
    let rows = client.query(&sql, &[]).await.expect("acquires");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test]
async fn jobs_are_dealt_round_and_each_call_has_a_grant_and_a_token_of_its_own() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(enqueue(&client, "'k', timeout => '1 h'").await);
    }
    let got = deal(&client, "{1,3,2}", ", call_numbers => '{7,null,9}', names => '{a,b,c}'").await;
    let places: Vec<i32> = got.iter().map(|one| one.0).collect();
    assert_eq!(places, [1, 2, 3, 2, 3]);
    assert_eq!(got.iter().map(|one| one.1).collect::<Vec<_>>(), jobs);
    assert_eq!((got[1].2, got[2].2), (got[3].2, got[4].2));
    assert!(got[0].2 != got[1].2 && got[1].2 != got[2].2);
    let grants: Vec<String> = column(
        &client,
        "select concat(ltrim(g.worker::text, '0-'), ' ', w.name, ' ', call_number, ' ',
            cardinality(job_ids), ' ', expires_at > clock_timestamp())
        from grants g join workers w on w.id = g.worker order by 1",
    )
    .await;
    assert_eq!(grants, ["1 a 7 1 t", "2 b  2 t", "3 c 9 2 t"]);
    let wrong = "select count(*) from executions e, grants g
        where e.worker = g.worker and not e.job_id = any(g.job_ids)";
    assert_eq!(value::<i64>(&client, wrong).await, 0);
    assert!(deal(&client, "{1,1}", "").await.is_empty());
    db.finish().await;
}

#[tokio::test]
async fn the_leases_of_a_batch_stand_and_what_ended_leases_held_is_lost_first() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'k'").await;
    acquire(&client, worker(2), 1).await;
    run(&client, "update workers set lease_ends_at = clock_timestamp() - interval '1 ms'").await;
    let got = deal(&client, "{1,1,1}", ", lease => '1 h'").await;
    assert_eq!(got.iter().map(|one| (one.0, one.1)).collect::<Vec<_>>(), [(1, job)]);
    let outcomes: Vec<String> =
        column(&client, "select coalesce(outcome, 'open') from executions order by attempt").await;
    assert_eq!(outcomes, ["lost", "open"]);
    let live = "select count(*) from workers where status = 'live'
        and lease_ends_at > clock_timestamp() + interval '50 minutes'";
    assert_eq!(value::<i64>(&client, live).await, 3);
    // A lease that stands is not written again.
    let written = "select string_agg(xmin::text, ' ' order by id) from workers";
    let before: String = value(&client, written).await;
    deal(&client, "{1,1,1}", ", lease => '1 h'").await;
    assert_eq!(value::<String>(&client, written).await, before);
    db.finish().await;
}

#[tokio::test]
async fn a_batch_of_acquires_is_refused_as_a_whole_when_one_call_is_not_valid() {
    let db = Db::new().await;
    let client = db.connect().await;
    enqueue(&client, "'k'").await;
    let two = "array[gen_random_uuid(), gen_random_uuid()]";
    let many = "array(select gen_random_uuid() from generate_series(1, 101))";
    for (code, arguments) in [
        ("RL422", "'{}', '{}', '{a}'".to_owned()),
        ("RL422", "null, null, '{a}'".to_owned()),
        ("RL422", format!("{two}, '{{1}}', '{{a}}'")),
        ("RL422", format!("{two}, '{{1,0}}', '{{a}}'")),
        ("RL422", format!("{two}, '{{1,null}}', '{{a}}'")),
        ("RL422", format!("{two}, '{{1,1001}}', '{{a}}'")),
        ("RL413", format!("{two}, '{{1,1000}}', '{{a}}'")),
        ("RL413", format!("{many}, array_fill(1, array[101]), '{{a}}'")),
        ("RL422", format!("{two} || null, '{{1,1,1}}', '{{a}}'")),
        ("RL422", format!("{two}, '{{1,1}}', '{{}}'")),
        ("RL422", format!("{two}, '{{1,1}}', '{{-}}'")),
        ("RL422", format!("{two}, '{{1,1}}', '{{a}}', lease => '0'")),
        ("RL422", format!("{two}, '{{1,1}}', '{{a}}', kinds => '{{null}}'")),
        ("RL422", format!("{two}, '{{1,1}}', '{{a}}', names => '{{a,\"\"}}'")),
        ("RL422", format!("{two}, '{{1,1}}', '{{a}}', names => '{{a}}'")),
        ("RL422", format!("{two}, '{{1,1}}', '{{a}}', capacities => '{{1,0}}'")),
        ("RL422", format!("{two}, '{{1,1}}', '{{a}}', call_numbers => '{{1}}'")),
    ] {
        refused(&client, code, &format!("select * from acquire_batch({arguments})")).await;
    }
    assert_eq!(value::<i64>(&client, "select count(*) from workers").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn a_batch_of_completions_answers_each_worker_in_input_order() {
    let db = Db::new().await;
    let client = db.connect().await;
    for _ in 0..4 {
        enqueue(&client, "'k'").await;
    }
    let got = deal(&client, "{2,2}", "").await;
    cancel(&client, &[got[3].1]).await;
    let entry = |place: i32, one: &(i32, Uuid, Uuid), result: &str| {
        let owner = worker(u128::try_from(place).unwrap());
        format!("('{owner}'::uuid, '{}'::uuid, 1, '{}'::uuid, {result}::jsonb)", one.1, one.2)
    };
    let entries = [
        // Of another worker, and by another worker's token.
        entry(2, &got[0], "null"),
        entry(2, &(2, got[1].1, got[0].2), "null"),
        entry(1, &got[0], "'{\"a\": 1}'"),
        entry(1, &got[0], "null"),
        entry(2, &got[1], "to_jsonb(repeat('x', 262144))"),
        entry(1, &got[2], "null"),
        entry(2, &got[3], "null"),
    ];
    let sql = format!(
        "with e as (select * from (values {}) e(worker, id, attempt, token, result))
        select verdict from complete_batch(
            (select array_agg(worker) from e), (select array_agg(id) from e),
            (select array_agg(attempt) from e), (select array_agg(token) from e),
            (select array_agg(result) from e))",
        entries.join(", ")
    );
    let verdicts: Vec<String> = column(&client, &sql).await;
    assert_eq!(
        verdicts,
        ["stale", "stale", "completed", "repeated", "result_too_large", "completed", "cancelled"]
    );
    let one = "array[gen_random_uuid()]";
    for workers in ["null", "'{}'", "'{null}'", "array[gen_random_uuid(), gen_random_uuid()]"] {
        let sql = format!("select * from complete_batch({workers}, {one}, '{{1}}', {one})");
        refused(&client, "RL422", &sql).await;
    }
    db.finish().await;
}

/// Runs `heartbeat_batch` for workers 1, 2, 3 ..., listing what each holds but the jobs left out.
async fn beat(client: &Client, seen: &str, left_out: &[Uuid]) -> (Vec<bool>, Vec<Option<String>>) {
    let sql = "with w as (
            select worker, n, array(
                select e.job_id from executions e
                where e.worker = x.worker and e.finished_at is null and not e.job_id = any($2)
                order by e.job_id) as ids
            from (select n, lpad(to_hex(n), 32, '0')::uuid as worker
                from generate_series(1, cardinality($1::bigint[])) n) x),
        l as (select e.* from w, unnest(w.ids) i(id) join executions e on e.job_id = i.id
            and e.finished_at is null order by w.n, e.job_id)
        select b.beaten, b.verdicts from heartbeat_batch(
            (select array_agg(worker order by n) from w),
            array_fill(interval '1 h', array[cardinality($1)]), $1,
            (select array_agg(cardinality(ids) order by n) from w),
            array(select job_id from l), array(select attempt from l),
            array(select token from l)) b";
    let seen: Vec<Option<i64>> = seen.split(' ').map(|word| word.parse().ok()).collect();
    let row = client.query_one(sql, &[&seen, &left_out]).await;
    let row = row.expect("heartbeats");
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn a_batch_of_heartbeats_extends_the_plain_ones_and_leaves_the_others() {
    let db = Db::new().await;
    let client = db.connect().await;
    for _ in 0..4 {
        enqueue(&client, "'k'").await;
    }
    let got = deal(&client, "{1,2,1}", ", call_numbers => '{1,1,1}'").await;
    cancel(&client, &[got[0].1]).await;
    run(
        &client,
        "update workers set lease_ends_at = clock_timestamp() - interval '1 ms'
        where id::text like '%3'",
    )
    .await;
    // The third one's lease has ended, and the fourth was never seen.
    let (beaten, verdicts) = beat(&client, "1 1 - -", &[]).await;
    assert_eq!(beaten, [true, true, false, false]);
    let held = Some("held".to_owned());
    assert_eq!(verdicts, [Some("cancel".to_owned()), held.clone(), held.clone(), None]);
    let extended = "select count(*) from workers
        where lease_ends_at > clock_timestamp() + interval '50 minutes'";
    assert_eq!(value::<i64>(&client, extended).await, 2);
    // A call that it saw and does not list asks for the long way; one that it did not see does not.
    assert_eq!(beat(&client, "1 1", &[got[1].1]).await.0, [true, false]);
    assert_eq!(beat(&client, "1 0", &[got[1].1]).await.0, [true, true]);
    assert_eq!(beat(&client, "1 -", &[got[1].1]).await.0, [true, true]);
    let open = "select count(*) from executions where finished_at is null";
    assert_eq!(value::<i64>(&client, open).await, 4);
    for arguments in [
        "'{}', null, '{}', '{}', '{}', '{}', '{}'",
        "array[gen_random_uuid()], '{1 s}', '{null}', '{1}', '{}', '{}', '{}'",
        "array[gen_random_uuid()], '{1 s}', '{null}', '{null}', '{}', '{}', '{}'",
        "array[gen_random_uuid()], '{0 s}', '{null}', '{0}', '{}', '{}', '{}'",
    ] {
        refused(&client, "RL422", &format!("select * from heartbeat_batch({arguments})")).await;
    }
    db.finish().await;
}

#[tokio::test]
async fn a_batch_of_heartbeats_revives_no_lease_that_ended_while_it_waited() {
    let db = Db::new().await;
    let (client, other, waiting) = (db.connect().await, db.connect().await, db.connect().await);
    enqueue(&client, "'k'").await;
    enqueue(&client, "'k'").await;
    deal(&client, "{1,1}", "").await;
    let hold = format!("begin; select from workers where id = '{}' for update", worker(1));
    run(&other, &hold).await;
    let waiter = pid(&waiting).await;
    let ending = async {
        blocked_on_lock(&client, waiter).await;
        let end = "update workers set lease_ends_at = clock_timestamp() where id = ";
        run(&client, &format!("{end}'{}'", worker(2))).await;
        run(&other, "rollback").await;
    };
    let ((beaten, verdicts), ()) = tokio::join!(beat(&waiting, "- -", &[]), ending);
    assert_eq!(beaten, [true, false]);
    assert_eq!(verdicts, [Some("held".to_owned()), None]);
    db.finish().await;
}

#[tokio::test]
async fn a_heartbeat_that_lists_thousands_compares_them_in_sets() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(
        &client,
        "select count(*) from enqueue_batch(array_fill('k'::text, array[4000]),
            array_fill('{}'::jsonb, array[4000]), array_fill('default'::text, array[4000]),
            null, null, null, null, null, null)",
    )
    .await;
    for _ in 0..4 {
        deal(&client, "{1000}", ", call_numbers => '{1}'").await;
    }
    // A join of all with all would read 16 million pairs, past the statement's deadline here.
    run(&client, "set statement_timeout = '2s'").await;
    let sql = "select count(*) from executions e,
        heartbeat('00000000-0000-0000-0000-000000000001', array(select job_id from executions),
            array(select attempt from executions), array(select token from executions),
            seen_call => 1) h
        where h.job_id = e.job_id and h.verdict = 'held'";
    assert_eq!(value::<i64>(&client, sql).await, 4000);
    db.finish().await;
}
