//! How much of the server's certificate is checked, and what its refusal means.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What a certificate must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing.
    None,
    /// That a trusted CA has signed it.
    Chain,
    /// That, and that it is of the host one connects to.
    Name,
}

/// Checks as much as was asked for.
#[derive(Debug)]
pub(super) struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn new(
        proof: Proof,
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let verifier = || {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()
        };
        let chain = match proof {
            Proof::None => None,
            Proof::Chain | Proof::Name => Some(verifier().map_err(|error| error.to_string())?),
        };
        Ok(Verifier { chain, name: proof == Proof::Name, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let checked =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // The name is looked at last, so the chain is good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    // The server must hold the certificate's key even where nothing else is checked: channel
    // binding rests on it.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why there is no encrypted connection, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("no encrypted connection: {0}")]
pub(in crate::db) struct Fault(String);

impl Fault {
    /// What the driver's error says of encryption, if that is what it is about.
    pub(in crate::db) fn of(error: &tokio_postgres::Error) -> Option<Fault> {
        let source = std::error::Error::source(error)?;
        if source.to_string() == "server does not support TLS" {
            let hint = "set ssl = on there and give it a certificate, or connect with \
                        sslmode=disable on a network that you trust";
            return Some(Fault(format!("the server does not offer TLS; {hint}")));
        }
        // An I/O error does not show what it holds as its source.
        let inner = source.downcast_ref::<io::Error>()?.get_ref()?;
        let error = inner.downcast_ref::<rustls::Error>()?;
        Some(Fault(match hint(error) {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        }))
    }
}

fn hint(error: &rustls::Error) -> Option<&'static str> {
    use CertificateError as Bad;
    let rustls::Error::InvalidCertificate(bad) = error else { return None };
    Some(match bad {
        Bad::UnknownIssuer => {
            "if this is your server, give the certificate of its CA as sslrootcert"
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "connect by a name that is in the certificate's subjectAltName, or, if any server of \
             this CA will do, with sslmode=verify-ca"
        }
        Bad::Expired | Bad::ExpiredContext { .. } => "renew it on the server",
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => "check the clocks of both machines",
        bad if bad.to_string().contains("CaUsedAsEndEntity") => {
            "the server presents a CA's own certificate; let that CA sign one for the server"
        }
        bad if bad.to_string().contains("UnsupportedCertVersion") => {
            "the server's certificate is of X.509 version 1; sign it again, with subjectAltName"
        }
        _ => return None,
    })
}
