//! Brings the plan and the ledgers into the database, where they are compared with what is there.

use anyhow::Result;
use tokio_postgres::Client;

use crate::ledger;
use crate::plan;
use crate::run::{Behaviour, Run, SILENCE, Slip};

const BATCH: usize = 20_000;

pub(super) async fn load(run: &Run, client: &Client) -> Result<()> {
    client
        .batch_execute(
            "create table chaos.lines (ledger text, e text, line jsonb);
             create table chaos.planned
                (n bigint, call bigint, place bigint, manner text, goes_on bool, discards bool);
             create table chaos.planned_edges (child bigint, parent bigint);
             create table chaos.slack (slack interval, silence interval);",
        )
        .await?;
    // Until everybody is back: a lease, and what a start may take on a busy machine.
    let slack = run.lease.as_secs_f64() + 3.0;
    // What was granted in silence is given back by a heartbeat after the call was given up.
    let silence = slack + SILENCE.as_secs_f64();
    let sql = "insert into chaos.slack
         values ($1 * interval '1 second', $2 * interval '1 second')";
    client.execute(sql, &[&slack, &silence]).await?;
    let keeps = run.slip != Some(Slip::NewIdsAfterUnknown);
    let sql =
        format!("create function chaos.keeps_orders() returns boolean language sql return {keeps}");
    client.batch_execute(&sql).await?;
    load_plan(run, client).await?;
    for name in ledger::names(&run.folder) {
        let mut lines = ledger::lines(&run.folder, &name).map(|line| line.to_string());
        let sql = "insert into chaos.lines
             select $1, l.line::jsonb ->> 'e', l.line::jsonb from unnest($2::text[]) l(line)";
        loop {
            let batch: Vec<String> = lines.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            client.execute(sql, &[&name, &batch]).await?;
        }
    }
    Ok(())
}

async fn load_plan(run: &Run, client: &Client) -> Result<()> {
    let calls = plan::calls(run);
    for calls in calls.chunks(BATCH / 10) {
        let (mut n, mut call, mut place, mut manner) = (vec![], vec![], vec![], vec![]);
        let (mut goes_on, mut discards) = (vec![], vec![]);
        let (mut children, mut parents) = (Vec::<i64>::new(), Vec::<i64>::new());
        for one in calls {
            for (at, job) in one.jobs.iter().enumerate() {
                n.push(job.n as i64);
                call.push(one.number as i64);
                place.push(at as i64 + 1);
                manner.push(format!("{:?}", one.manner));
                goes_on.push(job.goes_on);
                discards.push(run.behaviour(job.n, 1) == Behaviour::Discard);
                children.extend(job.parents.iter().map(|_| job.n as i64));
                parents.extend(job.parents.iter().map(|parent| *parent as i64));
            }
        }
        let sql = "insert into chaos.planned select * from unnest(
                $1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bool[], $6::bool[])";
        client.execute(sql, &[&n, &call, &place, &manner, &goes_on, &discards]).await?;
        let sql = "insert into chaos.planned_edges
             select * from unnest($1::bigint[], $2::bigint[])";
        client.execute(sql, &[&children, &parents]).await?;
    }
    Ok(())
}
