//! One connection through the proxy, in both directions.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::sleep;

use super::postgres::{Answered, Frames, Traffic, asks_for_encryption};
use super::{Loss, Mode, Protocol, Shared, Side, Upstream, When};

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

const CHUNK: usize = 16 << 10;

/// How a connection ends.
enum End {
    /// As one of its ends wanted it.
    Closed,
    /// Both are reset.
    Cut,
    /// Nothing comes any more, and it stays open.
    Silence,
    HalfOpen(Side),
}

impl From<Loss> for End {
    fn from(loss: Loss) -> End {
        match loss {
            Loss::Cut => End::Cut,
            Loss::Silence => End::Silence,
        }
    }
}

/// What both directions know.
#[derive(Default)]
struct State {
    postgres: Traffic,
    /// The server answers a request for encryption by a byte, which is no message.
    byte_is_due: bool,
    /// The HTTP request that is not answered yet.
    asked: String,
}

/// Sees a connection through.
pub(super) async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let mut resets = shared.resets.subscribe();
    let mut strands = shared.strands.subscribe();
    let (from_client, to_client) = client.into_split();
    if *shared.mode.borrow() == Mode::Reset {
        return reset(from_client, to_client);
    }
    let Ok((from_server, to_server)) = connect(&shared.upstream).await else {
        return reset(from_client, to_client);
    };
    let state = Mutex::new(State::default());
    let mut up = Up::new(&shared, &state, from_client, to_server);
    let mut down = Down::new(&shared, &state, from_server, to_client);
    let end = tokio::select! {
        end = up.run() => end,
        end = down.run() => end,
        _ = resets.changed() => Ok(End::Cut),
        _ = strands.changed() => Ok(End::Silence),
        end = ended_by_mode(&shared) => Ok(end),
    };
    let (mut from_client, to_server) = (up.from, up.to);
    let (mut from_server, mut to_client) = (down.from, down.to);
    match end.unwrap_or(End::Cut) {
        End::Closed => {
            let _ = to_client.shutdown().await;
        }
        End::Cut => reset(from_client, to_client),
        End::Silence => {
            tokio::select! {
                () = swallow(&mut from_client) => {}
                _ = resets.changed() => reset(from_client, to_client),
            }
        }
        End::HalfOpen(Side::Server) => {
            drop((from_server, to_server));
            tokio::select! {
                () = swallow(&mut from_client) => {}
                _ = resets.changed() => reset(from_client, to_client),
            }
        }
        End::HalfOpen(Side::Client) => {
            reset(from_client, to_client);
            tokio::select! {
                () = swallow(&mut from_server) => {}
                _ = resets.changed() => {}
            }
            drop(to_server);
        }
    }
}

async fn connect(upstream: &Upstream) -> io::Result<(Reader, Writer)> {
    match upstream {
        Upstream::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (from, to) = stream.into_split();
            Ok((Box::new(from), Box::new(to)))
        }
        Upstream::Unix(path) => {
            let (from, to) = split(UnixStream::connect(path).await?);
            Ok((Box::new(from), Box::new(to)))
        }
    }
}

/// Closes the client's connection by a reset.
fn reset(from: OwnedReadHalf, to: OwnedWriteHalf) {
    let _ = from.as_ref().set_zero_linger();
    // Dropped otherwise, it would say an orderly end first.
    to.forget();
}

async fn swallow(from: &mut (impl AsyncRead + Unpin)) {
    let mut chunk = vec![0; CHUNK];
    while from.read(&mut chunk).await.is_ok_and(|count| 0 < count) {}
}

/// Waits for a mode that ends what is open.
async fn ended_by_mode(shared: &Shared) -> End {
    let mut mode = shared.mode.subscribe();
    loop {
        match *mode.borrow_and_update() {
            Mode::Reset => return End::Cut,
            Mode::HalfOpen(side) => return End::HalfOpen(side),
            _ => {}
        }
        if mode.changed().await.is_err() {
            return End::Cut;
        }
    }
}

/// Holds what comes while nothing may pass, or as long as it has to be late.
async fn pass(mode: &mut watch::Receiver<Mode>) {
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::BlackHole => {
                if mode.changed().await.is_err() {
                    return;
                }
            }
            Mode::Delay(by) => return sleep(by).await,
            _ => return,
        }
    }
}

/// From the client to the server.
struct Up<'a> {
    shared: &'a Shared,
    state: &'a Mutex<State>,
    mode: watch::Receiver<Mode>,
    from: OwnedReadHalf,
    to: Writer,
    frames: Frames,
    started: bool,
    /// A unit that is held back until it is whole.
    held: Vec<u8>,
}

