//! Finishing verbs: one verdict an entry, in input order, each by its own execution.

use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    Execution, acquire, acquire_job, cancel, complete, discard, drain, enqueue, fail, finish,
    finishing, refused, release, retry, run, state, states, value,
};

const AT_ONCE: &str = ", retry_at => '{2020-01-01Z}'";

pub(super) async fn running(client: &Client, jobs: usize) -> Vec<Execution> {
    for _ in 0..jobs {
        enqueue(client, "'a'").await;
    }
    let executions = acquire(client, Uuid::new_v4(), 1000).await;
    assert_eq!(executions.len(), jobs);
    executions
}

async fn outcome(client: &Client, execution: &Execution) -> Option<String> {
    let sql = format!(
        "select outcome from executions where job_id = '{}' and attempt = {}",
        execution.job_id, execution.attempt
    );
    value(client, &sql).await
}

#[tokio::test]
async fn verdicts_come_in_input_order() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut executions = running(&client, 6).await;
    executions.reverse();
    let wrong = |change: fn(&mut Execution)| {
        let mut execution = executions[1].clone();
        change(&mut execution);
        execution
    };
    let batch = [
        executions[0].clone(),
        wrong(|execution| execution.token = Uuid::new_v4()),
        executions[2].clone(),
        executions[0].clone(),
        wrong(|execution| execution.attempt = 2),
        wrong(|execution| execution.job_id = Uuid::nil()),
        executions[1].clone(),
    ];
    let expected = ["completed", "stale", "completed", "repeated", "stale", "stale", "completed"];
    assert_eq!(complete(&client, &batch).await, expected);
    let ids: Vec<String> = client
        .query(&finishing("complete", &batch, "").replace("verdict", "job_id::text"), &[])
        .await
        .expect("again")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let given: Vec<String> = batch.iter().map(|entry| entry.job_id.to_string()).collect();
    assert_eq!(ids, given);
    let others = executions[3..].iter().map(|execution| execution.job_id).collect::<Vec<_>>();
    assert_eq!(states(&client, &others).await, vec!["running"; 3]);
    // Somebody else's worker id has no right to them.
    let mut foreign = executions[3].clone();
    foreign.worker = Uuid::new_v4();
    for verb in ["complete", "fail", "release"] {
        assert_eq!(finish(&client, verb, &[foreign.clone()], "").await, ["stale"]);
    }
    let until = ", until => '{2030-01-01Z}'";
    assert_eq!(finish(&client, "snooze", &[foreign.clone()], until).await, ["stale"]);
    db.finish().await;
}

#[tokio::test]
async fn nulls_in_the_arrays_are_stale_and_harm_nobody() {
    let db = Db::new().await;
    let client = db.connect().await;
    let [execution] = &running(&client, 1).await[..] else { panic!("one") };
    let Execution { worker, job_id, attempt, token, .. } = execution;
    let sql = format!(
        "select array_agg(verdict) from complete('{worker}', array[null, '{job_id}', '{job_id}', '{job_id}']::uuid[],
         array[{attempt}, null, {attempt}, {attempt}], array['{token}', '{token}', null, '{token}']::uuid[])"
    );
    let verdicts: Vec<String> = value(&client, &sql).await;
    assert_eq!(verdicts, ["stale", "stale", "stale", "completed"]);
    db.finish().await;
}

#[tokio::test]
async fn what_was_done_is_repeated_and_what_was_done_otherwise_is_stale() {
    let db = Db::new().await;
    let client = db.connect().await;
    let verbs = [
        ("complete", "", "completed"),
        ("fail", AT_ONCE, "retrying"),
        ("snooze", ", until => '{2020-01-01Z}'", "snoozed"),
        ("release", "", "released"),
    ];
    for (verb, more, done) in verbs {
        let executions = running(&client, 1).await;
        assert_eq!(finish(&client, verb, &executions, more).await, [done]);
        for (other, more, _) in verbs {
            let expected = if other == verb { "repeated" } else { "stale" };
            let verdict = finish(&client, other, &executions, more).await;
            assert_eq!(verdict, [expected], "{other} after {verb}");
        }
        drain(&client).await;
        let verdict = finish(&client, verb, &executions, more).await;
        assert_eq!(verdict, ["repeated"], "{verb}, though a later execution completed the job");
    }
    db.finish().await;
}

