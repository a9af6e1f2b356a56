//! The whole mechanism with a verb that needs no database.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::model::Code;

/// Answers a number with itself. What it does is told by the number.
struct Echo {
    /// Statements begun, with their calls.
    sent: Mutex<Vec<Vec<u32>>>,
    /// A statement takes one to go on.
    gate: Semaphore,
    undone: AtomicUsize,
}

const INVALID: u32 = 1_000;
const LOCKED: u32 = 2_000;
const PANICS: u32 = 3_000;
const AWAY: u32 = 4_000;
const NOT_TOGETHER: u32 = 5_000;

fn refused() -> Error {
    Error::Refused { code: Code::Invalid, message: "no".into(), detail: None, hint: None }
}

impl Echo {
    async fn begin(&self, calls: &[u32]) -> Result<(), Error> {
        self.sent.lock().unwrap().push(calls.to_vec());
        self.gate.acquire().await.unwrap().forget();
        let has = |what: u32| calls.iter().any(|call| (what..what + 1_000).contains(call));
        assert!(!has(PANICS), "asked to");
        match () {
            () if has(AWAY) => Err(Error::unavailable("away")),
            () if has(INVALID) => Err(refused()),
            () if has(LOCKED) => Err(Error::Locked("held".into())),
            () => Ok(()),
        }
    }
}

impl Verb for Echo {
    const NAME: &'static str = "echo";
    const MOST_CALLS: usize = 100;

    type Key = bool;
    type Call = u32;
    type Answer = u32;

    fn weigh(_: &u32) -> Weight {
        Weight { entries: 1, bytes: 1 }
    }

    async fn together(&self, calls: &[u32]) -> Result<Vec<Option<u32>>, Error> {
        assert!(1 < calls.len());
        self.begin(calls).await?;
        Ok(calls.iter().map(|call| (*call < NOT_TOGETHER).then_some(*call)).collect())
    }

    async fn alone(&self, call: &u32) -> Result<u32, Error> {
        self.begin(&[*call]).await?;
        Ok(*call)
    }

    fn is_of_some(_: &bool, error: &Error) -> bool {
        matches!(error, Error::Locked(_) | Error::Refused { .. })
    }

    async fn undo(&self, _: u32, _: u32) {
        self.undone.fetch_add(1, Ordering::Relaxed);
    }
}

/// A verb whose gate lets so many statements pass.
fn echo(passes: usize) -> Coalescer<Echo> {
    let gate = Semaphore::new(passes);
    Coalescer::new(Echo { sent: Mutex::default(), gate, undone: AtomicUsize::new(0) })
}

fn sent(coalescer: &Coalescer<Echo>) -> Vec<Vec<u32>> {
    coalescer.verb().sent.lock().unwrap().clone()
}

async fn all(coalescer: &Coalescer<Echo>, calls: &[u32]) -> Vec<Result<u32, Error>> {
    join_all(calls.iter().map(|call| coalescer.call(true, *call))).await
}

const PLENTY: usize = 1_000;

#[tokio::test]
async fn a_lone_call_goes_at_once_and_leaves_nothing_behind() {
    let coalescer = echo(PLENTY);
    for call in 0..3 {
        assert_eq!(coalescer.call(true, call).await.unwrap(), call);
    }
    assert_eq!(sent(&coalescer), [[0], [1], [2]]);
    yield_now().await;
    assert!(coalescer.shared.lock().is_empty());
    assert_eq!(coalescer.waiting().1, 0);
}

#[tokio::test]
async fn calls_that_come_meanwhile_travel_together() {
    let coalescer = echo(0);
    let first = tokio::spawn({
        let shared = Coalescer { shared: coalescer.shared.clone() };
        async move { shared.call(true, 0).await }
    });
    while sent(&coalescer).is_empty() {
        yield_now().await;
    }
    let calls: Vec<u32> = (1..=150).collect();
    let (answers, ()) = tokio::join!(all(&coalescer, &calls), async {
        coalescer.verb().gate.add_permits(3);
    });
    assert_eq!(first.await.unwrap().unwrap(), 0);
    let answers: Vec<u32> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, calls);
    let sizes: Vec<usize> = sent(&coalescer).iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 100, 50]);
}

