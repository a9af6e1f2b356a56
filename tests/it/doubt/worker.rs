//! A worker of the library, whose every sort of call loses commits and answers.

use std::time::Duration;

use rowlock::worker::{Job, Outcome, Worker};

use super::{DEADLINE, LOSSES, Scene};
use crate::harness::sql::{column, value};
use crate::harness::wait_until;
use crate::proxy::{Fault, Loss};
use crate::worker::{enqueue, job, start};

const JOBS: i64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_comes_to_its_one_end_whatever_is_lost() {
    let scene = Scene::new().await;
    for n in 0..JOBS {
        let kind = if n % 3 == 0 { "fails" } else { "completes" };
        enqueue(&scene.direct, job(kind).max_attempts(1)).await;
    }
    let worker = Worker::with_options(scene.options())
        .queue("default", 4)
        .prefetch(0)
        .poll(Duration::from_millis(50))
        .lease(Duration::from_secs(6))
        .on("fails", |_: Job| async { Err::<Outcome, _>("no") })
        .on("completes", |_: Job| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, String>(Outcome::Complete)
        });
    for verb in ["acquire(", "complete(", "fail(", "heartbeat("] {
        for (when, loss) in LOSSES {
            let fault = Fault::once(when, loss, verb);
            // A silence costs its deadline each time; the cuts come more often.
            let times = if loss == Loss::Cut { 3 } else { 1 };
            scene.proxy.arm(Fault { times, ..fault });
        }
    }
    let running = start(worker);
    let ended = "select count(*) from jobs where finished_at is not null";
    wait_until("all jobs have ended", DEADLINE, || async {
        value::<i64>(&scene.direct, ended).await == JOBS
    })
    .await;
    scene.proxy.disarm();
    running.stop().await;
    let ends = "select state || ' ' || count(*) from jobs group by state order by state";
    let ends: Vec<String> = column(&scene.direct, ends).await;
    assert_eq!(ends, [format!("completed {}", JOBS * 2 / 3), format!("discarded {}", JOBS / 3)]);
    // What an acquire took in vain was given back, which counts for nothing.
    let outcomes = "select distinct outcome from executions order by outcome";
    let outcomes: Vec<String> = column(&scene.direct, outcomes).await;
    assert_eq!(outcomes, ["completed", "failed", "released"]);
    assert!(12 <= scene.proxy.struck(), "{}", scene.proxy.struck());
    scene.end().await;
}