#[tokio::test]
async fn an_old_execution_is_repeated_beside_a_new_one_in_one_call() {
    let db = Db::new().await;
    let client = db.connect().await;
    let verbs = [
        ("fail", ", retry_at => '{2020-01-01Z,2020-01-01Z,2020-01-01Z}'", AT_ONCE, "retrying"),
        ("release", "", "", "released"),
    ];
    for (verb, more, one, done) in verbs {
        let job = enqueue(&client, "'a'").await;
        let worker = Uuid::new_v4();
        let old = acquire(&client, worker, 1).await.remove(0);
        assert_eq!(finish(&client, verb, std::slice::from_ref(&old), one).await, [done]);
        let new = acquire(&client, worker, 1).await.remove(0);
        assert_eq!((new.job_id, new.attempt), (job, 2));
        let batch = [old.clone(), new.clone(), new];
        assert_eq!(finish(&client, verb, &batch, more).await, ["repeated", done, "repeated"]);
        drain(&client).await;
    }
    db.finish().await;
}

#[tokio::test]
async fn repeated_is_judged_by_its_own_execution_after_a_retry() {
    let db = Db::new().await;
    let client = db.connect().await;
    let execution = running(&client, 1).await.remove(0);
    assert_eq!(discard(&client, std::slice::from_ref(&execution)).await, ["discarded"]);
    assert_eq!(retry(&client, &[execution.job_id]).await, ["retried"]);
    assert_eq!(discard(&client, std::slice::from_ref(&execution)).await, ["repeated"]);
    assert_eq!(complete(&client, std::slice::from_ref(&execution)).await, ["stale"]);
    assert_eq!(state(&client, execution.job_id).await, "ready");
    drain(&client).await;
    assert_eq!(discard(&client, &[execution]).await, ["repeated"]);
    db.finish().await;
}

#[tokio::test]
async fn who_was_asked_to_stop_ends_cancelled_whatever_the_verb() {
    let db = Db::new().await;
    let client = db.connect().await;
    let verbs = [
        ("complete", ", results => '{\"1\"}'"),
        ("fail", ""),
        ("fail", ", discard => '{true}'"),
        ("snooze", ", until => '{2030-01-01Z}'"),
        ("release", ""),
    ];
    for (verb, more) in verbs {
        let execution = running(&client, 1).await.remove(0);
        let one = std::slice::from_ref(&execution);
        assert_eq!(cancel(&client, &[execution.job_id]).await, ["cancelling"]);
        assert_eq!(cancel(&client, &[execution.job_id]).await, ["cancelling"]);
        assert_eq!(finish(&client, "heartbeat", one, "").await, ["cancel"]);
        assert_eq!(finish(&client, verb, one, more).await, ["cancelled"], "{verb}{more}");
        assert_eq!(finish(&client, verb, one, more).await, ["cancelled"], "{verb}{more} again");
        assert_eq!(outcome(&client, &execution).await.as_deref(), Some("cancelled"));
        assert_eq!(state(&client, execution.job_id).await, "cancelled");
        assert_eq!(cancel(&client, &[execution.job_id]).await, ["cancelled"]);
        let sql =
            format!("select result is null from executions where job_id = '{}'", execution.job_id);
        assert!(value::<bool>(&client, &sql).await, "a cancelled job has no result");
    }
    // Lost, too: the lease ends while it was asked to stop.
    let execution = running(&client, 1).await.remove(0);
    cancel(&client, &[execution.job_id]).await;
    run(&client, "update workers set lease_ends_at = lease_ends_at - interval '1 hour'").await;
    run(&client, "select * from maintain()").await;
    assert_eq!(state(&client, execution.job_id).await, "cancelled");
    assert_eq!(complete(&client, &[execution]).await, ["cancelled"]);
    db.finish().await;
}

