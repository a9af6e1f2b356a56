//! Leases, heartbeats and rescue: who loses what, and in which order.

use std::slice::from_ref;

use uuid::Uuid;

use crate::harness::sql::{
    Execution, acquire, acquire_with, cancel, column, complete, enqueue, finish, finishing, pid,
    release, run, state, value,
};
use crate::harness::{Db, blocked_on_lock};

/// The lease ends now.
const EXPIRE: &str = "update workers set lease_ends_at = clock_timestamp() - interval '1 ms'";
const RESCUE: &str = "select done || ' ' || more from rescue(1000)";
const OUTCOMES: &str = "select coalesce(outcome, 'open') from executions order by job_id, attempt";

#[tokio::test]
async fn a_lost_lease_is_taken_back_and_the_old_token_is_worth_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'k'").await;
    let worker = Uuid::new_v4();
    let old = acquire(&client, worker, 1).await;
    assert_eq!(value::<String>(&client, RESCUE).await, "0 false");
    run(&client, EXPIRE).await;
    assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
    assert_eq!(value::<String>(&client, "select status from workers").await, "lost");
    assert_eq!(value::<i64>(&client, "select count(*) from grants").await, 0);
    // At once, and one failure counted.
    assert_eq!(state(&client, job).await, "ready");
    assert_eq!(value::<i32>(&client, "select failures from jobs").await, 1);
    let new = acquire(&client, Uuid::new_v4(), 1).await;
    assert_eq!((new[0].job_id, new[0].attempt), (job, 2));
    for (verb, more) in [
        ("complete", ""),
        ("fail", ""),
        ("snooze", ", array[clock_timestamp() + interval '1 h']"),
        ("release", ""),
    ] {
        assert_eq!(finish(&client, verb, &old, more).await, ["stale"], "{verb}");
    }
    assert_eq!(finish(&client, "heartbeat", &old, "").await, ["lost"]);
    assert_eq!(complete(&client, &new).await, ["completed"]);
    let outcomes: Vec<String> = column(&client, OUTCOMES).await;
    assert_eq!(outcomes, ["lost", "completed"]);
    db.finish().await;
}

#[tokio::test]
async fn losses_count_against_max_attempts_and_releases_and_snoozes_do_not() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'k', max_attempts => 2").await;
    let mut got = acquire(&client, Uuid::new_v4(), 1).await;
    for _ in 0..3 {
        assert_eq!(release(&client, &got).await, ["released"]);
        got = acquire(&client, Uuid::new_v4(), 1).await;
        let past = ", array[clock_timestamp() - interval '1 s']";
        assert_eq!(finish(&client, "snooze", &got, past).await, ["snoozed"]);
        got = acquire(&client, Uuid::new_v4(), 1).await;
    }
    for wanted in ["ready", "discarded"] {
        run(&client, EXPIRE).await;
        assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
        assert_eq!(state(&client, job).await, wanted);
        acquire(&client, Uuid::new_v4(), 1).await;
    }
    let row = "select failures || ' ' || attempt || ' ' || reason from jobs";
    assert_eq!(value::<String>(&client, row).await, "2 8 max_attempts reached");
    db.finish().await;
}

#[tokio::test]
async fn a_missing_worker_is_a_lost_one() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'k'").await;
    acquire(&client, Uuid::new_v4(), 1).await;
    run(&client, "delete from workers").await;
    assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
    assert_eq!(state(&client, job).await, "ready");
    // And to itself: it comes back as somebody new.
    let worker = Uuid::new_v4();
    let got = acquire(&client, worker, 1).await;
    run(&client, "delete from workers").await;
    assert_eq!(acquire(&client, worker, 1).await[0].attempt, 3);
    assert_eq!(finish(&client, "heartbeat", &got, "").await, ["lost"]);
    db.finish().await;
}

#[tokio::test]
async fn a_heartbeat_after_the_lease_keeps_what_it_lists_and_loses_the_rest() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k') from generate_series(1, 3)").await;
    let worker = Uuid::new_v4();
    let got = acquire(&client, worker, 3).await;
    run(&client, EXPIRE).await;
    assert_eq!(finish(&client, "heartbeat", &got[..2], "").await, ["held", "held"]);
    assert_eq!(state(&client, got[2].job_id).await, "ready");
    assert_eq!(complete(&client, &got).await, ["completed", "completed", "stale"]);
    db.finish().await;
}

