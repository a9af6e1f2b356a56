//! Patches of functions: what stands in the text of one is replaced.

use anyhow::{Result, ensure};
use tokio_postgres::Client;

/// Replaces a text in a function by another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patch {
    pub(crate) function: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

/// A patch in one line.
pub(super) const fn patch(function: &'static str, from: &'static str, to: &'static str) -> Patch {
    Patch { function, from, to }
}

/// Applies patches, one after the other; a text that is not there, or there twice, is an error, so
/// that no mutant lives on as a copy of the original.
pub(crate) async fn apply(client: &Client, patches: &[Patch]) -> Result<()> {
    for Patch { function, from, to } in patches {
        let sql = "select pg_get_functiondef(p.oid) from pg_proc p
             where p.pronamespace = 'rowlock'::regnamespace and p.proname = $1";
        let text: String = client.query_one(sql, &[function]).await?.get(0);
        let times = text.matches(from).count();
        ensure!(times == 1, "{function} has this {times} times instead of once: {from}");
        client.batch_execute(&text.replace(from, to)).await?;
    }
    Ok(())
}
