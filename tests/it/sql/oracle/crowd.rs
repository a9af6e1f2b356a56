//! Many connections on one large graph. Without retries, what becomes of a job that never ran is
//! a matter of how its parents ended, in whatever order: the oracle can tell afterwards.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::look::{Sight, clear, look, violations};
use super::model::{Model, Name, Policy, State};
use super::ops::{Links, New, Op, ids_of};
use crate::harness::Db;
use crate::harness::sql::{acquire, complete, discard, release, run, value};
use crate::harness::wait_until;

const CONNECTIONS: usize = 8;
const STEPS: usize = 40;
const FIRST_JOBS: usize = 60;

/// What all connections know.
#[derive(Default)]
struct Common {
    /// Jobs that are committed, and may be parents.
    jobs: Mutex<Vec<New>>,
    next: Mutex<Name>,
    /// Jobs that a call answered to have cancelled.
    cancelled: Mutex<BTreeSet<Name>>,
}

struct Member<'a> {
    client: &'a Client,
    rng: StdRng,
    common: &'a Common,
    worker: Uuid,
}

pub(super) struct Crowd {
    members: Vec<Client>,
}

impl Crowd {
    pub(super) async fn new(db: &Db) -> Crowd {
        Crowd { members: join_all((0..CONNECTIONS).map(|_| db.connect())).await }
    }

    pub(super) async fn play(&self, seed: u64) -> Result<(), String> {
        let client = &self.members[0];
        clear(client).await;
        let common = Common::default();
        let members = self.members.iter().zip(0..).map(|(client, n)| Member {
            client,
            rng: StdRng::seed_from_u64(seed.wrapping_mul(1000).wrapping_add(n)),
            common: &common,
            worker: Uuid::new_v4(),
        });
        let mut members: Vec<Member> = members.collect();
        for _ in 0..FIRST_JOBS {
            members[0].attach(Duration::ZERO).await;
        }
        join_all(members.iter_mut().map(Member::live)).await;
        drop(members);
        wait_until("all is attached", Duration::from_secs(20), || async {
            run(client, "select maintain()").await;
            value::<i64>(client, "select count(*) from links").await == 0
        })
        .await;
        let mut wrong = common.judge(&look(client).await);
        wrong.extend(violations(client).await);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

impl Member<'_> {
    async fn live(&mut self) {
        for _ in 0..STEPS {
            match self.rng.random_range(0..10) {
                0..4 => self.work().await,
                4..8 => {
                    let stay = self.rng.random_range(0..4) * self.rng.random_range(0..2000);
                    self.attach(Duration::from_micros(stay)).await;
                }
                8 => self.cancel().await,
                _ => {
                    self.call("select try_duty('link', 100)").await;
                }
            }
        }
    }

    /// Calls; refused for now is called again, and anything else refused is a failure.
    async fn call(&self, sql: &str) -> Vec<Row> {
        loop {
            match self.client.query(sql, &[]).await {
                Ok(rows) => return rows,
                Err(error) if error.code().is_some_and(|code| code.code() == "RL429") => {}
                Err(error) => panic!("{sql}: {error:?}"),
            }
        }
    }

    async fn work(&mut self) {
        let most = self.rng.random_range(1..=6);
        let mut ends = [Vec::new(), Vec::new(), Vec::new()];
        for execution in acquire(self.client, self.worker, most).await {
            let end = *[0, 0, 0, 1, 1, 2].choose(&mut self.rng).expect("six");
            ends[end].push(execution);
        }
        let [good, bad, back] = ends;
        let mut verdicts = complete(self.client, &good).await;
        verdicts.extend(discard(self.client, &bad).await);
        verdicts.extend(release(self.client, &back).await);
        let expected = ["completed", "discarded", "released", "cancelled"];
        assert!(verdicts.iter().all(|word| expected.contains(&word.as_str())), "{verdicts:?}");
    }

    async fn cancel(&mut self) {
        let names: Vec<Name> = {
            let jobs = self.common.jobs.lock().expect("not poisoned");
            let count = self.rng.random_range(1..=2);
            jobs.choose_multiple(&mut self.rng, count).map(|job| job.name).collect()
        };
        let sql = format!("select verdict from cancel({})", ids_of(&names));
        let rows = self.call(&sql).await;
        let mut cancelled = self.common.cancelled.lock().expect("not poisoned");
        let done = names.iter().zip(&rows).filter(|(_, row)| row.get::<_, &str>(0) == "cancelled");
        cancelled.extend(done.map(|(name, _)| *name));
    }

    /// A child of jobs of any state, in a transaction that may stay open for a while.
    async fn attach(&mut self, stay: Duration) {
        let job = self.new_job();
        let sql = Op::Enqueue(vec![job.clone()], Links::AtCommit).sql(&Model::default());
        let late = self.rng.random_bool(0.1);
        let begin = if late { "begin; set local rowlock.notify = 'off'" } else { "begin" };
        run(self.client, begin).await;
        self.call(&sql).await;
        tokio::time::sleep(stay).await;
        run(self.client, "commit").await;
        self.common.jobs.lock().expect("not poisoned").push(job);
    }

    fn new_job(&mut self) -> New {
        let policies = [Policy::Cancel, Policy::Continue, Policy::Hold];
        let count = self.rng.random_range(0..=3);
        let jobs = self.common.jobs.lock().expect("not poisoned");
        let parents = jobs.choose_multiple(&mut self.rng, count).map(|job| job.name);
        let parents: BTreeSet<Name> = parents.collect();
        let edges = parents
            .into_iter()
            .map(|parent| (parent, *policies.choose(&mut self.rng).expect("three")))
            .collect();
        let mut next = self.common.next.lock().expect("not poisoned");
        *next += 1;
        New { name: *next, waits_for_any: self.rng.random_bool(0.3), key: None, edges }
    }
}

impl Common {
    /// What is not as it must be after what has ended by itself, or by a person.
    fn judge(&self, sight: &Sight) -> Vec<String> {
        let by_hand = self.cancelled.lock().expect("not poisoned");
        let mut jobs = self.jobs.lock().expect("not poisoned").clone();
        jobs.sort_by_key(|job| job.name);
        let mut model = Model::default();
        for job in &jobs {
            let Some(seen) = sight.get(&job.name) else {
                return vec![format!("job {} does not exist", job.name)];
            };
            let mut made = job.made(&model, Links::AtCommit, &[]);
            made.attempt = seen.attempt;
            let is_by_hand = seen.state == State::Cancelled && seen.cause.is_none();
            if 0 < seen.attempt || is_by_hand && by_hand.contains(&job.name) {
                made.state = seen.state;
            }
            model.enqueue(job.name, made);
        }
        let mut wrong = model.differences(sight);
        if !wrong.is_empty() {
            wrong.extend(jobs.iter().map(|job| format!("{job:?} {:?}", sight.get(&job.name))));
        }
        wrong
    }
}
