//! Faults of the database and of connections to it.

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Field, Strike};
use crate::chance::fate;
use crate::clock;
use crate::database::connect;
use crate::plan::PlannedFault;

/// Backends of ours that do something, or that listen; the run's own are left alone.
const BACKENDS: &str = "select pid, application_name from pg_stat_activity
    where backend_type = 'client backend' and application_name <> 'chaos'
        and application_name like case when $1 then '%listener' else '%' end
    order by application_name, pid";

/// `pg_terminate_backend`, of a listening session if that is wanted.
pub(super) async fn terminate(
    field: &Field,
    fault: PlannedFault,
    listener: bool,
) -> Result<Option<Strike>> {
    let client = connect(&field.run.url, "chaos").await?;
    let backends = client.query(BACKENDS, &[&listener]).await?;
    let mut strike: Option<Strike> = None;
    // Four at once: one is often idle.
    for turn in 0..if listener { 1 } else { 4 } {
        let count = u64::try_from(backends.len())?;
        let Some(at) = fate(fault.pick, &[turn]).checked_rem(count) else { break };
        let backend = &backends[usize::try_from(at)?];
        let (pid, name): (i32, String) = (backend.get(0), backend.get(1));
        let name = name.trim_end_matches(" listener").replace(' ', "_");
        let struck = Strike::on(&name);
        let gone = client.query_one("select pg_terminate_backend($1)", &[&pid]).await?;
        if gone.get(0) {
            match &mut strike {
                Some(strike) => strike.target += &format!(" {name}"),
                None => strike = Some(struck),
            }
        }
    }
    Ok(strike)
}

/// An immediate restart, until connections are accepted again.
pub(super) async fn restart(field: &Field) -> Result<Option<Strike>> {
    let strike = Strike::on("database");
    field.database.restart().await?;
    field.database.accepts().await?;
    Ok(Some(strike))
}

/// SIGKILL of one backend: the server takes the others down and recovers.
pub(super) async fn kill_backend(field: &Field, fault: PlannedFault) -> Result<Option<Strike>> {
    // Nobody restarts the server meanwhile.
    let _cluster = field.database.cluster.lock().await;
    let client = connect(&field.run.url, "chaos").await?;
    let backends = client.query(BACKENDS, &[&false]).await?;
    let Some(at) = fault.pick.checked_rem(u64::try_from(backends.len())?) else { return Ok(None) };
    let pid: i32 = backends[usize::try_from(at)?].get(0);
    let strike = Strike::on("database");
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    while client.simple_query("").await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    field.database.accepts().await?;
    Ok(Some(strike))
}

/// Takes every connection that the server has left, for a while.
pub(super) async fn exhaust(field: &Field, fault: PlannedFault) -> Result<Option<Strike>> {
    let strike = Strike::on("database");
    let mut taken = Vec::new();
    while let Ok(client) = connect(&field.run.url, "chaos hoarder").await {
        taken.push(client);
    }
    if taken.is_empty() {
        return Ok(None);
    }
    tokio::time::sleep(fault.lasts).await;
    drop(taken);
    Ok(Some(strike))
}

/// An old snapshot: nothing that dies meanwhile can be removed.
pub(super) async fn snapshot(field: &Field, fault: PlannedFault) -> Result<Option<Strike>> {
    let client = connect(&field.run.url, "chaos").await?;
    let strike = Strike::on("snapshot");
    client.batch_execute("begin isolation level repeatable read; table chaos.scribbles").await?;
    tokio::time::sleep(fault.lasts).await;
    // Another fault may have ended it before.
    let _ = client.batch_execute("commit").await;
    Ok(Some(strike))
}

/// A transaction that has written, and stays open: no sleeper settles.
pub(super) async fn write(field: &Field, fault: PlannedFault) -> Result<Option<Strike>> {
    let client = connect(&field.run.url, "chaos").await?;
    let strike = Strike::on("writer");
    client.batch_execute("begin; insert into chaos.scribbles values (now())").await?;
    tokio::time::sleep(fault.lasts).await;
    // Another fault may have ended it before.
    let _ = client.batch_execute("commit").await;
    Ok(Some(strike))
}

/// The clock of the queue jumps, ahead or back, and is set right a while later.
pub(super) async fn step_clock(field: &Field, fault: PlannedFault) -> Result<Option<Strike>> {
    let by = std::time::Duration::from_secs(2 + fault.pick.rotate_left(30) % 20);
    let is_ahead = fault.pick.rotate_left(40).is_multiple_of(2);
    // From the first try on: what met a restart may have been done all the same.
    let strike = Strike::on("clock");
    loop {
        let client = field.database.accepts().await?;
        let stepped = if is_ahead {
            clock::ahead(&client, by).await
        } else {
            clock::behind(&client, by).await
        };
        if stepped.is_ok() {
            break;
        }
    }
    tokio::time::sleep(fault.lasts).await;
    // Whatever else is struck meanwhile.
    loop {
        let client = field.database.accepts().await?;
        if clock::ahead(&client, std::time::Duration::ZERO).await.is_ok() {
            return Ok(Some(strike));
        }
    }
}