#[tokio::test]
async fn what_is_wrong_with_one_is_told_to_that_one() {
    let coalescer = echo(PLENTY);
    let mut calls: Vec<u32> = (0..60).collect();
    calls.extend([INVALID, INVALID + 1, LOCKED]);
    for (call, answer) in calls.iter().zip(all(&coalescer, &calls).await) {
        match answer {
            Ok(answer) => assert_eq!((answer, *call < INVALID), (*call, true)),
            Err(Error::Refused { .. }) => assert!((INVALID..LOCKED).contains(call)),
            Err(Error::Locked(_)) => assert_eq!(*call, LOCKED),
            Err(error) => panic!("{call}: {error}"),
        }
    }
    // All, eight parts, the parts of one of these, and its single calls.
    assert!(sent(&coalescer).len() <= 1 + 8 + 8 + 8, "{:?}", sent(&coalescer));
}

#[tokio::test]
async fn parts_are_sent_a_few_at_a_time_and_not_for_ever() {
    let coalescer = echo(1);
    let calls = vec![LOCKED; 100];
    let (answers, ()) = tokio::join!(all(&coalescer, &calls), async {
        while sent(&coalescer).len() < 1 + PARTS_AT_ONCE {
            yield_now().await;
        }
        sleep(PATIENCE * 3).await;
        assert_eq!(sent(&coalescer).len(), 1 + PARTS_AT_ONCE);
        coalescer.verb().gate.add_permits(PLENTY);
    });
    assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Locked(_)))));
    // All, eight parts, and as many parts of these again.
    assert!(sent(&coalescer).len() <= 1 + 8 + 8 + PARTS_AT_ONCE, "{}", sent(&coalescer).len());
    assert_eq!(coalescer.waiting().1, 0);
}

#[tokio::test]
async fn many_that_others_hold_fail_none_of_their_neighbours() {
    let coalescer = echo(PLENTY);
    let calls: Vec<u32> = (0..100).map(|call| if call % 4 == 0 { LOCKED } else { 10 }).collect();
    for (call, answer) in calls.iter().zip(all(&coalescer, &calls).await) {
        assert_eq!(answer.is_ok(), *call == 10);
    }
}

#[tokio::test]
async fn an_error_of_all_is_told_to_all_and_once() {
    let coalescer = echo(PLENTY);
    for answer in all(&coalescer, &[1, AWAY, 3]).await {
        assert_eq!(answer.unwrap_err().chain(), Error::unavailable("away").chain());
    }
    assert_eq!(sent(&coalescer).len(), 1);
}

#[tokio::test]
async fn what_has_to_go_alone_does() {
    let coalescer = echo(PLENTY);
    let calls = [1, NOT_TOGETHER, 2];
    let answers = all(&coalescer, &calls).await;
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), calls);
    assert_eq!(sent(&coalescer), [&calls[..], &[NOT_TOGETHER]]);
}

#[tokio::test]
async fn another_key_travels_apart() {
    let coalescer = echo(PLENTY);
    let other = coalescer.call(false, 9);
    let (answers, other) = tokio::join!(all(&coalescer, &[7, 1]), other);
    assert!(answers.iter().all(Result::is_ok) && other.is_ok());
    let mut found = sent(&coalescer);
    found.sort();
    assert_eq!(found, [&[7, 1][..], &[9]]);
}

#[tokio::test]
async fn a_panic_is_an_error_for_its_own_batch_only() {
    let coalescer = echo(PLENTY);
    for answer in all(&coalescer, &[1, PANICS]).await {
        assert!(matches!(answer, Err(Error::Unavailable(_))));
    }
    assert_eq!(coalescer.call(true, 2).await.unwrap(), 2);
    assert_eq!(coalescer.waiting().1, 0);
}