#[tokio::test]
async fn complete_or_raise_stands_or_falls_with_the_callers_writes() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "create table public.written (n int)").await;
    let execution = running(&client, 1).await.remove(0);
    let Execution { worker, job_id, attempt, token, .. } = &execution;
    let call = |token: &Uuid, result: &str| {
        format!("select complete_or_raise('{worker}', '{job_id}', {attempt}, '{token}', {result})")
    };
    run(
        &client,
        &format!("begin; insert into public.written values (1); {}; rollback", call(token, "'1'")),
    )
    .await;
    assert_eq!(state(&client, *job_id).await, "running");
    run(&client, "begin; insert into public.written values (2)").await;
    let error = refused(&client, "RL001", &call(&Uuid::nil(), "null")).await;
    assert_eq!(error.detail(), Some(job_id.to_string().as_str()));
    run(&client, "rollback").await;
    let large = call(token, "to_jsonb(repeat('x', 300000))");
    let error = refused(&client, "RL413", &large).await;
    assert_eq!(error.message(), "result is too large");
    let whole = format!(
        "begin; insert into public.written values (3); {}; commit",
        call(token, "'{\"ok\": true}'")
    );
    run(&client, &whole).await;
    assert_eq!(state(&client, *job_id).await, "completed");
    assert_eq!(value::<Vec<i32>>(&client, "select array_agg(n) from public.written").await, [3]);
    // As after a COMMIT without an answer: the same transaction again.
    run(&client, "begin; insert into public.written values (3)").await;
    let error = refused(&client, "RL001", &call(token, "'{\"ok\": true}'")).await;
    assert_eq!(error.message(), "this execution has been completed already");
    run(&client, "rollback").await;
    assert_eq!(value::<Vec<i32>>(&client, "select array_agg(n) from public.written").await, [3]);
    let sql = format!("select result from executions where job_id = '{job_id}'");
    assert_eq!(value::<Value>(&client, &sql).await, serde_json::json!({"ok": true}));
    let execution = running(&client, 1).await.remove(0);
    cancel(&client, &[execution.job_id]).await;
    let sql = format!(
        "select complete_or_raise('{}', '{}', 1, '{}')",
        execution.worker, execution.job_id, execution.token
    );
    assert!(!value::<bool>(&client, &sql).await, "it was asked to stop");
    db.finish().await;
}

#[tokio::test]
async fn failing_always_succeeds() {
    let db = Db::new().await;
    let client = db.connect().await;
    let kept = async |error: &str| -> String {
        let job = enqueue(&client, "'a'").await;
        let execution = acquire_job(&client, job).await;
        let more = format!(", errors => array[{error}], discard => '{{true}}'");
        assert_eq!(finish(&client, "fail", &[execution], &more).await, ["discarded"]);
        value(&client, &format!("select error from executions where job_id = '{job}'")).await
    };
    assert_eq!(kept("'plain: é 雪\n\tat line 1'").await, "plain: é 雪\n\tat line 1");
    let ansi = kept(r"E'\x1b[31mred\x1b[0m\x07\x08\x7f' || chr(155) || '1mend'").await;
    assert!(!ansi.chars().any(|c| c.is_control()), "{ansi:?}");
    assert!(ansi.contains("red") && ansi.contains("end"), "{ansi:?}");
    let huge = kept("repeat('x', 100000000)").await;
    assert_eq!(huge.len(), 16_384);
    for wide in ["é", "雪", "🦀"] {
        let cut = kept(&format!("repeat('{wide}', 20000)")).await;
        assert!(!cut.is_empty() && cut.len() <= 16_384, "{wide}: {} bytes", cut.len());
        assert!(cut.starts_with(wide), "cut between characters");
    }
    assert_eq!(kept("''").await, "");
    let execution = running(&client, 1).await;
    assert_eq!(fail(&client, &execution).await, ["retrying"]);
    db.finish().await;
}

#[tokio::test]
async fn the_backoff_doubles_between_its_bounds() {
    let db = Db::new().await;
    let client = db.connect().await;
    for failures in 1..=30 {
        let base = (1u64 << (failures - 1).min(20)).min(86_400);
        let sql = format!(
            "select min(backoff({failures})) >= interval '1 second' * {base} / 2
                and max(backoff({failures})) <= interval '1 second' * {base}
                and max(backoff({failures})) > min(backoff({failures}))
             from generate_series(1, 200)"
        );
        assert!(value::<bool>(&client, &sql).await, "after {failures} failures");
    }
    let execution = running(&client, 1).await.remove(0);
    fail(&client, std::slice::from_ref(&execution)).await;
    let waits = "select extract(epoch from s.run_at - clock_timestamp())::float8 from scheduled s";
    let waits: f64 = value(&client, waits).await;
    assert!(-5.0 < waits && waits <= 1.0, "about a second: {waits}");
    db.finish().await;
}

