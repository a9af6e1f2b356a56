//! Workers: a process each, with a ledger for each of its incarnations.

mod desk;
mod http;
mod library;
mod sleep;
mod sql;

use anyhow::Result;
use serde_json::json;

use crate::ledger::Ledger;
use crate::run::{Run, Trade};

/// The name of an incarnation: of its ledger, its connections and its row in `workers`.
pub(crate) fn name(slot: usize, incarnation: usize) -> String {
    format!("worker-{slot}.{incarnation}")
}

/// Works until it is killed.
pub(crate) async fn run(run: Run, slot: usize, incarnation: usize) -> Result<()> {
    let name = name(slot, incarnation);
    let ledger = Ledger::open(&run.folder, &name);
    let trade = run.trades[slot];
    ledger.note("life", json!({"trade": trade}));
    ledger.watch_stalls();
    match trade {
        Trade::Sql => sql::work(run, name, ledger).await,
        Trade::Library => library::work(run, name, ledger).await,
        Trade::Http => http::work(run, name, ledger).await,
    }
}