#[tokio::test]
async fn a_statement_that_takes_long_is_not_waited_for_by_others() {
    let coalescer = echo(0);
    let slow = coalescer.call(true, 0);
    let others = async {
        for call in 1..=MOST_SLOW as u32 {
            while sent(&coalescer).len() < call as usize {
                yield_now().await;
            }
            tokio::spawn({
                let shared = Coalescer { shared: coalescer.shared.clone() };
                async move { shared.call(true, call).await }
            });
            while sent(&coalescer).len() <= call as usize {
                sleep(PATIENCE).await;
            }
        }
        // One more has to wait: so many take long already.
        let last = coalescer.call(true, 100);
        let (last, ()) = tokio::join!(last, async {
            sleep(PATIENCE * 10).await;
            assert_eq!(sent(&coalescer).len(), 1 + MOST_SLOW);
            coalescer.verb().gate.add_permits(PLENTY);
        });
        last.unwrap()
    };
    let (slow, last) = tokio::join!(slow, others);
    assert_eq!((slow.unwrap(), last), (0, 100));
    while coalescer.waiting().1 != 0 {
        yield_now().await;
    }
    yield_now().await;
    assert!(coalescer.shared.lock().is_empty());
}

#[tokio::test]
async fn one_call_too_many_is_refused_and_all_others_are_answered() {
    let coalescer = echo(0);
    let calls: Vec<u32> = (0..MOST_WAITING as u32).map(|call| call % 5 + 10).collect();
    let (answers, ()) = tokio::join!(all(&coalescer, &calls), async {
        while coalescer.waiting().1 < MOST_WAITING {
            yield_now().await;
        }
        assert!(matches!(coalescer.call(true, 1).await, Err(Error::Overloaded)));
        coalescer.verb().gate.add_permits(PLENTY);
    });
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(coalescer.waiting().1, 0);
    assert_eq!(coalescer.call(true, 1).await.unwrap(), 1);
}

#[tokio::test]
async fn callers_who_go_away_are_not_sent_or_undone() {
    let coalescer = echo(0);
    let call = |call: u32| {
        let shared = Coalescer { shared: coalescer.shared.clone() };
        tokio::spawn(async move { shared.call(true, call).await })
    };
    let under_way = call(1);
    while sent(&coalescer).is_empty() {
        yield_now().await;
    }
    let waiting = call(2);
    while coalescer.waiting().1 < 2 {
        yield_now().await;
    }
    under_way.abort();
    waiting.abort();
    assert!(under_way.await.is_err() && waiting.await.is_err());
    coalescer.verb().gate.add_permits(PLENTY);
    assert_eq!(coalescer.call(true, 3).await.unwrap(), 3);
    assert_eq!(sent(&coalescer), [[1], [3]]);
    assert_eq!(coalescer.verb().undone.load(Ordering::Relaxed), 1);
}

#[test]
fn the_end_of_a_runtime_is_an_error_and_no_hang() {
    let coalescer = echo(0);
    let runtime = |threads| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads).enable_all().build().unwrap()
    };
    let (one, other) = (runtime(1), runtime(1));
    let call = |call: u32| {
        let shared = Coalescer { shared: coalescer.shared.clone() };
        async move { shared.call(true, call).await }
    };
    let first = one.spawn(call(1));
    while sent(&coalescer).is_empty() {
        std::thread::yield_now();
    }
    let second = other.spawn(call(2));
    while coalescer.waiting().1 < 2 {
        std::thread::yield_now();
    }
    drop(one);
    drop(first);
    assert!(matches!(other.block_on(second).unwrap(), Err(Error::Unavailable(_))));
    assert_eq!(coalescer.waiting().1, 0);
}

#[test]
fn a_runtime_that_ends_before_a_driver_has_begun_is_an_error_and_no_hang() {
    let coalescer = echo(PLENTY);
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    let (one, other) = (runtime(), runtime());
    let mut first = Box::pin(coalescer.call(true, 1));
    one.block_on(async { assert!(first.as_mut().now_or_never().is_none()) });
    drop(one);
    other.block_on(async {
        let soon = Duration::from_secs(10);
        let answer = timeout(soon, coalescer.call(true, 2)).await.expect("it is sent");
        assert_eq!(answer.unwrap(), 2);
        let lost = timeout(soon, first).await.expect("it is answered");
        assert!(matches!(lost, Err(Error::Unavailable(_))));
    });
    assert_eq!(sent(&coalescer), [[2]]);
}
