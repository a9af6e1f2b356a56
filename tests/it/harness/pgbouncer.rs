//! A PgBouncer in transaction mode before a cluster, with fewer sessions than callers.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::geteuid;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::wait::wait_until;

const DEADLINE: Duration = Duration::from_secs(20);
const PORT: u16 = 6432;

/// A pooler of its own, which ends with the test.
pub(crate) struct PgBouncer {
    child: Child,
    folder: PathBuf,
}

impl PgBouncer {
    /// Starts one that holds so many sessions of each database.
    pub(crate) async fn start(direct: &str, sessions: u32) -> PgBouncer {
        let config: Config = direct.parse().expect("a connection string");
        let folder = std::env::temp_dir().join(format!("pgb-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&folder).expect("a folder");
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, settings(&config, &folder, sessions)).expect("its settings");
        let mut command = Command::new(find());
        command.arg(&file).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null());
        if geteuid().is_root() {
            // It refuses to be root, and only the cluster's own user can enter the socket's folder.
            let (uid, gid) = owner(&config).expect("as root, the cluster is on a socket");
            chown(&folder, Some(uid), Some(gid)).expect("another owner");
            command.uid(uid).gid(gid);
        }
        let child = command.spawn().expect("pgbouncer can be run");
        let pgbouncer = PgBouncer { child, folder };
        let url = pgbouncer.url(direct);
        wait_until("pgbouncer answers", DEADLINE, || async {
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_ok()
        })
        .await;
        pgbouncer
    }

    /// The way to a database through it.
    pub(crate) fn url(&self, direct: &str) -> String {
        let config: Config = direct.parse().expect("a connection string");
        let name = config.get_dbname().expect("it names a database");
        format!("host={} port={PORT} dbname={name} user=app", self.folder.display())
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It has nothing to lose, and milder signals are ignored where a shell started us behind `&`.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn find() -> PathBuf {
    look().expect("pgbouncer is installed; `make setup` does that")
}

/// On the PATH, or where Debian puts it, which is not on everybody's.
pub(crate) fn look() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut found = folders.map(|folder| folder.join("pgbouncer"));
    found.find(|program| program.is_file())
}

fn settings(config: &Config, folder: &Path, sessions: u32) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().unwrap_or("postgres");
    let host = match &config.get_hosts()[0] {
        Host::Unix(socket) => socket.display().to_string(),
        Host::Tcp(name) => name.clone(),
    };
    let password = config.get_password().map(String::from_utf8_lossy);
    let password = password.map(|it| format!(" password='{it}'")).unwrap_or_default();
    format!(
        "[databases]\n\
         * = host='{host}' port={port} user={user}{password}\n\
         [pgbouncer]\n\
         pool_mode = transaction\n\
         default_pool_size = {sessions}\n\
         max_client_conn = 200\n\
         server_login_retry = 1\n\
         auth_type = any\n\
         listen_addr =\n\
         listen_port = {PORT}\n\
         unix_socket_dir = {}\n",
        folder.display()
    )
}

/// Who owns the socket's folder.
fn owner(config: &Config) -> Option<(u32, u32)> {
    let Host::Unix(socket) = config.get_hosts().first()? else { return None };
    let folder = fs::metadata(socket).ok()?;
    Some((folder.uid(), folder.gid()))
}