#[tokio::test]
async fn a_heartbeat_after_rescue_is_told_that_all_is_lost() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k') from generate_series(1, 2)").await;
    let worker = Uuid::new_v4();
    let got = acquire(&client, worker, 2).await;
    run(&client, EXPIRE).await;
    assert_eq!(value::<String>(&client, RESCUE).await, "2 false");
    assert_eq!(finish(&client, "heartbeat", &got, "").await, ["lost", "lost"]);
    assert_eq!(value::<String>(&client, "select status from workers").await, "live");
    assert_eq!(acquire(&client, worker, 5).await.len(), 2);
    db.finish().await;
}

#[tokio::test]
async fn an_acquire_after_the_lease_loses_the_old_ones_first() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'k'").await;
    let worker = Uuid::new_v4();
    let old = acquire(&client, worker, 1).await;
    run(&client, EXPIRE).await;
    let new = acquire(&client, worker, 1).await;
    assert_eq!((new[0].job_id, new[0].attempt), (job, 2));
    assert_eq!(complete(&client, &old).await, ["stale"]);
    assert_eq!(complete(&client, &new).await, ["completed"]);
    db.finish().await;
}

#[tokio::test]
async fn what_a_worker_does_not_hold_is_lost_to_its_heartbeat() {
    let db = Db::new().await;
    let client = db.connect().await;
    enqueue(&client, "'k'").await;
    let got = acquire(&client, Uuid::new_v4(), 1).await;
    let theirs = Execution { worker: Uuid::new_v4(), ..got[0].clone() };
    let guessed = Execution { token: Uuid::new_v4(), ..got[0].clone() };
    assert_eq!(finish(&client, "heartbeat", &[theirs], "").await, ["lost"]);
    assert_eq!(finish(&client, "heartbeat", &[guessed], "").await, ["lost"]);
    assert_eq!(cancel(&client, &[got[0].job_id]).await, ["cancelling"]);
    let twice = [got[0].clone(), got[0].clone()];
    assert_eq!(finish(&client, "heartbeat", &twice, "").await, ["cancel", "cancel"]);
    assert_eq!(complete(&client, &got).await, ["cancelled"]);
    db.finish().await;
}

#[tokio::test]
async fn a_completion_in_flight_is_left_to_its_worker() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    run(&client, "select enqueue('k') from generate_series(1, 2)").await;
    let worker = Uuid::new_v4();
    let got = acquire(&client, worker, 2).await;
    // Completion first: rescue passes it by without waiting and takes the other.
    run(&other, "begin").await;
    assert_eq!(complete(&other, &got[..1]).await, ["completed"]);
    run(&client, &format!("set statement_timeout = '5 s'; {EXPIRE}")).await;
    assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
    run(&other, "commit").await;
    assert_eq!(value::<String>(&client, RESCUE).await, "0 false");
    assert_eq!(state(&client, got[0].job_id).await, "completed");
    assert_eq!(value::<i64>(&client, "select count(*) from grants").await, 0);

    // Rolled back instead: the next pass takes it.
    let got = acquire(&client, worker, 1).await;
    run(&other, "begin").await;
    assert_eq!(complete(&other, &got).await, ["completed"]);
    run(&client, EXPIRE).await;
    assert_eq!(value::<String>(&client, RESCUE).await, "0 false");
    run(&other, "rollback").await;
    assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
    assert_eq!(complete(&other, &got).await, ["stale"]);
    db.finish().await;
}

#[tokio::test]
async fn a_completion_waits_for_a_rescue_in_flight_and_is_stale() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    for (end, wanted) in [("rollback", "completed"), ("commit", "stale")] {
        enqueue(&client, "'k'").await;
        let got = acquire(&client, Uuid::new_v4(), 1).await;
        run(&client, EXPIRE).await;
        run(&client, "begin").await;
        assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
        let waiter = pid(&other).await;
        let call = finishing("complete", &got, "");
        let completing = async { value::<String>(&other, &call).await };
        let ending = async {
            let observer = db.connect().await;
            blocked_on_lock(&observer, waiter).await;
            run(&client, end).await;
        };
        let (verdict, ()) = tokio::join!(completing, ending);
        assert_eq!(verdict, wanted);
    }
    db.finish().await;
}

