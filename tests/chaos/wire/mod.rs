//! A wire that can be made bad: a TCP proxy before Postgres or an HTTP service.
//!
//! A [`Mode`] holds until another is set, for connections that are open and for new ones. A
//! [`Fault`] waits for the next statement that would commit, and spends itself on it: there a
//! caller cannot know what became of its call.

mod link;
mod postgres;
mod sql;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is at the other end.
#[derive(Clone, Debug)]
pub(crate) enum Upstream {
    /// `host:port`
    Tcp(String),
    /// The path of a socket, such as `/run/postgresql/.s.PGSQL.5432`.
    Unix(PathBuf),
}

impl Upstream {
    /// The server that a connection string leads to.
    pub(crate) fn of(url: &str) -> Upstream {
        use tokio_postgres::config::Host;
        let config: tokio_postgres::Config = url.parse().expect("a connection string");
        let port = config.get_ports().first().copied().unwrap_or(5432);
        match config.get_hosts().first().expect("it names a host") {
            Host::Unix(folder) => Upstream::Unix(folder.join(format!(".s.PGSQL.{port}"))),
            Host::Tcp(host) => Upstream::Tcp(format!("{host}:{port}")),
        }
    }
}

/// What is spoken. It decides what a [`Fault`] takes for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// A commit is a statement after which the session is in no transaction.
    Postgres,
    /// A commit is any request; its answer begins with the first bytes that come back.
    Http,
}

/// How the wire behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    /// As if it were not there.
    Pass,
    /// Nobody listens; open connections stay.
    Refuse,
    /// Open connections are reset, and so is each new one.
    Reset,
    /// New connections are taken and all stay open, but nothing comes through. With another mode
    /// what was held back goes on its way.
    BlackHole,
    /// One end is closed, and the other is not told.
    HalfOpen(Side),
    /// Everything comes later by so much.
    Delay(Duration),
    /// A byte of an answer comes at a time, and then nothing for so long.
    Drip(Duration),
    /// Each connection is reset after so many bytes of answers.
    CutAfter(u64),
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who connected to the proxy.
    Client,
    /// What is behind it.
    Server,
}

/// When a commit is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// The server never sees it.
    Before,
    /// It is done, and nothing of its answer comes through.
    After,
}

/// What happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The connection is reset.
    Cut,
    /// The connection stays open in silence, until the client ends it.
    Silence,
}

/// What is to happen to statements that commit.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// When.
    pub(crate) when: When,
    /// And what.
    pub(crate) loss: Loss,
    /// Only to transactions in whose text this occurs, whatever its case; empty for all.
    pub(crate) text: String,
    /// How many times.
    pub(crate) times: u32,
}

impl Fault {
    /// Once, for transactions with this text.
    pub(crate) fn once(when: When, loss: Loss, text: &str) -> Fault {
        Fault { when, loss, text: text.to_ascii_lowercase(), times: 1 }
    }
}

/// A running proxy; dropping it resets what leads through it.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What the connections share.
struct Shared {
    upstream: Upstream,
    protocol: Protocol,
    mode: watch::Sender<Mode>,
    /// Counts up to reset what is open.
    resets: watch::Sender<u64>,
    /// Counts up to fall silent on what is open.
    strands: watch::Sender<u64>,
    faults: Mutex<Vec<Fault>>,
    struck: AtomicU64,
    accepted: AtomicU64,
}

impl Proxy {
    /// Starts one on a free port.
    pub(crate) async fn start(upstream: Upstream, protocol: Protocol) -> Proxy {
        // Keeps the port while nobody listens on it.
        let placeholder = bound(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = placeholder.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            upstream,
            protocol,
            mode: watch::Sender::new(Mode::Pass),
            resets: watch::Sender::new(0),
            strands: watch::Sender::new(0),
            faults: Mutex::default(),
            struck: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        });
        let listener = listen(address);
        let accepting = tokio::spawn(accept(shared.clone(), placeholder, address, listener));
        Proxy { address, shared, accepting }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection string, with the proxy in place of its host and port.
    pub(crate) fn url(&self, direct: &str) -> String {
        let config: tokio_postgres::Config = direct.parse().expect("a connection string");
        let database = config.get_dbname().expect("it names a database");
        let user = config.get_user().unwrap_or("postgres");
        let options = config.get_options().map(|it| it.replace(' ', "%20").replace('=', "%3D"));
        let options = options.map(|it| format!("?options={it}")).unwrap_or_default();
        let password = config.get_password().map(String::from_utf8_lossy);
        let password = password.map(|it| format!(":{it}")).unwrap_or_default();
        format!("postgres://{user}{password}@{}/{database}{options}", self.address)
    }

    /// From now on the wire behaves so.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Lays a fault in the way of commits.
    pub(crate) fn arm(&self, fault: Fault) {
        self.shared.faults().push(fault);
    }

    /// Takes back the faults that have not struck.
    pub(crate) fn disarm(&self) {
        self.shared.faults().clear();
    }

    /// How many commits were struck.
    pub(crate) fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::Acquire)
    }

    /// How many connections were taken.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Resets all connections that are open.
    pub(crate) fn cut_all(&self) {
        self.shared.resets.send_modify(|count| *count += 1);
    }

    /// Leaves all connections that are open to themselves: nothing comes through them any more.
    pub(crate) fn strand_all(&self) {
        self.shared.strands.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

impl Shared {
    fn faults(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a fault may strike at this moment, so that bytes have to be held back.
    fn is_armed(&self, when: When) -> bool {
        self.faults().iter().any(|fault| fault.when == when)
    }

    /// What strikes a commit with this text, if anything does; it is counted.
    fn strike(&self, when: When, text: &str) -> Option<Loss> {
        let mut faults = self.faults();
        let fits = |fault: &Fault| fault.when == when && text.contains(&fault.text);
        let place = faults.iter().position(fits)?;
        let loss = faults[place].loss;
        faults[place].times -= 1;
        if faults[place].times == 0 {
            faults.remove(place);
        }
        self.struck.fetch_add(1, Ordering::AcqRel);
        Some(loss)
    }
}

fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> TcpListener {
    bound(address).and_then(|socket| socket.listen(1024)).expect("the port is ours")
}

/// Takes connections, except while they are to be refused.
async fn accept(
    shared: Arc<Shared>,
    _placeholder: TcpSocket,
    address: SocketAddr,
    listener: TcpListener,
) {
    let mut mode = shared.mode.subscribe();
    let mut listener = Some(listener);
    loop {
        if *mode.borrow_and_update() == Mode::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen(address));
        }
        let taken = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = mode.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            taken = taken => {
                let Ok((client, _)) = taken else { continue };
                shared.accepted.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(link::serve(client, shared.clone()));
            }
        }
    }
}