#[tokio::test]
async fn max_attempts_are_used_up_by_failures_alone() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'a', max_attempts => 3").await;
    let steps = [
        ("fail", AT_ONCE, "retrying"),
        ("release", "", "released"),
        ("snooze", ", until => '{2020-01-01Z}'", "snoozed"),
        ("fail", AT_ONCE, "retrying"),
        ("release", "", "released"),
        ("fail", AT_ONCE, "discarded"),
    ];
    for (verb, more, expected) in steps {
        let execution = acquire_job(&client, job).await;
        assert_eq!(finish(&client, verb, &[execution], more).await, [expected]);
    }
    let row =
        client.query_one("select attempt, failures, reason from jobs", &[]).await.expect("row");
    assert_eq!((row.get(0), row.get(1)), (6, 3));
    assert_eq!(row.get::<_, String>(2), "max_attempts reached");
    run(&client, "insert into queues (name, max_attempts) values ('default', 1)").await;
    let job = enqueue(&client, "'a'").await;
    let execution = acquire_job(&client, job).await;
    assert_eq!(fail(&client, &[execution]).await, ["discarded"], "the queue's own");
    db.finish().await;
}

#[tokio::test]
async fn a_snoozed_job_waits_for_its_time() {
    let db = Db::new().await;
    let client = db.connect().await;
    let executions = running(&client, 2).await;
    let until = ", until => array[now() + interval '1 hour', now() - interval '1 hour']";
    assert_eq!(finish(&client, "snooze", &executions, until).await, ["snoozed", "snoozed"]);
    let jobs: Vec<Uuid> = executions.iter().map(|execution| execution.job_id).collect();
    assert_eq!(states(&client, &jobs).await, ["scheduled", "ready"]);
    assert_eq!(release(&client, &executions).await, ["stale", "stale"]);
    db.finish().await;
}

#[tokio::test]
async fn bad_arguments_are_refused_and_change_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    let execution = running(&client, 1).await;
    let id = execution[0].job_id;
    let good =
        format!("'{}', '{{{id}}}', '{{1}}', '{{{}}}'", execution[0].worker, execution[0].token);
    for verb in ["complete", "fail", "release", "snooze", "heartbeat"] {
        let until = if verb == "snooze" { ", '{2030-01-01Z}'" } else { "" };
        for bad in [
            format!("null, '{{{id}}}', '{{1}}', '{{{id}}}'"),
            format!("'{id}', null, '{{1}}', '{{{id}}}'"),
            format!("'{id}', '{{{id}}}', null, '{{{id}}}'"),
            format!("'{id}', '{{{id}}}', '{{1,2}}', '{{{id}}}'"),
            format!("'{id}', '{{{id}}}', '{{1}}', '{{}}'"),
        ] {
            refused(&client, "RL422", &format!("select {verb}({bad}{until})")).await;
        }
        let many = "array(select gen_random_uuid() from generate_series(1, 10001))";
        let ones = "array_fill(1, array[10001])";
        let untils = if verb == "snooze" { ", array_fill(now(), array[10001])" } else { "" };
        let call = format!("select {verb}('{id}', {many}, {ones}, {many}{untils})");
        refused(&client, "RL413", &call).await;
        for level in ["repeatable read", "serializable"] {
            run(&client, &format!("begin isolation level {level}")).await;
            let error = refused(&client, "RL025", &format!("select {verb}({good}{until})")).await;
            assert_eq!(error.message(), format!("{verb} needs READ COMMITTED"));
            assert_eq!(error.detail(), Some(level));
            run(&client, "rollback").await;
        }
    }
    for (verb, bad) in [
        ("snooze", "null"),
        ("snooze", "'{}'"),
        ("snooze", "'{null}'"),
        ("snooze", "'{infinity}'"),
        ("snooze", "'{2999-01-01Z}'"),
        ("fail", "retry_at => '{infinity}'"),
        ("fail", "errors => '{a,b}'"),
        ("fail", "discard => '{true,true}'"),
        ("complete", "results => array['1','2']::jsonb[]"),
    ] {
        refused(&client, "RL422", &format!("select {verb}({good}, {bad})")).await;
    }
    assert_eq!(state(&client, id).await, "running");
    assert_eq!(complete(&client, &execution).await, ["completed"]);
    db.finish().await;
}
