//! The port, and the loop of connections on it.
//!
//! Not `axum::serve`: that one has no timer, and so no bound on how long a client may take to send
//! its headers.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Error;
use crate::shutdown::Shutdown;

/// Connections at once; more wait in the system's queue.
const MOST_CONNECTIONS: usize = 10_000;

/// How many ports are tried when the first is taken.
const PORTS_TRIED: u16 = 100;

/// After an accept that failed, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What to do when the port is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Refuse to start.
    Exact,
    /// Take the next free one, and say so.
    NextFree,
}

/// Takes an address to listen on.
///
/// # Errors
///
/// [`Error::PortTaken`] or [`Error::Bind`].
pub async fn bind(wanted: SocketAddr, port: Port) -> Result<(TcpListener, SocketAddr), Error> {
    let tries = if port == Port::NextFree { PORTS_TRIED } else { 1 };
    let last = wanted.port().saturating_add(tries - 1);
    for number in wanted.port()..=last {
        let address = SocketAddr::new(wanted.ip(), number);
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address =
                    listener.local_addr().map_err(|source| Error::Bind { address, source })?;
                if number != wanted.port() {
                    warn!("{wanted} is in use: {address} is taken instead");
                }
                return Ok((listener, address));
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(source) => return Err(Error::Bind { address, source }),
        }
    }
    Err(Error::PortTaken { address: wanted })
}

/// Accepts connections until a stop is asked for, then waits for the requests under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    header_timeout: Duration,
    shutdown: Shutdown,
) {
    let connections = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await.expect("it is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shutdown.stopping() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let router = router.clone();
                let watcher = connections.watcher();
                tokio::spawn(async move {
                    connection(stream, peer, router, header_timeout, watcher).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!("a connection could not be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Closed first, so that new clients are refused and not left waiting.
    drop(listener);
    connections.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    header_timeout: Duration,
    watcher: Watcher,
) {
    // An answer is one write; waiting for more of it only costs time.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!("a connection ended: {error}");
    }
}
