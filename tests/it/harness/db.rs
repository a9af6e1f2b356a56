//! A database per test, cloned from a template that the first test of a run prepares.
//!
//! NOTIFY and advisory locks are database-wide, so a schema per test would leak exactly what a
//! queue has to be tested for. Each test may be a process of its own, many at a time.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rowlock::embedded::{self, Options};
use tokio::sync::OnceCell;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

const CREATE_DEADLINE: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Any number will do, as long as nothing else in the `postgres` database locks it.
const TEMPLATE_LOCK: i64 = 0x526f_776c_6f63_6b00;

/// A database that belongs to one test.
pub(crate) struct Db {
    admin: String,
    name: String,
    logins: Mutex<Vec<String>>,
    dropped: bool,
}

impl Db {
    /// Makes a fresh Rowlock database.
    pub(crate) async fn new() -> Db {
        let admin = cluster_url().await;
        let client = open(&admin).await;
        let template = ensure_template(&client, &admin).await;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        clone_database(&client, &name, &template).await;
        Db { admin, name, logins: Mutex::default(), dropped: false }
    }

    /// A connection string for this database, with Rowlock's schema on the search path.
    pub(crate) fn url(&self) -> String {
        let url = with_database(&self.admin, &self.name);
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}options=-csearch_path%3Drowlock")
    }

    /// A connection of its own, which lives as long as the client.
    pub(crate) async fn connect(&self) -> Client {
        open(&self.url()).await
    }

    /// A connection string for a fresh login role that is a member of these roles of the schema.
    pub(crate) async fn login(&self, roles: &[&str]) -> String {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let member = roles.iter().map(|role| format!("grant rowlock_{role} to {name};"));
        let sql = format!("create role {name} login; {}", member.collect::<String>());
        self.connect().await.batch_execute(&sql).await.expect("a login role");
        self.logins.lock().expect("not poisoned").push(name.clone());
        format!("{}&user={name}", self.url())
    }

    /// Checks that the schema's own invariants hold, then drops the database.
    pub(crate) async fn finish(mut self) {
        let client = self.connect().await;
        let query = "select v::text from rowlock.verify() v where v.violations > 0";
        let rows = client.query(query, &[]).await.expect("rowlock.verify() runs");
        let violations: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(violations.is_empty(), "invariants are broken: {violations:#?}");
        drop(client);
        drop_database(&self.admin, &self.name).await.expect("the database can be dropped");
        let logins = std::mem::take(&mut *self.logins.lock().expect("not poisoned"));
        if !logins.is_empty() {
            let sql = format!("drop role {}", logins.join(", "));
            open(&self.admin).await.batch_execute(&sql).await.expect("the logins can be dropped");
        }
        self.dropped = true;
    }
}

impl Drop for Db {
    /// For tests that fail before `finish`. The test's runtime may be inside this very thread, so
    /// another one drops the database; a failure leaves it to the end of the cluster.
    fn drop(&mut self) {
        if self.dropped {
            return;
        }
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                let _ = runtime.block_on(drop_database(&admin, &name));
            }
        });
        let _ = dropper.join();
    }
}

/// Fills the template. The one place where the schema comes in.
async fn prepare_template(url: &str) {
    let mut client = open(url).await;
    let schema = "rowlock".parse().expect("a schema name");
    rowlock::db::migrate::run(&mut client, &schema).await.expect("the schema installs");
}

/// The cluster that `rowlock postgres run` offers, else one that stays for the next run.
pub(crate) async fn cluster_url() -> String {
    static LAUNCHED: OnceCell<String> = OnceCell::const_new();
    if let Ok(url) = std::env::var("ROWLOCK_TEST_DATABASE_URL")
        && !url.is_empty()
    {
        return with_database(&url, "postgres");
    }
    let launch = || async {
        let cluster = embedded::start(&Options::throwaway(shared_data_dir())).await;
        cluster.expect("a cluster for the tests").url("postgres")
    };
    LAUNCHED.get_or_init(launch).await.clone()
}

/// Under `target`; for root, whose checkout Postgres may be unable to reach, beside the default.
fn shared_data_dir() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let default = embedded::default_data_dir();
    if default.is_relative() {
        return target.join("pg");
    }
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    default.with_file_name(format!("test-{:016x}", hasher.finish()))
}

/// The same server, another database. Understands the URL form.
fn with_database(url: &str, database: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("the test database is given as a URL");
    let (before, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let host = before.split('/').next().unwrap_or("");
    let question = if parameters.is_empty() { "" } else { "?" };
    format!("{scheme}://{host}/{database}{question}{parameters}")
}

async fn open(url: &str) -> Client {
    try_open(url).await.expect("the test server accepts connections")
}

async fn try_open(url: &str) -> Result<Client, tokio_postgres::Error> {
    let config: Config = url.parse()?;
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Prepares the template unless another test has; its name says which schema it holds.
async fn ensure_template(client: &Client, admin: &str) -> String {
    let name = format!("template_{}", schema_hash());
    let exists = "select exists (select from pg_database where datname = $1)";
    if client.query_one(exists, &[&name]).await.expect("catalog is readable").get(0) {
        return name;
    }
    client.execute("select pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await.expect("lock");
    if !client.query_one(exists, &[&name]).await.expect("catalog is readable").get::<_, bool>(0) {
        // Renamed when complete, so that a killed test leaves no half of a template.
        let draft = format!("{name}_draft");
        drop_database(admin, &draft).await.expect("an unfinished template can be dropped");
        client.batch_execute(&format!("create database {draft}")).await.expect("create draft");
        prepare_template(&with_database(admin, &draft)).await;
        rename_database(client, &draft, &name).await;
    }
    client.execute("select pg_advisory_unlock($1)", &[&TEMPLATE_LOCK]).await.expect("unlock");
    name
}

/// Schema files by name and content: another schema, another template.
fn schema_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        hash_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schema"), &mut hasher);
        format!("{:016x}", hasher.finish())
    })
}

fn hash_folder(folder: &Path, hasher: &mut DefaultHasher) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        path.hash(hasher);
        if path.is_dir() {
            hash_folder(&path, hasher);
        } else {
            fs::read(&path).expect("schema files are readable").hash(hasher);
        }
    }
}

async fn clone_database(client: &Client, name: &str, template: &str) {
    let version: String =
        client.query_one("show server_version_num", &[]).await.expect("version").get(0);
    // Copying files skips the write-ahead log, which 15 and newer fill by default.
    let newer = version.parse::<u32>().is_ok_and(|version| 150_000 <= version);
    let strategy = if newer { " strategy = file_copy" } else { "" };
    let statement = format!("create database {name} template = {template}{strategy}");
    retry_while_in_use(client, &statement).await;
}

async fn rename_database(client: &Client, from: &str, to: &str) {
    retry_while_in_use(client, &format!("alter database {from} rename to {to}")).await;
}

/// Connections take a moment to leave a database, and only one clone may lock a template at times.
async fn retry_while_in_use(client: &Client, statement: &str) {
    let started = Instant::now();
    loop {
        match client.batch_execute(statement).await {
            Ok(()) => return,
            Err(error)
                if error.code() == Some(&SqlState::OBJECT_IN_USE)
                    && started.elapsed() < CREATE_DEADLINE =>
            {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => panic!("{statement}: {error:?}"),
        }
    }
}

async fn drop_database(admin: &str, name: &str) -> Result<(), tokio_postgres::Error> {
    let client = try_open(admin).await?;
    client.batch_execute(&format!("drop database if exists {name} with (force)")).await
}
