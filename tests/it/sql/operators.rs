//! Operators' verbs: cancel, retry, pause and resume.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    acquire, acquire_job, cancel, complete, discard, drain, enqueue, enqueue_many, finish, ids,
    pid, refused, retry, run, state, states, value,
};
use crate::harness::{Db, wait_until};

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn cancel_answers_for_every_state() {
    let db = Db::new().await;
    let client = db.connect().await;
    let running = enqueue(&client, "'a'").await;
    let execution = acquire_job(&client, running).await;
    let discarded = enqueue(&client, "'a'").await;
    discard(&client, &[acquire_job(&client, discarded).await]).await;
    let completed = enqueue(&client, "'a'").await;
    complete(&client, &[acquire_job(&client, completed).await]).await;
    let ready = enqueue(&client, "'a'").await;
    let scheduled = enqueue(&client, "'a', run_at => now() + interval '1 hour'").await;
    let blocked = enqueue(&client, &format!("'a', depends_on => '{{{running}}}'")).await;
    let jobs = [ready, scheduled, blocked, running, completed, discarded, Uuid::nil(), ready];
    let expected = [
        "cancelled",
        "cancelled",
        "cancelled",
        "cancelling",
        "finished",
        "finished",
        "unknown",
        "cancelled",
    ];
    assert_eq!(cancel(&client, &jobs).await, expected);
    let states_now = states(&client, &jobs[..6]).await;
    let expected = ["cancelled", "cancelled", "cancelled", "running", "completed", "discarded"];
    assert_eq!(states_now, expected);
    let nulls: Vec<String> =
        value(&client, "select array_agg(verdict) from cancel('{null,null}')").await;
    assert_eq!(nulls, ["unknown", "unknown"]);
    assert!(cancel(&client, &[]).await.is_empty());
    assert_eq!(complete(&client, &[execution]).await, ["cancelled"]);
    let verdicts = retry(&client, &jobs).await;
    let expected =
        ["retried", "retried", "retried", "retried", "completed", "retried", "unknown", "retried"];
    assert_eq!(verdicts, expected);
    let due = state(&client, scheduled).await;
    assert_eq!(due, "ready", "a retry is for now");
    assert_eq!(drain(&client).await, 5);
    db.finish().await;
}

#[tokio::test]
async fn what_is_held_is_refused_for_now_and_nothing_changes() {
    let db = Db::new().await;
    let (client, holder) = (db.connect().await, db.connect().await);
    let free = enqueue(&client, "'a'").await;
    let held = enqueue(&client, "'a', unique_key => 'k'").await;
    run(&holder, "begin").await;
    acquire_job(&holder, held).await;
    let call = format!("select cancel({})", ids(&[free, held]));
    let error = refused(&client, "RL429", &call).await;
    assert_eq!(error.message(), "cancel met jobs that are held by other transactions");
    assert_eq!(state(&client, free).await, "ready");
    run(&holder, "rollback").await;
    assert_eq!(cancel(&client, &[free, held]).await, ["cancelled", "cancelled"]);
    run(&holder, &format!("begin; select from jobs where id = '{held}' for no key update")).await;
    let call = format!("select retry({})", ids(&[free, held]));
    refused(&client, "RL429", &call).await;
    assert_eq!(states(&client, &[free, held]).await, ["cancelled", "cancelled"]);
    run(&holder, "rollback; begin").await;
    // A key in an open transaction may be taken or not: nobody can say yet.
    enqueue(&holder, "'a', unique_key => 'k'").await;
    refused(&client, "RL429", &call).await;
    run(&holder, "commit").await;
    assert_eq!(retry(&client, &[free, held]).await, ["retried", "conflict"]);
    db.finish().await;
}

#[tokio::test]
async fn what_is_held_for_a_moment_is_tried_again() {
    let db = Db::new().await;
    let (client, holder) = (db.connect().await, db.connect().await);
    let job = enqueue(&client, "'a'").await;
    run(&holder, "begin").await;
    let execution = acquire_job(&holder, job).await;
    let (jobs, observer, pid) = ([job], db.connect().await, pid(&client).await);
    let sleeping = format!("select wait_event = 'PgSleep' from pg_stat_activity where pid = {pid}");
    let pausing = async {
        wait_until("it pauses before it tries again", Duration::from_secs(20), async || {
            value::<Option<bool>>(&observer, &sleeping).await == Some(true)
        })
        .await;
        run(&holder, "commit").await;
    };
    let (verdicts, ()) = tokio::join!(cancel(&client, &jobs), pausing);
    assert_eq!(verdicts, ["cancelling"]);
    assert_eq!(complete(&client, &[execution]).await, ["cancelled"]);
    db.finish().await;
}

