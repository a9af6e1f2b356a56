//! What a handler answers, and what becomes of the job.

use std::time::Duration;

use rowlock::{Job, Outcome};
use serde_json::json;

use super::{ended, enqueue, execution, job, reaches, start, state, worker};
use crate::harness::Db;
use rowlock::model::OnParentFailure;
use rowlock::{Client as Rowlock, NewJob};

type Answer = Result<Outcome, String>;

#[tokio::test]
async fn each_outcome_does_what_it_says() {
    let db = Db::new().await;
    let client = db.connect().await;
    let running = start(
        worker(&db)
            .queue("default", 8)
            .on("complete", |_: Job| async { Answer::Ok(Outcome::Complete) })
            .on("result", |_: Job| async { Outcome::complete_with(&json!({"n": 7})) })
            .on("unit", |_: Job| async { Ok::<(), String>(()) })
            .on("snooze", |_: Job| async { Answer::Ok(Outcome::Snooze(Duration::from_secs(3600))) })
            .on("discard", |_: Job| async { Answer::Ok(Outcome::Discard("never".to_owned())) })
            .on("error", |_: Job| async { Answer::Err("it broke".to_owned()) })
            .on("release", |job: Job| async move {
                if job.attempt() == 1 {
                    Answer::Ok(Outcome::Release)
                } else {
                    Ok(Outcome::Complete)
                }
            })
            .on_blocking("blocking", |job: Job| {
                let n: u64 = job.args()?;
                Outcome::complete_with(&(n * 2))
            }),
    );
    let complete = enqueue(&client, job("complete")).await;
    let result = enqueue(&client, job("result")).await;
    let unit = enqueue(&client, job("unit")).await;
    let snooze = enqueue(&client, job("snooze")).await;
    let discard = enqueue(&client, job("discard")).await;
    let error = enqueue(&client, job("error")).await;
    let release = enqueue(&client, job("release")).await;
    let blocking = enqueue(&client, NewJob::new("blocking", &21).expect("JSON")).await;
    let wrong_args = enqueue(&client, job("blocking")).await;

    for id in [complete, result, unit, release, blocking] {
        reaches(&client, id, "completed").await;
    }
    assert_eq!(execution(&client, result, 1).await.2, Some(json!({"n": 7})));
    assert_eq!(execution(&client, blocking, 1).await.2, Some(json!(42)));
    assert_eq!(execution(&client, complete, 1).await.2, None);
    assert_eq!(ended(&client, release, 1).await.0, "released");
    assert_eq!(ended(&client, release, 2).await.0, "completed");

    reaches(&client, snooze, "scheduled").await;
    let query = "select run_at between clock_timestamp() + interval '59 minutes'
                 and clock_timestamp() + interval '61 minutes' from rowlock.jobs where id = $1";
    let in_an_hour: bool = client.query_one(query, &[&snooze]).await.expect("query").get(0);
    assert!(in_an_hour);

    reaches(&client, discard, "discarded").await;
    assert_eq!(ended(&client, discard, 1).await, ("failed".to_owned(), Some("never".to_owned())));
    reaches(&client, error, "scheduled").await;
    assert_eq!(ended(&client, error, 1).await, ("failed".to_owned(), Some("it broke".to_owned())));
    let (outcome, words) = ended(&client, wrong_args, 1).await;
    assert_eq!(outcome, "failed");
    assert!(words.expect("an error").contains("invalid type: map"));
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_panic_is_a_failed_execution_and_the_worker_lives() {
    let db = Db::new().await;
    let client = db.connect().await;
    let running = start(
        worker(&db)
            .queue("default", 2)
            .on("panic", |job: Job| async move {
                assert!(job.kind() != "panic", "attempt {} went wrong", job.attempt());
                Answer::Ok(Outcome::Complete)
            })
            .on_blocking("blocking", |_: Job| -> Answer { panic!("on a thread") })
            .on("fine", |_: Job| async { Answer::Ok(Outcome::Complete) }),
    );
    let panics = enqueue(&client, job("panic")).await;
    let blocking = enqueue(&client, job("blocking")).await;
    let words = |text: &str| ("failed".to_owned(), Some(text.to_owned()));
    assert_eq!(ended(&client, panics, 1).await, words("panic: attempt 1 went wrong"));
    assert_eq!(ended(&client, blocking, 1).await, words("panic: on a thread"));
    let fine = enqueue(&client, job("fine")).await;
    reaches(&client, fine, "completed").await;
    running.stop().await;
    db.finish().await;
}

/// Whoever drops it unasked pays for it.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[tokio::test]
async fn a_panic_of_a_handler_that_was_given_up_ends_its_execution_too() {
    let db = Db::new().await;
    let client = db.connect().await;
    let deaf = |_: Job| async {
        let _mine = Mine;
        std::future::pending::<()>().await;
        Answer::Ok(Outcome::Complete)
    };
    let fine = |_: Job| async { Answer::Ok(Outcome::Complete) };
    let running = start(worker(&db).queue("default", 1).on("deaf", deaf).on("fine", fine));
    let deaf = job("deaf").timeout(Duration::from_millis(50)).max_attempts(1);
    let deaf = enqueue(&client, deaf).await;
    let (outcome, words) = ended(&client, deaf, 1).await;
    assert_eq!((outcome.as_str(), words.as_deref()), ("failed", Some("timed out after 50ms")));
    let fine = enqueue(&client, job("fine")).await;
    reaches(&client, fine, "completed").await;
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_kind_without_a_handler_is_left_to_others() {
    let db = Db::new().await;
    let client = db.connect().await;
    let strange = enqueue(&client, job("strange").priority(0)).await;
    let running = start(
        worker(&db)
            .queue("default", 2)
            .on("known", |_: Job| async { Answer::Ok(Outcome::Complete) }),
    );
    let known = enqueue(&client, job("known")).await;
    reaches(&client, known, "completed").await;
    assert_eq!(state(&client, strange).await, "ready");
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn what_no_column_can_hold_fails_its_own_job_only() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(enqueue(&client, job("fine")).await);
    }
    let nul = enqueue(&client, job("nul").max_attempts(1)).await;
    let large = enqueue(&client, job("large").max_attempts(1)).await;
    let running = start(
        worker(&db)
            .queue("default", 30)
            .on("fine", |_: Job| async { Answer::Ok(Outcome::Complete) })
            .on("nul", |_: Job| async { Outcome::complete_with("a\0b") })
            .on("large", |_: Job| async { Outcome::complete_with(&"x".repeat(300_000)) }),
    );
    for id in ids {
        reaches(&client, id, "completed").await;
    }
    for id in [nul, large] {
        reaches(&client, id, "discarded").await;
    }
    assert!(ended(&client, large, 1).await.1.expect("an error").contains("too large"));
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_handler_reads_what_the_parents_gave() {
    let db = Db::new().await;
    let client = db.connect().await;
    let running = start(
        worker(&db)
            .queue("default", 8)
            .on("give", |job: Job| async move { Outcome::complete_with(&job.args::<Vec<u32>>()?) })
            .on("lose", |_: Job| async { Answer::Ok(Outcome::Discard("lost".to_owned())) })
            .on("sum", |job: Job| async move {
                let inputs = job.inputs().await?;
                let (rows, lost) = (inputs.get::<Vec<u32>>("rows")?, inputs.find::<u32>("lost")?);
                assert!(lost.is_none() && inputs.iter().count() == 2);
                anyhow::Ok(Outcome::complete_with(&rows.iter().sum::<u32>())?)
            })
            .on_blocking("double", |job: Job| {
                let sum: u32 = job.inputs_blocking()?.get("sum")?;
                anyhow::Ok(Outcome::complete_with(&(sum * 2))?)
            }),
    );
    let jobs = vec![
        NewJob::new("give", &[1, 2, 3]).expect("JSON").reference("rows"),
        job("lose").reference("lost"),
        job("sum")
            .reference("sum")
            .depends_on("rows")
            .depends_on_with("lost", OnParentFailure::Continue),
        job("double").depends_on("sum"),
    ];
    let ids = Rowlock::default().enqueue(&client, &jobs).await.expect("taken");
    let ids: Vec<_> = ids.iter().map(|answer| answer.job_id).collect();
    reaches(&client, ids[3], "completed").await;
    assert_eq!(execution(&client, ids[2], 1).await.2, Some(json!(6)));
    assert_eq!(execution(&client, ids[3], 1).await.2, Some(json!(12)));
    running.stop().await;
    db.finish().await;
}
