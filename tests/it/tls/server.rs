//! A Postgres with TLS on, and the certificates of the play.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rowlock::embedded::{self, Cluster, DATABASE, Options, Profile};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{Client, NoTls};
use tokio_rustls::TlsAcceptor;

use crate::harness::wait_until;

const DEADLINE: Duration = Duration::from_secs(60);

/// The name in the server's certificate.
pub(super) const NAME: &str = "db.example";

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Who connects over the network is encrypted, proves something, or is let in for the asking.
const HBA: &str = "local all all trust\n\
                   hostssl all certified 127.0.0.0/8 cert\n\
                   hostssl all scrambled 127.0.0.0/8 scram-sha-256\n\
                   host all scrambled 127.0.0.0/8 scram-sha-256\n\
                   host all all 127.0.0.0/8 trust\n";

/// A cluster of the test's own that listens on a loopback address of its own.
pub(super) struct TlsServer {
    folder: PathBuf,
    cluster: Cluster,
    address: String,
    ca: Issuer,
}

impl TlsServer {
    pub(super) async fn start() -> TlsServer {
        let folder = embedded::fresh_data_dir(Profile::Throwaway);
        let options = Options::throwaway(&folder);
        let first = embedded::start(&options).await.expect("starts");
        let ca = ca("ours");
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let address = format!("127.83.{a}.{}", b.clamp(1, 254));
        write(&folder, "ca.pem", &ca.pem(), 0o644);
        write(&folder, "other-ca.pem", &self::ca("another").pem(), 0o644);
        let server = |cluster| TlsServer { folder, cluster, address, ca };
        let mut server = server(first);
        server.present(&[NAME], 2100);
        server.certify("certified");
        let client = server.direct().await;
        for statement in [
            format!("alter system set listen_addresses = '{}'", server.address),
            "alter system set ssl = on".to_owned(),
            "alter system set ssl_ca_file = '../ca.pem'".to_owned(),
            "create role certified superuser login".to_owned(),
            "create role scrambled superuser login password 's3cret'".to_owned(),
        ] {
            client.batch_execute(&statement).await.expect(&statement);
        }
        drop(client);
        server.write_of_cluster("pg_hba.conf", HBA, 0o600);
        server.cluster.stop().await.expect("stops");
        server.cluster = embedded::start(&options).await.expect("starts again");
        server
    }

    /// A URL over the network, by a name that leads there, with further parameters.
    pub(super) fn url(&self, name: &str, parameters: &str) -> String {
        let address = &self.address;
        format!("postgres://rowlock@{name}/{DATABASE}?hostaddr={address}&{parameters}")
    }

    /// A file of the play.
    pub(super) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// By the socket.
    pub(super) async fn direct(&self) -> Client {
        let url = self.cluster.url(DATABASE);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("connects");
        tokio::spawn(connection);
        client
    }

    /// Something before the server that begins with TLS, as `sslnegotiation=direct` expects, and
    /// wants the protocol named; gives its port.
    pub(super) async fn terminator(&self) -> u16 {
        let file = |name| self.folder.join("data").join(name);
        let certificate = CertificateDer::from_pem_file(file("server.crt")).expect("readable");
        let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("readable");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate");
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((self.address.as_str(), 0)).await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let server = format!("{}:5432", self.address);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut plain = TcpStream::connect(&server).await.expect("connects");
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut tls) = acceptor.accept(client).await else { return };
                    if tls.get_ref().1.alpn_protocol() == Some(b"postgresql".as_slice()) {
                        let _ = copy_bidirectional(&mut tls, &mut plain).await;
                    }
                });
            }
        });
        port
    }

    /// From now on the server has a certificate of these names, good until the year; without a
    /// name, one that it has signed itself.
    pub(super) fn present(&self, names: &[&str], until: i32) {
        let key = KeyPair::generate().expect("a key");
        let mut params = params("server", until);
        let certificate = if names.is_empty() {
            params.subject_alt_names = alternatives(&[NAME]);
            params.self_signed(&key)
        } else {
            params.subject_alt_names = alternatives(names);
            params.signed_by(&key, &self.ca)
        };
        let certificate = certificate.expect("a certificate").pem();
        self.write_of_cluster("server.crt", &certificate, 0o600);
        self.write_of_cluster("server.key", &key.serialize_pem(), 0o600);
    }

    /// Makes a certificate and a key for a login.
    fn certify(&self, login: &str) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(login, 2100).signed_by(&key, &self.ca).expect("a certificate");
        write(&self.folder, "client.crt", &certificate.pem(), 0o644);
        write(&self.folder, "client.key", &key.serialize_pem(), 0o600);
        write(&self.folder, "open.key", &key.serialize_pem(), 0o644);
    }

    /// Makes the server read its files and settings again.
    pub(super) async fn reload(&self) {
        let loaded = "select pg_conf_load_time()::text";
        let client = self.direct().await;
        let before: String = client.query_one(loaded, &[]).await.expect("query").get(0);
        client.batch_execute("select pg_reload_conf()").await.expect("reload");
        // The postmaster loads first; a session's own time tells only that it was told.
        wait_until("the settings are loaded", DEADLINE, || async {
            let now: String = self.direct().await.query_one(loaded, &[]).await.expect("q").get(0);
            now != before
        })
        .await;
    }

    pub(super) async fn end(self) {
        self.cluster.destroy().await.expect("is deleted");
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn write_of_cluster(&self, name: &str, text: &str, mode: u32) {
        let data = self.folder.join("data");
        write(&data, name, text, mode);
        let owner = fs::metadata(&data).expect("it is there");
        if nix::unistd::geteuid().is_root() {
            chown(data.join(name), Some(owner.uid()), Some(owner.gid())).expect("given");
        }
    }
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
}

fn params(name: &str, until: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

fn alternatives(names: &[&str]) -> Vec<rcgen::SanType> {
    let name = |name: &&str| rcgen::SanType::DnsName((*name).try_into().expect("a name"));
    names.iter().map(name).collect()
}

fn ca(name: &str) -> Issuer {
    let mut params = params(name, 2100);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
}
