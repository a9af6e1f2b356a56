//! One operation after another: the database and the oracle agree after each.

use tokio_postgres::Client;

use super::chance::Chance;
use super::look::{clear, look, violations};
use super::model::{Job, Model};
use super::ops::{Links, New, Op};
use crate::harness::Db;

/// A connection for what is committed at once, and one for a transaction that stays open.
pub(super) struct Stage {
    main: Client,
    open: Client,
}

/// Operations that end in a disagreement, as a script, and the disagreement.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) script: String,
    pub(super) what: String,
}

/// What a seed stands for.
pub(super) fn operations(seed: u64, count: usize) -> Vec<Op> {
    let mut chance = Chance::new(seed);
    let (mut model, mut open) = (Model::default(), Vec::new());
    let mut ops = Vec::new();
    while ops.len() < count {
        let Some(op) = chance.op(&model, &open).fit(&model, &open) else { continue };
        let mut after = (model.clone(), open.clone());
        op.apply(&mut after.0, &mut after.1);
        if !forgets_links(&after.0) {
            (model, open) = after;
            ops.push(op);
        }
    }
    ops.extend([Op::Close, Op::Link]);
    ops
}

/// A child that ends before it was attached to its parents forgets them.
fn forgets_links(model: &Model) -> bool {
    let forgets = |job: &Job| job.state.has_failed() && job.edges.iter().any(|edge| edge.is_link);
    model.jobs.iter().flatten().any(forgets)
}

impl Stage {
    pub(super) async fn new(db: &Db) -> Stage {
        Stage { main: db.connect().await, open: db.connect().await }
    }

    pub(super) async fn play(&self, ops: &[Op]) -> Result<(), Failure> {
        for client in [&self.main, &self.open] {
            client.batch_execute("rollback").await.expect("nothing stays open");
        }
        clear(&self.main).await;
        let (mut model, mut open) = (Model::default(), Vec::new());
        let mut script = String::new();
        for op in ops {
            let Some(op) = op.fit(&model, &open) else { continue };
            if let Err(what) = self.step(&op, &mut model, &mut open, &mut script).await {
                return Err(Failure { script, what });
            }
        }
        Ok(())
    }

    async fn step(
        &self,
        op: &Op,
        model: &mut Model,
        open: &mut Vec<New>,
        script: &mut String,
    ) -> Result<(), String> {
        let sql = op.sql(model);
        let (client, before, after) = match op {
            Op::Open(_) if open.is_empty() => (&self.open, "begin", ""),
            Op::Open(_) | Op::Close => (&self.open, "", ""),
            Op::Enqueue(_, Links::ByMaintenance) => {
                (&self.main, "begin; set local rowlock.notify = 'off'", "commit")
            }
            _ => (&self.main, "", ""),
        };
        if matches!(op, Op::Open(_) | Op::Close) {
            script.push_str("-- on the other connection\n");
        }
        for line in [before, sql.as_str(), after].iter().filter(|line| !line.is_empty()) {
            script.push_str(line);
            script.push_str(";\n");
        }
        let failed = |error: tokio_postgres::Error| format!("{error:?}");
        client.batch_execute(before).await.map_err(failed)?;
        let rows = client.query(&sql, &[]).await.map_err(failed)?;
        client.batch_execute(after).await.map_err(failed)?;
        let words: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let expected = op.apply(model, open);
        let mut wrong = model.differences(&look(&self.main).await);
        wrong.extend(violations(&self.main).await);
        if words != expected {
            wrong.insert(0, format!("answered {words:?} instead of {expected:?}"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Leaves out what can be left out of a failure: halves, quarters, then one by one.
    pub(super) async fn shrink(&self, mut ops: Vec<Op>, mut failure: Failure) -> Failure {
        let mut size = ops.len().div_ceil(2);
        loop {
            let before = ops.len();
            let mut at = 0;
            while at < ops.len() {
                let mut fewer = ops.clone();
                fewer.drain(at..(at + size).min(ops.len()));
                match self.play(&fewer).await {
                    Err(smaller) => (ops, failure) = (fewer, smaller),
                    Ok(()) => at += size,
                }
            }
            if size == 1 && ops.len() == before {
                let (fewer, smaller) = self.thin(ops, failure).await;
                return match fewer.len() < before {
                    true => Box::pin(self.shrink(fewer, smaller)).await,
                    false => smaller,
                };
            }
            size = (size / 2).max(1);
        }
    }

    /// Leaves out jobs of a graph, edges of a job, and jobs of a verb.
    async fn thin(&self, mut ops: Vec<Op>, mut failure: Failure) -> (Vec<Op>, Failure) {
        for at in 0..ops.len() {
            let mut part = 0;
            while let Some(thinner) = ops[at].without(part) {
                let mut fewer = ops.clone();
                fewer[at] = thinner;
                match self.play(&fewer).await {
                    Err(smaller) => (ops, failure) = (fewer, smaller),
                    Ok(()) => part += 1,
                }
            }
        }
        (ops, failure)
    }
}
