//! Prune: what goes, what stays, and that it waits for nobody. And maintain, which runs all duties.

use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire, acquire_job, column, complete, discard, enqueue, enqueue_many, refused, run, states,
    value,
};

const PRUNE: &str = "select done || ' ' || more from prune(1000)";

/// Makes every job, and its end, so much older, as if it had been born then.
fn age(by: &str) -> String {
    format!(
        "begin;
         create temporary table aged on commit drop as
             select id as old, overlay(id::text placing left(id_at(created_at - interval '{by}')::text, 13)
                 from 1 for 13)::uuid as new from jobs where get_byte(uuid_send(id), 6) >> 4 = 7;
         update dependencies set parent = new from aged where parent = old;
         update dependencies set child = new from aged where child = old;
         update executions set job_id = new from aged where job_id = old;
         update links set parent = new from aged where parent = old;
         update links set child = new from aged where child = old;
         update blocked set job_id = new from aged where job_id = old;
         update jobs set id = new from aged where id = old;
         update jobs set finished_at = finished_at - interval '{by}', created_at = created_at - interval '{by}';
         commit"
    )
}

async fn kinds(client: &tokio_postgres::Client) -> Vec<String> {
    column(client, "select kind from jobs order by kind").await
}

#[tokio::test]
async fn jobs_stay_a_day_and_discarded_ones_a_week() {
    let db = Db::new().await;
    let client = db.connect().await;
    for kind in ["completed", "discarded", "cancelled", "waiting"] {
        enqueue(&client, &format!("'{kind}', queue => 'default'")).await;
    }
    let got = acquire(&client, Uuid::new_v4(), 2).await;
    assert_eq!(complete(&client, &got[..1]).await, ["completed"]);
    assert_eq!(discard(&client, &got[1..]).await, ["discarded"]);
    run(&client, "select cancel(array(select id from jobs where kind = 'cancelled'))").await;
    // The one that waits stays where it is: its row in ready names it.
    run(
        &client,
        "delete from ready; update jobs set state = 'running', seq = null where seq is not null",
    )
    .await;
    run(&client, &age("23 hours")).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "0 false");
    run(&client, &age("2 hours")).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "2 false");
    assert_eq!(kinds(&client).await, ["discarded", "waiting"]);
    assert_eq!(value::<i64>(&client, "select count(*) from executions").await, 1);
    run(&client, &age("6 days")).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "1 false");
    assert_eq!(kinds(&client).await, ["waiting"]);
    run(&client, "delete from jobs").await;
    db.finish().await;
}

#[tokio::test]
async fn retention_is_set_per_queue() {
    let db = Db::new().await;
    let client = db.connect().await;
    let settings = "insert into queues (name, retention, discarded_retention)
        values ('short', '1 minute', '2 minutes'), ('long', '30 days', null)";
    run(&client, settings).await;
    for queue in ["short", "long", "default"] {
        enqueue(&client, &format!("'{queue}', queue => '{queue}'")).await;
        enqueue(&client, &format!("'{queue} discarded', queue => '{queue}'")).await;
    }
    for queue in ["short", "long", "default"] {
        let call = format!("'{{{queue}}}', 2");
        let got = crate::harness::sql::acquire_with(&client, Uuid::new_v4(), &call).await;
        complete(&client, &got[..1]).await;
        discard(&client, &got[1..]).await;
    }
    run(&client, &age("61 seconds")).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "1 false");
    run(&client, &age("60 seconds")).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "1 false");
    run(&client, &age("8 days")).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "3 false");
    assert_eq!(kinds(&client).await, ["long"]);
    for setting in ["retention", "discarded_retention"] {
        for bad in ["59 s", "367 days"] {
            refused(&client, "23514", &format!("update queues set {setting} = '{bad}'")).await;
        }
    }
    db.finish().await;
}

#[tokio::test]
async fn retention_is_a_minute_to_a_year() {
    let db = Db::new().await;
    let client = db.connect().await;
    for given in ["null, '59 s'", "'59 s'", "'367 days', '1 day'", "'-1 day'"] {
        let error = refused(&client, "RL422", &format!("select set_retention('q', {given})")).await;
        assert!(error.message().contains("retention is not valid"), "{error:?}");
    }
    refused(&client, "RL422", "select set_retention('', '1 day')").await;
    assert_eq!(value::<i64>(&client, "select count(*) from queues").await, 0);
    run(&client, "select set_retention('q', '1 minute', '366 days')").await;
    let set = "select concat_ws(' ', retention, discarded_retention) from queues";
    assert_eq!(value::<String>(&client, set).await, "00:01:00 366 days");
    run(&client, "select set_retention('q', null)").await;
    assert_eq!(value::<String>(&client, set).await, "");
    db.finish().await;
}

