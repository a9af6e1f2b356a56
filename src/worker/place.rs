//! What a running job takes up.

use tokio::sync::OwnedSemaphorePermit;

/// A slot and a room of its queue; free when the last clone is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) _slot: OwnedSemaphorePermit,
    pub(super) _room: OwnedSemaphorePermit,
}