impl<'a> Up<'a> {
    fn new(shared: &'a Shared, state: &'a Mutex<State>, from: OwnedReadHalf, to: Writer) -> Up<'a> {
        let (mode, frames) = (shared.mode.subscribe(), Frames::of_client());
        Up { shared, state, mode, from, to, frames, started: false, held: Vec::new() }
    }

    async fn run(&mut self) -> io::Result<End> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = self.from.read(&mut chunk).await?;
            if count == 0 {
                return Ok(End::Closed);
            }
            pass(&mut self.mode).await;
            let loss = match self.shared.protocol {
                Protocol::Postgres => self.messages(&chunk[..count]).await?,
                Protocol::Http => self.request(&chunk[..count]).await?,
            };
            if let Some(loss) = loss {
                return Ok(loss.into());
            }
        }
    }

    async fn request(&mut self, bytes: &[u8]) -> io::Result<Option<Loss>> {
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        if let Some(loss) = self.shared.strike(When::Before, &text) {
            return Ok(Some(loss));
        }
        lock(self.state).asked.push_str(&text);
        self.to.write_all(bytes).await?;
        Ok(None)
    }

    async fn messages(&mut self, bytes: &[u8]) -> io::Result<Option<Loss>> {
        self.frames.push(bytes);
        let mut through = Vec::new();
        while let Some(message) = self.frames.next() {
            if !self.started {
                self.started = !asks_for_encryption(&message);
                lock(self.state).byte_is_due = !self.started;
                through.extend(message);
                continue;
            }
            let unit = lock(self.state).postgres.sent(&message);
            // Of any other message the client may wait for an answer before its unit ends.
            let waits = matches!(message[0], b'P' | b'B' | b'D' | b'E' | b'C');
            self.held.extend(message);
            let Some(unit) = unit else {
                if !waits || !self.shared.is_armed(When::Before) {
                    through.append(&mut self.held);
                }
                continue;
            };
            let struck = unit.commits.then(|| self.shared.strike(When::Before, &unit.text));
            if let Some(struck @ Some(_)) = struck {
                self.to.write_all(&through).await?;
                return Ok(struck);
            }
            lock(self.state).postgres.waits(unit);
            through.append(&mut self.held);
        }
        self.to.write_all(&through).await?;
        Ok(None)
    }
}

/// From the server to the client.
struct Down<'a> {
    shared: &'a Shared,
    state: &'a Mutex<State>,
    mode: watch::Receiver<Mode>,
    from: Reader,
    to: OwnedWriteHalf,
    frames: Frames,
    /// An answer that is held back until it is known whether it is a commit's.
    held: Vec<u8>,
    /// Some of the answer went through before a fault was laid, so it is none of the fault's.
    leaked: bool,
    sent: u64,
}

impl<'a> Down<'a> {
    fn new(
        shared: &'a Shared,
        state: &'a Mutex<State>,
        from: Reader,
        to: OwnedWriteHalf,
    ) -> Down<'a> {
        let _ = to.as_ref().set_nodelay(true);
        let (mode, frames) = (shared.mode.subscribe(), Frames::of_server());
        Down { shared, state, mode, from, to, frames, held: Vec::new(), leaked: false, sent: 0 }
    }

    async fn run(&mut self) -> io::Result<End> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = self.from.read(&mut chunk).await?;
            if count == 0 {
                return Ok(End::Closed);
            }
            let mut through = Vec::new();
            let loss = match self.shared.protocol {
                Protocol::Postgres => self.messages(&chunk[..count], &mut through),
                Protocol::Http => {
                    through.extend_from_slice(&chunk[..count]);
                    let asked = std::mem::take(&mut lock(self.state).asked);
                    self.shared.strike(When::After, &asked)
                }
            };
            if let Some(loss) = loss {
                return Ok(loss.into());
            }
            pass(&mut self.mode).await;
            if !self.write(&through).await? {
                return Ok(End::Cut);
            }
        }
    }

    /// What of the bytes may go through; a loss takes the rest.
    fn messages(&mut self, mut bytes: &[u8], through: &mut Vec<u8>) -> Option<Loss> {
        let mut state = lock(self.state);
        if std::mem::take(&mut state.byte_is_due) {
            through.push(bytes[0]);
            bytes = &bytes[1..];
        }
        self.frames.push(bytes);
        while let Some(message) = self.frames.next() {
            let hold =
                !self.leaked && state.postgres.is_answering() && self.shared.is_armed(When::After);
            let answered = state.postgres.answered(&message);
            self.held.extend(message);
            match answered {
                Answered::Partly if hold => continue,
                Answered::Partly => self.leaked = true,
                Answered::Committed(unit) if !self.leaked => {
                    if let Some(loss) = self.shared.strike(When::After, &unit.text) {
                        return Some(loss);
                    }
                }
                Answered::Committed(_) | Answered::Otherwise => self.leaked = false,
            }
            through.append(&mut self.held);
        }
        None
    }

    /// Whether the connection goes on.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mode = *self.mode.borrow();
            let (part, pause) = match mode {
                Mode::Drip(pause) => (1, pause),
                Mode::CutAfter(most) => {
                    let left = usize::try_from(most.saturating_sub(self.sent)).unwrap_or(0);
                    (left.min(rest.len()), Duration::ZERO)
                }
                _ => (rest.len(), Duration::ZERO),
            };
            self.to.write_all(&rest[..part]).await?;
            self.sent += part as u64;
            rest = &rest[part..];
            if matches!(mode, Mode::CutAfter(most) if most <= self.sent) {
                return Ok(false);
            }
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
        Ok(true)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
