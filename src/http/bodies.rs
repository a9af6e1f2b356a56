//! The bytes of request bodies: a bounded number of them, in time, and of all long ones together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::problem::{Kind, Problem};
use crate::config::HttpSettings;
use crate::model::Code;

/// The longest pause between two pieces of a body.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What all long bodies together may take, in units of the largest one.
const LONG_BODIES: usize = 4;

/// A body as short as this is read whatever others send.
const SHORT: usize = 64 << 10;

const KIB: usize = 1 << 10;

/// The bounds of all bodies; clones share them.
#[derive(Clone)]
pub(super) struct Bodies {
    limit: usize,
    patience: Duration,
    /// Room for what is beyond the first [`SHORT`] bytes of each, in KiB.
    room: Arc<Semaphore>,
}

impl Bodies {
    /// The bounds that these settings give.
    pub(super) fn new(settings: &HttpSettings) -> Self {
        let room = settings.body_limit.saturating_mul(LONG_BODIES) / KIB;
        Bodies {
            limit: settings.body_limit,
            patience: settings.transfer_timeout,
            room: Arc::new(Semaphore::new(room)),
        }
    }

    /// The bytes, and their part of the room for long bodies, to be kept while they are there.
    ///
    /// # Errors
    ///
    /// 408 when it comes too slowly, 413 when it is too long, 503 when there is no room.
    pub(super) async fn read(
        &self,
        body: Body,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        self.check_length(announced)?;
        let began = Instant::now();
        let mut pieces = body.into_data_stream();
        let mut whole = Bytes::new();
        let mut joined = Vec::new();
        let mut room = None;
        loop {
            let read = whole.len() + joined.len();
            let end = began + self.patience + HttpSettings::earned(read);
            let end = end.min(Instant::now() + LONGEST_PAUSE);
            let piece = match timeout_at(end, pieces.next()).await.map_err(|_| slow())? {
                None => break,
                Some(piece) => piece.map_err(|_| cut_off())?,
            };
            self.check_length(read + piece.len())?;
            self.widen(&mut room, read + piece.len())?;
            // Most bodies are one piece, which is taken as it is.
            if read == 0 {
                whole = piece;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut whole));
                joined.extend_from_slice(&piece);
            }
        }
        let bytes = if joined.is_empty() { whole } else { joined.into() };
        Ok((bytes, room))
    }

    fn check_length(&self, bytes: usize) -> Result<(), Problem> {
        if bytes <= self.limit {
            return Ok(());
        }
        let detail = format!("the body is longer than {} bytes", self.limit);
        Err(Problem::refused(Code::TooLarge, detail)
            .hint("Split the call, or pass references to what is large."))
    }

    /// Takes what a body of so many bytes needs beside what it has.
    fn widen(&self, room: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Problem> {
        let needed = bytes.saturating_sub(SHORT).div_ceil(KIB);
        let more =
            needed.saturating_sub(room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(taken) = self.room.clone().try_acquire_many_owned(more) else {
            return Err(Problem::new(Kind::Overloaded, "too many long bodies are being read")
                .hint("Nothing was begun; try again in a moment, or with less in a call."));
        };
        match room {
            Some(room) => room.merge(taken),
            None => *room = Some(taken),
        }
        Ok(())
    }
}

fn slow() -> Problem {
    Problem::new(Kind::SlowBody, "the body came too slowly")
        .hint("Send the body at once; ROWLOCK_TRANSFER_TIMEOUT is how long it may take.")
}

fn cut_off() -> Problem {
    Problem::new(Kind::Malformed, "the body broke off")
}