#[tokio::test]
async fn a_run_deletes_its_rows_and_says_whether_there_are_more() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k') from generate_series(1, 25)").await;
    complete(&client, &acquire(&client, Uuid::new_v4(), 25).await).await;
    run(&client, &age("2 days")).await;
    let prune = "select done || ' ' || more from prune(10)";
    let mut said = Vec::new();
    for _ in 0..4 {
        said.push(value::<String>(&client, prune).await);
    }
    assert_eq!(said, ["10 true", "10 true", "5 false", "0 false"]);
    db.finish().await;
}

#[tokio::test]
async fn the_front_takes_what_has_just_become_old_while_the_rounds_rest() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select set_retention('default', '1 minute')").await;
    run(&client, "select enqueue('k') from generate_series(1, 2)").await;
    complete(&client, &acquire(&client, Uuid::new_v4(), 2).await).await;
    run(&client, &age("2 minutes")).await;
    // As after a round that read very many jobs for nothing, three minutes ago.
    let rest = "update duties set rests_until = 'infinity',
        front = id_at(clock_timestamp() - interval '3 minutes') where duty = 'prune'";
    run(&client, rest).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "2 false");
    enqueue(&client, "'k', id => id_at(clock_timestamp() - interval '2 minutes')").await;
    complete(&client, &acquire(&client, Uuid::new_v4(), 1).await).await;
    run(&client, "update jobs set finished_at = finished_at - interval '2 minutes'").await;
    assert_eq!(value::<String>(&client, PRUNE).await, "0 false", "it ended behind the front");
    run(&client, "update duties set rests_until = clock_timestamp() where duty = 'prune'").await;
    assert_eq!(value::<String>(&client, PRUNE).await, "1 false", "a round finds it");
    db.finish().await;
}

#[tokio::test]
async fn a_round_counts_all_that_it_has_looked_at() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k') from generate_series(1, 25)").await;
    complete(&client, &acquire(&client, Uuid::new_v4(), 25).await).await;
    run(&client, &age("2 days")).await;
    // All but the first two have ended just now. A front far ahead leaves them to the round.
    let late = "update jobs set finished_at = clock_timestamp()
            where id not in (select id from jobs order by id limit 2);
        update duties set front = 'ffffffff-ffff-ffff-ffff-ffffffffffff' where duty = 'prune'";
    run(&client, late).await;
    let figures = "select looked || ' ' || done from duties where duty = 'prune'";
    assert_eq!(value::<String>(&client, PRUNE).await, "2 false");
    assert_eq!(value::<String>(&client, figures).await, "25 2");
    db.finish().await;
}

