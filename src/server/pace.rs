//! A socket whose other side has to take what is written to it.
//!
//! An answer that nobody reads holds its memory and its connection for as long as the client likes.
//! So waiting to write is counted: what is taken earns time back, and who has used up the patience is
//! cut off.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::HttpSettings;

/// A stream with a bound on how slowly it may be written to.
pub(super) struct Paced<S> {
    stream: S,
    patience: Duration,
    /// How long writes have waited, less what was earned since.
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Paced<S> {
    /// Over this stream; `patience` is how long writes may wait without earning.
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Paced { stream, patience, waited: Duration::ZERO, waiting: None }
    }

    /// The stream itself.
    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// What a write that gave this means.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(done) = written {
            if let Some((since, _)) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            let bytes = *done.as_ref().unwrap_or(&0);
            self.waited = self.waited.saturating_sub(HttpSettings::earned(bytes));
            return Poll::Ready(done);
        }
        let left = self.patience.saturating_sub(self.waited);
        let (_, end) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + left)))
        });
        ready!(end.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let paced = self.get_mut();
        let written = Pin::new(&mut paced.stream).poll_write(context, bytes);
        paced.judge(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let paced = self.get_mut();
        let written = Pin::new(&mut paced.stream).poll_write_vectored(context, slices);
        paced.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Whether 1 MiB can be written to a client that reads pieces with such pauses.
    async fn goes_out(piece: usize, pause: Duration) -> bool {
        let (stream, mut other) = duplex(piece);
        let mut paced = Paced::new(stream, Duration::from_millis(300));
        let reading = tokio::spawn(async move {
            let mut bytes = vec![0; piece];
            loop {
                tokio::time::sleep(pause).await;
                if !other.read(&mut bytes).await.is_ok_and(|read| 0 < read) {
                    return;
                }
            }
        });
        let written = paced.write_all(&vec![0; 1 << 20]).await;
        reading.abort();
        if let Err(error) = &written {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        written.is_ok()
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_off_and_who_reads_too_slowly_too() {
        assert!(!goes_out(4 << 10, Duration::from_secs(3600)).await);
        // A pause earns itself by 6.4 KiB, so 4 KiB use the patience up.
        assert!(!goes_out(4 << 10, Duration::from_millis(100)).await);
        assert!(goes_out(64 << 10, Duration::from_millis(20)).await);
    }
}
