//! TLS to Postgres: libpq's words, in rustls.
//!
//! The driver knows disable, prefer and require, and leaves certificates to us. Files are read anew
//! for each connection, so that a renewed certificate needs no restart.

mod params;
mod verify;

use std::convert::Infallible;
use std::fs::{self, Metadata};
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) use params::Params;
pub(super) use verify::Fault;
use verify::{Proof, Verifier};

/// How a connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    /// What the driver is told.
    pub(super) mode: SslMode,
    proof: Proof,
    roots: Roots,
    /// The files of our own certificate and its key.
    identity: Option<(PathBuf, PathBuf)>,
}

/// Whom to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Roots {
    None,
    System,
    File(PathBuf),
}

impl Tls {
    /// Reads the values of a connection string; says what is wrong with them.
    pub(super) fn new(params: Params) -> Result<Self, String> {
        let Params { mode, root_cert, cert, key } = params;
        let roots = match root_cert.as_deref() {
            None => Roots::None,
            Some("system") => Roots::System,
            Some(file) => Roots::File(file.into()),
        };
        let word = mode.as_deref().unwrap_or(match roots {
            Roots::System => "verify-full",
            Roots::None | Roots::File(_) => "prefer",
        });
        // A CA that is named is one to be checked against.
        let named = if roots == Roots::None { Proof::None } else { Proof::Chain };
        let (mode, proof) = match word {
            "disable" => (SslMode::Disable, Proof::None),
            "allow" | "prefer" => (SslMode::Prefer, named),
            "require" => (SslMode::Require, named),
            "verify-ca" => (SslMode::Require, Proof::Chain),
            "verify-full" => (SslMode::Require, Proof::Name),
            other => {
                let words = "disable, allow, prefer, require, verify-ca, verify-full";
                return Err(format!("sslmode={other} is not one of {words}"));
            }
        };
        if roots == Roots::System && proof != Proof::Name && mode != SslMode::Disable {
            return Err(format!(
                "sslrootcert=system with sslmode={word} would trust every certificate that anybody \
                 can buy: it takes verify-full"
            ));
        }
        let roots = match (roots, proof) {
            (Roots::None, Proof::Chain) => {
                return Err("sslmode=verify-ca takes sslrootcert=FILE, the CA's certificate".into());
            }
            (Roots::None, Proof::Name) => Roots::System,
            (roots, _) => roots,
        };
        let identity = match (cert, key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            _ => return Err("sslcert and sslkey take one another".to_owned()),
        };
        Ok(Tls { mode, proof, roots, identity })
    }

    /// What encrypts the next connection.
    pub(super) fn connector(&self) -> Result<Connector, String> {
        let inner = match self.mode {
            SslMode::Disable => None,
            _ => Some(MakeRustlsConnect::new(self.config()?)),
        };
        Ok(Connector { inner, used: Arc::default() })
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new(self.proof, self.roots.load()?, provider.clone())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                check_key(key)?;
                let bad = |error| format!("{}: {error}", key.display());
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                    format!("{}: {error} (it may not be encrypted)", key.display())
                })?;
                builder.with_client_auth_cert(certificates(cert)?, private).map_err(bad)?
            }
        };
        // Asked for by sslnegotiation=direct, and harmless otherwise.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(config)
    }
}