/// Its own release is in flight, and the job has gone to another worker when the locks are free.
async fn a_successors_execution_is_left_alone(expired: bool) {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let job = enqueue(&client, "'k'").await;
    let (worker, successor) = (Uuid::new_v4(), Uuid::new_v4());
    let old = acquire_with(&client, worker, "'{default}', call_number => 1").await;
    if expired {
        run(&client, EXPIRE).await;
    }
    run(&other, "begin").await;
    assert_eq!(release(&other, &old).await, ["released"]);
    let new = acquire(&other, successor, 1).await;
    assert_eq!((new[0].job_id, new[0].attempt), (job, 2));
    let beating = db.connect().await;
    let waiter = pid(&beating).await;
    let call = format!("select heartbeat('{worker}', '{{}}', '{{}}', '{{}}', seen_call => 1)");
    let ending = async {
        blocked_on_lock(&client, waiter).await;
        run(&other, "commit").await;
    };
    tokio::join!(run(&beating, &call), ending);
    assert_eq!(finish(&client, "heartbeat", &new, "").await, ["held"]);
    assert_eq!(complete(&client, &new).await, ["completed"]);
    db.finish().await;
}

#[tokio::test]
async fn a_late_heartbeat_does_not_lose_what_a_successor_runs() {
    a_successors_execution_is_left_alone(true).await;
}

#[tokio::test]
async fn a_reconciliation_does_not_release_what_a_successor_runs() {
    a_successors_execution_is_left_alone(false).await;
}

#[tokio::test]
async fn reconciliation_gives_back_what_lost_replies_granted() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k') from generate_series(1, 4)").await;
    let worker = Uuid::new_v4();
    let mut calls = Vec::new();
    for number in ["1", "2", "3", "null"] {
        let call = format!("'{{default}}', call_number => {number}");
        calls.push(acquire_with(&client, worker, &call).await.remove(0));
    }
    let listed = from_ref(&calls[0]);
    // Without a number, it only extends.
    assert_eq!(finish(&client, "heartbeat", listed, "").await, ["held"]);
    assert_eq!(value::<i64>(&client, "select count(*) from ready").await, 0);
    // The reply of call 2 was lost; call 3 is still in flight; the last has no number.
    assert_eq!(finish(&client, "heartbeat", listed, ", seen_call => 2").await, ["held"]);
    assert_eq!(state(&client, calls[1].job_id).await, "ready");
    let verdicts = complete(&client, &calls).await;
    assert_eq!(verdicts, ["completed", "stale", "completed", "completed"]);
    assert_eq!(value::<i64>(&client, "select sum(failures) from jobs").await, 0);
    // Ended grants go with the next heartbeat.
    assert_eq!(finish(&client, "heartbeat", listed, "").await, ["lost"]);
    assert_eq!(value::<i64>(&client, "select count(*) from grants").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn a_cancelled_job_is_not_given_back() {
    let db = Db::new().await;
    let client = db.connect().await;
    let reconciled = enqueue(&client, "'k'").await;
    let worker = Uuid::new_v4();
    acquire_with(&client, worker, "'{default}', call_number => 1").await;
    let lost = enqueue(&client, "'k'").await;
    acquire(&client, Uuid::new_v4(), 1).await;
    assert_eq!(cancel(&client, &[reconciled, lost]).await, ["cancelling", "cancelling"]);
    let call = format!("select heartbeat('{worker}', '{{}}', '{{}}', '{{}}', seen_call => 1)");
    run(&client, &call).await;
    run(&client, EXPIRE).await;
    assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
    for job in [reconciled, lost] {
        assert_eq!(state(&client, job).await, "cancelled");
    }
    db.finish().await;
}

#[tokio::test]
async fn a_worker_without_heartbeats_leaves_no_trail_of_grants() {
    let db = Db::new().await;
    let client = db.connect().await;
    let worker = Uuid::new_v4();
    for _ in 0..20 {
        enqueue(&client, "'k'").await;
        let got = acquire(&client, worker, 1).await;
        assert_eq!(complete(&client, &got).await, ["completed"]);
        // Time goes on, within the lease.
        run(&client, "update workers set lease_ends_at = lease_ends_at - interval '11 s'").await;
    }
    let grants: i64 = value(&client, "select count(*) from grants").await;
    assert!(grants <= 2, "{grants} grants are kept");
    db.finish().await;
}
