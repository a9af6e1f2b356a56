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
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Error;
use super::pace::Paced;
use crate::config::HttpSettings;
use crate::shutdown::Shutdown;

/// The request line and all headers together.
const MOST_HEADER_BYTES: usize = 64 << 10;

/// How long a client may take to send its headers when most connections are taken.
const SHORT_HEADER_TIMEOUT: Duration = Duration::from_secs(1);

/// File descriptors for all that is not a client: the database, the log, what libraries open.
const OTHER_FILES: usize = 128;

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
///
/// Who does not send its headers in time, takes too long to read an answer or sends nothing between
/// two requests is cut off; the sooner, the more connections there are.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &HttpSettings,
    shutdown: Shutdown,
) {
    let connections = GracefulShutdown::new();
    let most = affordable(settings.max_connections);
    let room = Arc::new(Semaphore::new(most));
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
                let headers = patience(settings.header_timeout, room.available_permits(), most);
                let stream = Paced::new(stream, settings.transfer_timeout);
                let connection = connection(stream, peer, router.clone(), headers);
                let watched = connections.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = watched.await {
                        debug!("a connection ended: {error}");
                    }
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

/// As many connections as wanted, if this process may have so many files open.
fn affordable(wanted: usize) -> usize {
    let needed = u64::try_from(wanted + OTHER_FILES).unwrap_or(u64::MAX);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    if needed <= soft
        || setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).is_ok() && needed <= hard
    {
        return wanted;
    }
    let files = usize::try_from(hard).unwrap_or(usize::MAX);
    let most = files.saturating_sub(OTHER_FILES).max(1);
    warn!("this process may have {hard} files open: it serves {most} connections, not {wanted}");
    most
}

/// How long a new client may take: little once three quarters of the room are taken, so that those who
/// only take room lose it soon.
fn patience(header_timeout: Duration, free: usize, most: usize) -> Duration {
    if free < most / 4 { header_timeout.min(SHORT_HEADER_TIMEOUT) } else { header_timeout }
}

fn connection(
    stream: Paced<TcpStream>,
    peer: SocketAddr,
    router: Router,
    header_timeout: Duration,
) -> impl GracefulConnection<Error = hyper::Error> {
    // An answer is one write; waiting for more of it only costs time.
    let _ = stream.get_ref().set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_header_size(MOST_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_shrinks_when_room_does() {
        let patient = Duration::from_secs(10);
        assert_eq!(patience(patient, 25, 100), patient);
        assert_eq!(patience(patient, 24, 100), SHORT_HEADER_TIMEOUT);
        let short = Duration::from_millis(100);
        assert_eq!(patience(short, 0, 100), short);
    }

    #[test]
    fn no_more_connections_than_files() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        assert_eq!(affordable(16), 16);
        let most = usize::try_from(hard).unwrap_or(usize::MAX / 2);
        assert!(affordable(most) <= most.saturating_sub(OTHER_FILES).max(1));
    }
}
