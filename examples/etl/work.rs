//! The handlers. Small results travel as they are; what may be large is written to a table, under a
//! key of the job and its attempt, in the transaction that completes the job: a second attempt
//! writes beside the first, and nobody reads what was not committed.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use rowlock::{Job, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connect;
use crate::sources::{self, Customers, Order, Rates};

/// The example's own, in the database's `public` schema.
pub(crate) const TABLES: &str = "
    create table if not exists public.etl_staged (
        batch text, customer text, euros float8 not null, primary key (batch, customer));
    create table if not exists public.etl_totals (
        batch text, customer text, euros float8 not null, primary key (batch, customer));";

/// What `transform` gives instead of rows: where they are.
#[derive(Debug, Serialize, Deserialize)]
struct Staged {
    batch: String,
    rows: usize,
    /// Orders in a currency that had no rate.
    left_out: usize,
}

/// What a source has is the result.
pub(crate) async fn extract(job: Job, down: Vec<String>) -> anyhow::Result<Outcome> {
    let source: String = job.args()?;
    if down.contains(&source) {
        bail!("{source} cannot be reached");
    }
    let rows = sources::read(&source).with_context(|| format!("there is no {source}"))?;
    Ok(Outcome::complete_with(&rows)?)
}

/// Hands on what the first of the parents gave.
pub(crate) async fn first(job: Job) -> anyhow::Result<Outcome> {
    let inputs = job.inputs().await?;
    for input in inputs.iter() {
        if let Some(orders) = inputs.find::<Value>(&input.reference)? {
            return Ok(Outcome::complete_with(&orders)?);
        }
    }
    bail!("none of the parents has completed");
}

/// Adds up, and stages the sums.
pub(crate) async fn transform(job: Job, url: String) -> anyhow::Result<Outcome> {
    let inputs = job.inputs().await?;
    let orders: Vec<Order> = inputs.get("orders")?;
    let customers: Customers = inputs.get("customers")?;
    let rates = inputs.find::<Rates>("rates")?.unwrap_or_default();
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    let mut left_out = 0;
    for order in &orders {
        let customer = customers.get(&order.customer).context("an order of nobody's")?;
        let rate = if order.currency == "EUR" { Some(&1.0) } else { rates.get(&order.currency) };
        match rate {
            Some(rate) => *sums.entry(customer).or_default() += order.amount * rate,
            None => left_out += 1,
        }
    }
    let batch = format!("{}/{}", job.id(), job.attempt());
    let staged = Staged { batch, rows: sums.len(), left_out };
    let mut client = connect(&url).await?;
    let transaction = client.transaction().await?;
    for (customer, euros) in sums {
        let insert = "insert into public.etl_staged values ($1, $2, $3)";
        transaction.execute(insert, &[&staged.batch, &customer, &euros]).await?;
    }
    finish(&job, transaction, &staged).await
}

/// Moves what was staged to where others look.
pub(crate) async fn load(job: Job, url: String) -> anyhow::Result<Outcome> {
    let staged: Staged = job.inputs().await?.get("transform")?;
    let mut client = connect(&url).await?;
    let transaction = client.transaction().await?;
    let moving = "with gone as (delete from public.etl_staged where batch = $1 returning *)
                  insert into public.etl_totals select * from gone";
    let rows = transaction.execute(moving, &[&staged.batch]).await?;
    anyhow::ensure!(rows == staged.rows as u64, "{rows} of {} rows were staged", staged.rows);
    finish(&job, transaction, &staged).await
}

/// Says how much there is of it.
pub(crate) async fn report(job: Job) -> anyhow::Result<Outcome> {
    let loaded: Staged = job.inputs().await?.get("load")?;
    let text = format!("{} customers, {} orders left out", loaded.rows, loaded.left_out);
    Ok(Outcome::complete_with(&text)?)
}

/// Completes the job in the transaction that holds its writes; a cancelled job's are dropped.
async fn finish(
    job: &Job,
    transaction: tokio_postgres::Transaction<'_>,
    result: &Staged,
) -> anyhow::Result<Outcome> {
    let result = serde_json::value::to_raw_value(result)?;
    if !job.complete_in(&transaction, Some(result)).await? {
        transaction.rollback().await?;
        bail!("cancelled");
    }
    transaction.commit().await?;
    Ok(Outcome::Complete)
}
