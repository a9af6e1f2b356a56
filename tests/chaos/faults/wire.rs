//! Faults of what lies between.

use std::time::{Duration, Instant};

use super::{Field, Strike};
use crate::chance::fate;
use crate::plan::PlannedFault;
use crate::wire::{Fault, Loss, Mode, Proxy, When};

/// A commit comes by soon, or nobody works behind that wire at this moment.
const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(5);
const DELAY: Duration = Duration::from_millis(120);

fn choose(field: &Field, pick: u64) -> Option<&(Proxy, &'static str)> {
    let wires = &field.between.wires;
    let at = pick.checked_rem(u64::try_from(wires.len()).expect("few"))?;
    wires.get(usize::try_from(at).expect("few"))
}

/// Loses a few commits before the server sees them, or their answers afterwards: with a reset, or
/// in silence.
pub(super) async fn cut_commits(field: &Field, fault: PlannedFault, when: When) -> Option<Strike> {
    let (wire, behind) = choose(field, fault.pick)?;
    // Not the remainder that chose the wire.
    let silent = fate(fault.pick, &[1]).is_multiple_of(3);
    let loss = if silent { Loss::Silence } else { Loss::Cut };
    let before = wire.struck();
    let strike = Strike::on(*behind);
    wire.arm(Fault { times: 3, ..Fault::once(when, loss, "") });
    let end = Instant::now() + PATIENCE;
    while wire.struck() < before + 3 && Instant::now() < end {
        tokio::time::sleep(STEP).await;
    }
    wire.disarm();
    (before < wire.struck()).then_some(strike)
}

/// Nothing comes through for longer than a lease.
pub(super) async fn black_hole(field: &Field, fault: PlannedFault) -> Option<Strike> {
    hold(field, fault, Mode::BlackHole).await
}

/// Everything comes late.
pub(super) async fn slow(field: &Field, fault: PlannedFault) -> Option<Strike> {
    hold(field, fault, Mode::Delay(DELAY)).await
}

async fn hold(field: &Field, fault: PlannedFault, mode: Mode) -> Option<Strike> {
    let (wire, behind) = choose(field, fault.pick)?;
    let strike = Strike::on(*behind);
    wire.set(mode);
    tokio::time::sleep(fault.lasts).await;
    wire.set(Mode::Pass);
    Some(strike)
}

/// Every open connection is reset.
pub(super) fn reset(field: &Field, fault: PlannedFault) -> Option<Strike> {
    let (wire, behind) = choose(field, fault.pick)?;
    let strike = Strike::on(*behind);
    wire.cut_all();
    Some(strike)
}