#[tokio::test]
async fn operators_verbs_need_read_committed_and_a_bounded_call() {
    let db = Db::new().await;
    let client = db.connect().await;
    let many = "array(select gen_random_uuid() from generate_series(1, 10001))";
    for verb in ["cancel", "retry"] {
        refused(&client, "RL413", &format!("select {verb}({many})")).await;
        run(&client, "begin isolation level repeatable read").await;
        let error = refused(&client, "RL025", &format!("select {verb}('{{}}')")).await;
        assert_eq!(error.message(), format!("{verb} needs READ COMMITTED"));
        run(&client, "rollback").await;
    }
    run(&client, "begin isolation level serializable").await;
    refused(&client, "RL025", "select * from maintain()").await;
    run(&client, "rollback").await;
    for rows in ["0", "null", "100001", "-1"] {
        let error = refused(&client, "RL422", &format!("select * from maintain({rows})")).await;
        assert_eq!(error.message(), "max_rows is not valid");
    }
    for call in ["pause_queue(null)", "pause_queue('a b')", "resume_queue('')"] {
        let error = refused(&client, "RL422", &format!("select {call}")).await;
        assert_eq!(error.message(), "queue is not valid");
    }
    db.finish().await;
}

#[tokio::test]
async fn a_cancelled_parent_that_has_a_running_child_harms_it_not() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "p", "ref": "p"},
        {"kind": "c", "depends_on": ["p"], "on_parent_failure": "continue"}]);
    let jobs = enqueue_many(&client, &call).await;
    cancel(&client, &[jobs[0].job_id]).await;
    let execution = acquire_job(&client, jobs[1].job_id).await;
    // Retried, run and discarded again: the child went on before.
    assert_eq!(retry(&client, &[jobs[0].job_id]).await, ["retried"]);
    discard(&client, &[acquire_job(&client, jobs[0].job_id).await]).await;
    assert_eq!(complete(&client, &[execution]).await, ["completed"]);
    db.finish().await;
}

#[tokio::test]
async fn a_paused_queue_gives_nothing_until_it_is_resumed() {
    let db = Db::new().await;
    let client = db.connect().await;
    let worker = Uuid::new_v4();
    let before = enqueue(&client, "'a'").await;
    let execution = acquire(&client, worker, 1).await;
    assert!(value::<bool>(&client, "select pause_queue('default')").await);
    assert!(!value::<bool>(&client, "select pause_queue('default')").await, "it was paused");
    enqueue(&client, "'a'").await;
    assert!(acquire(&client, worker, 10).await.is_empty());
    // What runs may end, and what it releases waits.
    assert_eq!(finish(&client, "complete", &execution, "").await, ["completed"]);
    assert_eq!(state(&client, before).await, "completed");
    assert!(value::<bool>(&client, "select resume_queue('default')").await);
    assert!(!value::<bool>(&client, "select resume_queue('default')").await, "it was running");
    assert!(!value::<bool>(&client, "select resume_queue('unheard')").await);
    assert_eq!(acquire(&client, worker, 10).await.len(), 1);
    db.finish().await;
}

/// Lets a verb go on, once it holds what it found, only when the jobs are there that it was given.
async fn wait_for_the_unknown(client: &Client, function: &str) {
    let sql = format!(
        r"do $do$
        declare
            text text := pg_get_functiondef('{function}'::regproc);
            held text := 'perform hold_jobs({function}.ids);';
        begin
            assert strpos(text, held) > 0;
            execute replace(text, held, held || '
                while {function}.ids <> ''{{}}''
                    and not exists (select from jobs j where j.id = any({function}.ids))
                loop
                    perform pg_sleep(0.005);
                end loop;');
        end $do$"
    );
    run(client, &sql).await;
}

#[tokio::test]
async fn a_job_that_comes_while_a_verb_is_under_way_is_unknown_and_unharmed() {
    let db = Db::new().await;
    let (client, producer) = (db.connect().await, db.connect().await);
    for function in ["cancel_once", "reprioritize_once"] {
        wait_for_the_unknown(&client, function).await;
    }
    let parent = enqueue(&client, "'a'").await;
    let execution = acquire_job(&client, parent).await;
    let mut jobs = Vec::new();
    for verb in ["cancel(array[$1::uuid])", "reprioritize(array[$1::uuid], 0)"] {
        for more in [String::new(), format!(", depends_on => '{{{parent}}}'")] {
            let id = Uuid::now_v7();
            jobs.push(id);
            run(&producer, "begin").await;
            enqueue(&producer, &format!("'a', id => '{id}'{more}")).await;
            let operator = db.connect().await;
            let operator_pid = pid(&operator).await;
            let sql = format!("select verdict from {verb}");
            let asking = tokio::spawn(async move { operator.query_one(&sql, &[&id]).await });
            let waits = "select wait_event = 'PgSleep' from pg_stat_activity where pid = $1";
            wait_until("it has answered, or waits in the middle", DEADLINE, || async {
                let row = client.query_opt(waits, &[&operator_pid]).await.expect("a view");
                asking.is_finished()
                    || row.is_some_and(|row| row.get::<_, Option<bool>>(0) == Some(true))
            })
            .await;
            run(&producer, "commit").await;
            let verdict: String = asking.await.expect("no panic").expect("an answer").get(0);
            assert_eq!(verdict, "unknown", "{verb}");
        }
    }
    assert_eq!(states(&client, &jobs).await, ["ready", "blocked", "ready", "blocked"]);
    assert_eq!(complete(&client, &[execution]).await, ["completed"]);
    assert_eq!(drain(&client).await, 4);
    db.finish().await;
}