#[tokio::test]
async fn parents_stay_while_a_child_is_unfinished_or_a_link_names_them() {
    let db = Db::new().await;
    let client = db.connect().await;
    let graph = json!([
        {"kind": "p", "ref": "p"},
        {"kind": "q", "ref": "q", "queue": "never"},
        {"kind": "c", "queue": "never", "depends_on": ["p", "q"]},
    ]);
    let jobs = enqueue_many(&client, &graph).await;
    let named = enqueue(&client, "'named'").await;
    for job in [jobs[0].job_id, named] {
        let got = acquire_job(&client, job).await;
        assert_eq!(complete(&client, &[got]).await, ["completed"]);
    }
    // As a link looks that COMMIT could not attach.
    let link = format!(
        "insert into links (parent, child, xid, policy) values ('{named}', '{}', '1', 'cancel')",
        jobs[2].job_id
    );
    run(&client, &link).await;
    run(&client, "delete from ready").await;
    run(&client, &age("3 days")).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "0 false");
    run(&client, "delete from links").await;
    assert_eq!(value::<String>(&client, PRUNE).await, "1 false");
    let end = "delete from blocked; update jobs set state = 'cancelled', seq = null,
        finished_at = clock_timestamp() - interval '3 days' where kind in ('c', 'q')";
    run(&client, end).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "3 false");
    assert_eq!(value::<i64>(&client, "select count(*) from dependencies").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn small_rounds_reach_everything_and_other_ids_too() {
    let db = Db::new().await;
    let client = db.connect().await;
    for n in 0..20 {
        let id = if n % 2 == 0 { format!(", id => '{}'", Uuid::new_v4()) } else { String::new() };
        enqueue(&client, &format!("'old'{id}")).await;
    }
    let got = acquire(&client, Uuid::new_v4(), 20).await;
    complete(&client, &got).await;
    run(&client, &age("2 days")).await;
    let fresh = enqueue(&client, "'fresh'").await;
    complete(&client, &acquire(&client, Uuid::new_v4(), 1).await).await;
    let mut pruned = 0;
    for _ in 0..20 {
        let done: i64 = value(&client, "select done from prune(3)").await;
        assert!(done <= 3);
        pruned += done;
    }
    assert_eq!(pruned, 20);
    assert_eq!(states(&client, &[fresh]).await, ["completed"]);
    db.finish().await;
}

#[tokio::test]
async fn prune_waits_for_nobody() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    run(&client, "select enqueue('k') from generate_series(1, 3)").await;
    let worker = Uuid::new_v4();
    complete(&client, &acquire(&client, worker, 3).await).await;
    run(&client, "delete from grants").await;
    run(&client, &age("2 days")).await;
    run(&client, "update workers set lease_ends_at = lease_ends_at - interval '2 days'").await;
    // A user's reference to the first, and the worker is back in an open transaction.
    let hold = "begin; select from jobs order by id limit 1 for key share";
    run(&other, hold).await;
    assert!(acquire(&other, worker, 1).await.is_empty());
    run(&client, "set statement_timeout = '5 s'").await;
    assert_eq!(value::<String>(&client, PRUNE).await, "2 false");
    run(&other, "rollback").await;
    assert_eq!(value::<String>(&client, PRUNE).await, "1 false");
    assert_eq!(value::<i64>(&client, "select count(*) from workers").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn a_job_that_a_users_table_keeps_stops_no_other() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k') from generate_series(1, 3)").await;
    complete(&client, &acquire(&client, Uuid::new_v4(), 3).await).await;
    run(&client, &age("2 days")).await;
    let keep = "create table public.orders (job uuid references jobs (id));
        insert into public.orders select id from jobs order by id limit 1";
    run(&client, keep).await;
    assert_eq!(value::<String>(&client, PRUNE).await, "2 false");
    run(&client, "delete from public.orders").await;
    assert_eq!(value::<String>(&client, PRUNE).await, "1 false");
    db.finish().await;
}

#[tokio::test]
async fn maintain_runs_each_duty_once_in_order() {
    let db = Db::new().await;
    let client = db.connect().await;
    let duties: Vec<String> =
        column(&client, "select duty || ' ' || done || ' ' || more from maintain()").await;
    assert_eq!(
        duties,
        ["link 0 false", "promote 0 false", "rescue 0 false", "prune 0 false", "floors 0 false"]
    );
    for max_rows in ["0", "100001", "null"] {
        refused(&client, "RL422", &format!("select * from maintain({max_rows})")).await;
    }
    refused(&client, "RL422", "select * from try_duty('dance', 1)").await;
    db.finish().await;
}

#[tokio::test]
async fn maintain_waits_five_seconds_for_a_server_that_is_at_it() {
    let db = Db::new().await;
    let (client, server) = (db.connect().await, db.connect().await);
    run(&server, "begin; select from try_duty('promote', 10)").await;
    let ran = "select ran from try_duty('promote', 10)";
    assert!(!value::<bool>(&client, ran).await);
    let started = Instant::now();
    let duties: Vec<String> = column(&client, "select duty || ' ' || more from maintain()").await;
    let waited = started.elapsed();
    assert_eq!(
        duties,
        ["link false", "promote true", "rescue false", "prune false", "floors false"]
    );
    assert!((5..8).contains(&waited.as_secs()), "{waited:?}");
    run(&server, "commit").await;
    assert!(value::<bool>(&client, ran).await);
    let started = Instant::now();
    run(&client, "select * from maintain()").await;
    assert!(started.elapsed() < Duration::from_secs(2));
    db.finish().await;
}
