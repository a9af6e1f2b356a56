//! Making a cluster and starting its server.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_postgres::NoTls;

use super::layout::{Layout, PORT};
use super::owner::Owner;
use super::{Binaries, Error, Profile, ROLE, adopt};

const SETTINGS_FILE: &str = "rowlock.conf";
const START_SECONDS: &str = "90";
const ORPHANS_DEADLINE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

/// Starts the server of a folder in which none runs, making the cluster first when there is none.
pub(super) async fn launch(
    layout: &Layout,
    owner: &Owner,
    binaries: &Binaries,
    profile: Profile,
) -> Result<(), Error> {
    if layout.major().is_none() {
        make_cluster(layout, owner, binaries, profile).await?;
    }
    let socket_dir = layout.make_socket_dir(owner)?;
    adopt::clear_traces(layout, &socket_dir, owner)?;
    let settings = layout.data().join(SETTINGS_FILE);
    layout.write(&settings, &settings_text(profile, &socket_dir), owner)?;
    start_server(layout, owner, binaries).await
}

/// Creates a database unless it exists.
pub(super) async fn create_database(url: &str, name: &str) -> Result<(), Error> {
    let failed = |action| move |source| Error::Database { action, source };
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.map_err(failed("connect to the cluster"))?;
    let connection = tokio::spawn(connection);
    let exists = client
        .query_opt("select from pg_database where datname = $1", &[&name])
        .await
        .map_err(failed("list the databases"))?
        .is_some();
    if !exists {
        let statement = format!("create database \"{}\"", name.replace('"', "\"\""));
        client.batch_execute(&statement).await.map_err(failed("create the database"))?;
    }
    drop(client);
    let _ = connection.await;
    Ok(())
}

/// Makes the cluster under another name and renames it, so that an interrupted initdb does not
/// leave a folder that looks like one.
async fn make_cluster(
    layout: &Layout,
    owner: &Owner,
    binaries: &Binaries,
    profile: Profile,
) -> Result<(), Error> {
    let unfinished = layout.home.join("data.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(Error::io("delete", &unfinished))?;
    }
    let mut command = owner.command(&binaries.bin_dir.join("initdb"), &layout.home);
    command.arg("-D").arg("data.unfinished").args(["-U", ROLE]);
    // Trust is safe: only the owner of the socket's private folder can connect.
    command.args(["--auth=trust", "--encoding=UTF8", "--locale=C"]);
    if profile == Profile::Throwaway {
        command.arg("--no-sync");
    }
    run(command, "initdb", layout).await?;
    let main_file = unfinished.join("postgresql.conf");
    let text = fs::read_to_string(&main_file).map_err(Error::io("read", &main_file))?;
    let text = format!("{text}\ninclude_if_exists '{SETTINGS_FILE}'\n");
    layout.write(&main_file, &text, owner)?;
    fs::rename(&unfinished, layout.data()).map_err(Error::io("rename", &unfinished))
}

fn settings_text(profile: Profile, socket_dir: &Path) -> String {
    let socket_dir = socket_dir.to_string_lossy().replace('"', "\"\"").replace('\'', "''");
    let profile = match profile {
        Profile::Durable => {
            "fsync = on\n\
             synchronous_commit = on\n\
             full_page_writes = on\n\
             shared_buffers = 256MB\n\
             min_wal_size = 1GB\n\
             max_wal_size = 4GB\n\
             checkpoint_timeout = 15min\n"
        }
        Profile::Throwaway => {
            "fsync = off\n\
             synchronous_commit = off\n\
             full_page_writes = off\n\
             rowlock.allow_data_loss = on\n\
             shared_buffers = 128MB\n\
             max_wal_size = 4GB\n\
             max_prepared_transactions = 20\n\
             checkpoint_timeout = 1h\n"
        }
    };
    format!(
        "# Written by rowlock at every start; changes belong into postgresql.conf, below the include.\n\
         listen_addresses = ''\n\
         port = {PORT}\n\
         unix_socket_directories = '\"{socket_dir}\"'\n\
         unix_socket_permissions = 0700\n\
         max_connections = 200\n\
         autovacuum_naptime = 10s\n\
         wal_compression = on\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         log_line_prefix = '%m [%p] %d '\n\
         {profile}"
    )
}

/// A server killed a moment ago may have left backends that are still exiting; Postgres refuses
/// to start beside them, so that refusal is waited out.
async fn start_server(layout: &Layout, owner: &Owner, binaries: &Binaries) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let log_length = fs::metadata(layout.log()).map_or(0, |meta| meta.len());
        let mut command = owner.command(&binaries.bin_dir.join("pg_ctl"), &layout.home);
        // Relative paths, because pg_ctl hands them to a shell.
        command.args(["start", "-D", "data", "-l", "postgres.log", "-w", "-t", START_SECONDS]);
        let result = run(command, "pg_ctl", layout).await;
        let orphans = || {
            let log = fs::read(layout.log()).unwrap_or_default();
            let fresh = log.get(usize::try_from(log_length).unwrap_or(0)..).unwrap_or_default();
            String::from_utf8_lossy(fresh).contains("pre-existing shared memory block")
        };
        if result.is_ok() || ORPHANS_DEADLINE < started.elapsed() || !orphans() {
            return result;
        }
        sleep(POLL).await;
    }
}

async fn run(mut command: Command, program: &'static str, layout: &Layout) -> Result<(), Error> {
    let log = layout.log();
    let failed = |output| Error::Program { program, output, log };
    // A worker thread runs it to its end even when this future is dropped: half a start is worse.
    match spawn_blocking(move || command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let mut text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if text.is_empty() {
                text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            }
            Err(failed(text))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}
