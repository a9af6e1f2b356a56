//! Faults of processes.

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use super::{Field, Strike};
use crate::plan::{Kind, PlannedFault};
use crate::run::micros;
use crate::supervisor::{Living, Role};

/// SIGKILL, in the middle of whatever it does.
pub(super) fn kill_one(field: &Field, fault: PlannedFault) -> Result<Option<Strike>> {
    let role = match fault.kind {
        Kind::KillProducer => Role::Producer,
        Kind::KillService => Role::Service,
        _ => Role::Worker,
    };
    let Some(target) = choose(field, role, fault.pick) else { return Ok(None) };
    let strike = Strike::on(target.name);
    kill(target.pid, Signal::SIGKILL)?;
    Ok(Some(strike))
}

/// SIGSTOP until its lease has ended, and SIGCONT: it goes on as if nothing had happened.
pub(super) async fn pause(field: &Field, fault: PlannedFault) -> Result<Option<Strike>> {
    let Some(target) = choose(field, Role::Worker, fault.pick) else { return Ok(None) };
    let strike = Strike::on(&target.name);
    kill(target.pid, Signal::SIGSTOP)?;
    tokio::time::sleep(fault.lasts).await;
    // Another fault may have killed it.
    if kill(target.pid, Signal::SIGCONT).is_err() {
        field.ledger.note("cut_short", json!({"target": target.name, "begin": micros()}));
    }
    Ok(Some(strike))
}

fn choose(field: &Field, role: Role, pick: u64) -> Option<Living> {
    let mut living = field.supervisor.living(role);
    let count = u64::try_from(living.len()).expect("few");
    let at = usize::try_from(pick.checked_rem(count)?).expect("few");
    Some(living.swap_remove(at))
}
