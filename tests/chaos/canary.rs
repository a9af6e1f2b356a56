//! A commit every moment, from this very process: where one takes long, the database was kept from
//! its work, by the machine or by a fault.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::database::connect;
use crate::ledger::{Ledger, STALL};
use crate::run::{Run, in_micros, micros};

const NAME: &str = "canary";
const PAUSE: Duration = Duration::from_millis(100);
const COMMIT: &str = "select pg_logical_emit_message(true, 'canary', '')";
/// A connection may be silent for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sings until it is dropped.
pub(crate) async fn sing(run: Run) {
    let ledger = Ledger::open(&run.folder, NAME);
    let mut client = None;
    loop {
        let begin = micros();
        let session = match client.take() {
            Some(client) => Some(client),
            None => connect(&run.url, "chaos").await.ok(),
        };
        if let Some(session) = session {
            let commit = timeout(PATIENCE, session.batch_execute(COMMIT)).await;
            client = matches!(commit, Ok(Ok(()))).then_some(session);
        }
        if in_micros(STALL) < micros() - begin {
            ledger.note("stall", json!({"begin": begin}));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