impl Roots {
    fn load(&self) -> Result<RootCertStore, String> {
        let mut store = RootCertStore::empty();
        match self {
            Roots::None => {}
            Roots::System => {
                let found = rustls_native_certs::load_native_certs();
                let (good, _) = store.add_parsable_certificates(found.certs);
                if good == 0 {
                    return Err("this system has no CA certificates: install its package \
                                ca-certificates, or give sslrootcert=FILE"
                        .to_owned());
                }
            }
            Roots::File(path) => {
                for certificate in certificates(path)? {
                    let added = store.add(certificate);
                    added.map_err(|error| format!("{}: {error}", path.display()))?;
                }
            }
        }
        Ok(store)
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(format!("{}: no certificate in it", path.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// A key that others can read is theirs too. The bounds are libpq's.
fn check_key(path: &PathBuf) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match is_private(&metadata) {
        true => Ok(()),
        false => Err(format!(
            "{} can be read by others: chmod 0600 it (0640 if root owns it)",
            path.display()
        )),
    }
}

fn is_private(metadata: &Metadata) -> bool {
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    metadata.is_file() && metadata.mode() & others == 0
}

/// rustls for the driver, which also tells whether it was used.
pub(super) struct Connector {
    inner: Option<MakeRustlsConnect>,
    used: Arc<AtomicBool>,
}

impl Connector {
    /// Whether a connection was encrypted; to be asked once there is one.
    pub(super) fn used(&self) -> Arc<AtomicBool> {
        self.used.clone()
    }
}

type Inner = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;

/// The stream of an encrypted connection.
pub(super) type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Infallible> {
        let make = <MakeRustlsConnect as MakeTlsConnect<Socket>>::make_tls_connect;
        let inner = self.inner.as_mut().map(|inner| make(inner, host)).transpose()?;
        Ok(Handshake { inner, used: self.used.clone() })
    }
}

/// What is due on one connection.
pub(super) struct Handshake {
    inner: Option<Inner>,
    used: Arc<AtomicBool>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, io::Error>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        self.used.store(true, Ordering::Relaxed);
        Box::pin(async move {
            match self.inner {
                Some(inner) => inner.connect(socket).await,
                None => Err(io::Error::other("encryption is off")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn tls(url: &str) -> Result<Tls, String> {
        Tls::new(Params::take(&format!("postgres://db/app?{url}")).0)
    }

    #[test]
    fn the_words_of_libpq_mean_what_they_mean_there() {
        let file = || Roots::File("/ca".into());
        for (url, mode, proof, roots) in [
            ("", SslMode::Prefer, Proof::None, Roots::None),
            ("sslmode=disable", SslMode::Disable, Proof::None, Roots::None),
            ("sslmode=allow", SslMode::Prefer, Proof::None, Roots::None),
            ("sslmode=require", SslMode::Require, Proof::None, Roots::None),
            ("sslmode=require&sslrootcert=/ca", SslMode::Require, Proof::Chain, file()),
            ("sslmode=prefer&sslrootcert=/ca", SslMode::Prefer, Proof::Chain, file()),
            ("sslmode=verify-ca&sslrootcert=/ca", SslMode::Require, Proof::Chain, file()),
            ("sslmode=verify-full&sslrootcert=/ca", SslMode::Require, Proof::Name, file()),
            ("sslmode=verify-full", SslMode::Require, Proof::Name, Roots::System),
            ("sslrootcert=system", SslMode::Require, Proof::Name, Roots::System),
        ] {
            let identity = None;
            assert_eq!(tls(url), Ok(Tls { mode, proof, roots, identity }), "{url}");
        }
    }

    #[test]
    fn what_would_be_weaker_than_it_looks_is_refused() {
        for (url, part) in [
            ("sslmode=verify_full", "verify-full"),
            ("sslmode=require&sslrootcert=system", "takes verify-full"),
            ("sslmode=verify-ca&sslrootcert=system", "takes verify-full"),
            ("sslmode=verify-ca", "sslrootcert=FILE"),
            ("sslcert=/c", "one another"),
            ("sslkey=/k", "one another"),
        ] {
            let error = tls(url).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let path = std::env::temp_dir().join(format!("key-{}", uuid::Uuid::new_v4()));
        fs::write(&path, "x").unwrap();
        let root = fs::metadata(&path).unwrap().uid() == 0;
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, root), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_key(&path).is_ok(), good, "{mode:o}");
        }
        fs::remove_file(&path).unwrap();
        assert!(check_key(&path).is_err());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let tls = tls("sslmode=verify-full&sslrootcert=/nowhere/ca.pem").unwrap();
        assert!(tls.connector().err().unwrap().contains("/nowhere/ca.pem"));
    }
}
