//! Several operations at once. Whatever the interleaving, some order of them explains the outcome:
//! all answers, and all jobs. Where several orders do, each is carried on as a world of its own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::{Client, Error};

use super::chance::Chance;
use super::look::{Sight, clear, look, violations};
use super::model::Model;
use super::ops::Op;
use crate::harness::Db;
use crate::harness::sql::run;

const CONNECTIONS: usize = 5;

/// One call of a round: when it begins, how long its transaction stays open, what it answered.
struct Call {
    op: Op,
    sql: String,
    pause: Duration,
    stay: Option<Duration>,
    words: Vec<String>,
}

pub(super) struct Rounds {
    main: Client,
    crowd: Vec<Client>,
}

impl Rounds {
    pub(super) async fn new(db: &Db) -> Rounds {
        let crowd = join_all((0..CONNECTIONS).map(|_| db.connect())).await;
        Rounds { main: db.connect().await, crowd }
    }

    /// A few graphs, and rounds of operations upon them; what is wrong, if something is.
    pub(super) async fn play(&self, seed: u64, rounds: usize) -> Result<(), String> {
        clear(&self.main).await;
        let mut chance = Chance::without_keys(seed);
        let mut first = Model::default();
        for _ in 0..3 {
            let op = chance.enqueue(&first);
            self.main.query(&op.sql(&first), &[]).await.expect("a graph is enqueued");
            op.apply(&mut first, &mut Vec::new());
        }
        first.link();
        run(&self.main, "select maintain()").await;
        let mut worlds = BTreeSet::from([first]);
        for _ in 0..rounds {
            let before = worlds.first().expect("a world is left").clone();
            let mut calls = chance.calls(&before);
            let all = calls.iter_mut().zip(&self.crowd);
            for called in join_all(all.map(|(call, client)| call.make(client))).await {
                called.map_err(|error| told(&before, &calls, &format!("{error:?}")))?;
            }
            run(&self.main, "select maintain()").await;
            let sight = look(&self.main).await;
            let mut wrong = violations(&self.main).await;
            let after = outcomes(&worlds, &calls);
            worlds = after
                .iter()
                .filter(|world| world.differences(&sight).is_empty())
                .cloned()
                .collect();
            if worlds.is_empty() {
                wrong.push(nearest(&after, &sight));
            }
            if !wrong.is_empty() {
                return Err(told(&before, &calls, &wrong.join("\n")));
            }
        }
        Ok(())
    }
}

impl Call {
    async fn make(&mut self, client: &Client) -> Result<(), Error> {
        tokio::time::sleep(self.pause).await;
        loop {
            match self.try_once(client).await {
                Err(error) if error.code().is_some_and(|code| code.code() == "RL429") => {
                    client.batch_execute("rollback").await?;
                }
                done => return done,
            }
        }
    }

    async fn try_once(&mut self, client: &Client) -> Result<(), Error> {
        if self.stay.is_some() {
            client.batch_execute("begin").await?;
        }
        let rows = client.query(&self.sql, &[]).await?;
        self.words = rows.iter().map(|row| row.get(0)).collect();
        if let Some(stay) = self.stay {
            tokio::time::sleep(stay).await;
            client.batch_execute("commit").await?;
        }
        Ok(())
    }

    /// Done next in this world, if that would have answered the same.
    fn apply(&self, world: &Model) -> Option<Model> {
        let mut world = world.clone();
        // What is held for a moment is passed over.
        let is_passed_over = matches!(self.op, Op::Acquire(_)) && self.words.is_empty();
        if is_passed_over {
            return Some(world);
        }
        let op = self.op.fit(&world, &[])?;
        (op.apply(&mut world, &mut Vec::new()) == self.words).then_some(world)
    }
}

impl Chance {
    fn calls(&mut self, model: &Model) -> Vec<Call> {
        let count = 2 + self.below(CONNECTIONS as u64 - 1) as usize;
        let mut calls: Vec<Call> = Vec::new();
        for _ in 0..20 {
            let op = if self.below(5) == 0 { self.attach(model) } else { self.change(model) };
            let Some(op) = op.fit(model, &[]) else { continue };
            if calls.len() == count || calls.iter().any(|call| clash(&call.op, &op)) {
                continue;
            }
            let stay = self.below(8);
            calls.push(Call {
                sql: op.sql(model),
                op,
                pause: Duration::from_micros(self.below(3) * self.below(1500)),
                stay: (3 < stay).then(|| Duration::from_micros(stay * self.below(800))),
                words: Vec::new(),
            });
        }
        calls
    }
}

/// Two calls that end the same execution: one of them would be stale.
fn clash(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (Op::Finish(_, some), Op::Finish(_, others)) => {
            some.iter().any(|name| others.contains(name))
        }
        (Op::Acquire(one), Op::Acquire(other)) => one == other,
        _ => false,
    }
}

/// The worlds after all calls, in every order that answers as they did.
fn outcomes(worlds: &BTreeSet<Model>, calls: &[Call]) -> BTreeSet<Model> {
    let mut after = vec![BTreeSet::new(); 1 << calls.len()];
    after[0] = worlds.clone();
    for done in 0..after.len() {
        for (n, call) in calls.iter().enumerate().filter(|(n, _)| done & (1 << n) == 0) {
            let next: Vec<Model> =
                after[done].iter().filter_map(|world| call.apply(world)).collect();
            after[done | 1 << n].extend(next);
        }
    }
    after.pop().expect("there is one for all calls")
}

fn nearest(after: &BTreeSet<Model>, sight: &Sight) -> String {
    let all = after.iter().map(|world| world.differences(sight));
    let nearest = all.min_by_key(Vec::len);
    nearest.map_or("no order answers so".to_owned(), |wrong| wrong.join("\n"))
}

fn told(before: &Model, calls: &[Call], what: &str) -> String {
    let mut told = String::new();
    for name in before.names() {
        let _ = writeln!(told, "{name}: {:?}", before.job(name));
    }
    for call in calls {
        let open = call.stay.map_or(String::new(), |stay| format!(", open for {stay:?}"));
        let _ = writeln!(told, "after {:?}{open}: {:?} -> {:?}", call.pause, call.op, call.words);
    }
    told + what
}
