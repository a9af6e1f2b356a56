//! The launcher: start, adopt, stop, and the traces that crashes leave.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowlock::embedded::{self, Cluster, DATABASE, Error, Options, Profile, Status};
use tokio_postgres::{Client, NoTls};

use crate::harness::wait_until;

const DEADLINE: Duration = Duration::from_secs(60);

/// A folder for one cluster, which is stopped and deleted however the test ends.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    fn new() -> Folder {
        Folder(embedded::fresh_data_dir(Profile::Throwaway))
    }

    /// Longer than a socket path may be.
    fn deep() -> Folder {
        let top = embedded::fresh_data_dir(Profile::Throwaway);
        fs::create_dir(&top).expect("create");
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).expect("open up");
        Folder(top)
    }

    fn options(&self) -> Options {
        Options::throwaway(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rowlock"));
        command.args(["postgres", "stop", "--data-dir"]).arg(cluster_in(&self.0));
        let _ = command.stdout(Stdio::null()).status();
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn cluster_in(folder: &Path) -> PathBuf {
    let deep = folder.join("deep".repeat(30));
    if deep.exists() { deep } else { folder.to_owned() }
}

async fn connect(cluster: &Cluster) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.url(DATABASE), NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

async fn setting(client: &Client, name: &str) -> String {
    client.query_one("select current_setting($1)", &[&name]).await.expect("setting").get(0)
}

async fn assert_stopped(data_dir: &Path) {
    let status = embedded::status(data_dir).await.expect("status");
    assert!(matches!(status, Status::Stopped), "{status:?}");
}

#[tokio::test]
async fn a_cluster_starts_is_adopted_and_stops() {
    let folder = Folder::new();
    let status = embedded::status(&folder.0).await.expect("status");
    assert!(matches!(status, Status::Absent), "{status:?}");

    let started = embedded::start(&folder.options()).await.expect("starts");
    assert!(!started.adopted());
    let client = connect(&started).await;
    assert_eq!(setting(&client, "listen_addresses").await, "");
    assert_eq!(setting(&client, "fsync").await, "off");
    assert_eq!(setting(&client, "TimeZone").await, "UTC");

    let adopted = embedded::start(&folder.options()).await.expect("is adopted");
    assert!(adopted.adopted());
    assert_eq!(adopted.pid(), started.pid());

    adopted.stop().await.expect("stops");
    assert_stopped(&folder.0).await;
    started.destroy().await.expect("a stopped cluster can be deleted");
    assert!(!folder.0.exists());
}

#[tokio::test]
async fn a_durable_cluster_waits_for_the_disk_and_keeps_its_rows() {
    let folder = Folder::new();
    let options = Options::durable(&folder.0);
    let cluster = embedded::start(&options).await.expect("starts");
    let client = connect(&cluster).await;
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(setting(&client, name).await, "on", "{name}");
    }
    client.batch_execute("create table kept as select 1 as n").await.expect("create");
    kill(Pid::from_raw(cluster.pid()), Signal::SIGKILL).expect("kill");

    let again = embedded::start(&options).await.expect("starts after a crash");
    assert!(!again.adopted());
    let rows = connect(&again).await.query("select n from kept", &[]).await.expect("query");
    assert_eq!(rows.len(), 1);
    again.stop().await.expect("stops");
}

#[tokio::test]
async fn everything_is_private() {
    let folder = Folder::new();
    let cluster = embedded::start(&folder.options()).await.expect("starts");
    let home = cluster.data_dir();
    for path in [home.to_owned(), home.join("data"), home.join("socket"), cluster.log_file()] {
        let mode = fs::symlink_metadata(&path).expect("exists").mode();
        assert_eq!(mode & 0o077, 0, "{} is open to others: {mode:o}", path.display());
    }
    cluster.destroy().await.expect("is deleted");
}

#[tokio::test]
async fn a_stale_pid_file_does_not_count_as_running() {
    let folder = Folder::new();
    let cluster = embedded::start(&folder.options()).await.expect("starts");
    let pid_file = cluster.data_dir().join("data/postmaster.pid");
    let left_over = fs::read_to_string(&pid_file).expect("read");
    cluster.stop().await.expect("stops");

    // The id in the file belongs to a process that lives and is no Postgres: this test.
    let (_, rest) = left_over.split_once('\n').expect("lines");
    fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).expect("write");
    assert_stopped(&folder.0).await;

    let again = embedded::start(&folder.options()).await.expect("starts");
    assert!(!again.adopted());
    again.stop().await.expect("stops");
}

#[tokio::test]
async fn another_clusters_pid_file_is_not_adopted() {
    let (mine, other) = (Folder::new(), Folder::new());
    let cluster = embedded::start(&mine.options()).await.expect("starts");
    let pid_file = cluster.data_dir().join("data/postmaster.pid");
    cluster.stop().await.expect("stops");
    let running = embedded::start(&other.options()).await.expect("starts");
    fs::copy(running.data_dir().join("data/postmaster.pid"), &pid_file).expect("copy");

    assert_stopped(&mine.0).await;
    let cluster = embedded::start(&mine.options()).await.expect("starts beside the other");
    assert_ne!(cluster.pid(), running.pid());
    cluster.stop().await.expect("stops");
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn a_long_path_gets_its_socket_elsewhere() {
    let folder = Folder::deep();
    let data_dir = folder.0.join("deep".repeat(30));
    let options = Options::throwaway(&data_dir);
    let cluster = embedded::start(&options).await.expect("starts");
    let record = fs::read_to_string(data_dir.join("socket-folder")).expect("is recorded");
    let socket_dir = Path::new(record.trim_end());
    assert_eq!(fs::symlink_metadata(socket_dir).expect("exists").mode() & 0o077, 0);

    let adopted = embedded::start(&options).await.expect("is found again");
    assert!(adopted.adopted());
    connect(&adopted).await;
    cluster.destroy().await.expect("is deleted");
    assert!(!socket_dir.exists());
}

#[tokio::test]
async fn a_cluster_outlives_its_killed_starter() {
    let folder = Folder::new();
    let mut starter = Command::new(env!("CARGO_BIN_EXE_rowlock"));
    starter.args(["postgres", "start", "--data-dir"]).arg(&folder.0).stdout(Stdio::null());
    let mut starter = starter.spawn().expect("spawns");
    // Somewhere between initdb and the end of the start.
    let pid_file = folder.0.join("data/postmaster.pid");
    wait_until("the server is on its way", DEADLINE, || async { pid_file.exists() }).await;
    starter.kill().expect("kill -9");
    starter.wait().expect("reaped");

    let cluster = embedded::start(&folder.options()).await.expect("adopts");
    assert!(cluster.adopted());
    connect(&cluster).await;
    cluster.destroy().await.expect("is deleted");
}

#[tokio::test]
async fn of_many_starts_at_once_one_starts_and_the_others_adopt() {
    let folder = Folder::new();
    let mut starters = Vec::new();
    for _ in 0..4 {
        let mut starter = Command::new(env!("CARGO_BIN_EXE_rowlock"));
        starter.args(["postgres", "start", "--data-dir"]).arg(&folder.0).stdout(Stdio::piped());
        starters.push(starter.spawn().expect("spawns"));
    }
    let mut started = 0;
    for starter in starters {
        let output = starter.wait_with_output().expect("ends");
        assert!(output.status.success(), "{output:?}");
        started += usize::from(output.stdout.starts_with(b"started"));
    }
    assert_eq!(started, 1);
}

#[tokio::test]
async fn what_a_killed_run_leaves_is_swept_by_the_next() {
    let run = |script: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rowlock"));
        command.args(["postgres", "run", "--", "sh", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().expect("spawns")
    };
    // The command prints the folder of its cluster and ends when its input does.
    let script = r#"echo "$DATABASE_URL"; read line"#;
    let mut killed = run(script);
    let mut url = String::new();
    let output = killed.stdout.take().expect("is piped");
    BufReader::new(output).read_line(&mut url).expect("prints a line");
    let (_, host) = url.split_once("host=").expect("a host");
    let socket_dir = Path::new(host.split('&').next().expect("a folder"));
    let data_dir = socket_dir.parent().expect("inside the folder of the cluster").to_owned();
    assert!(data_dir.exists());
    killed.kill().expect("kill -9");
    killed.wait().expect("reaped");

    assert!(run("true").wait().expect("ends").success());
    assert!(!data_dir.exists());
}

#[tokio::test]
async fn the_exit_code_of_a_run_is_its_commands() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowlock"));
    let script =
        r#"test -n "$DATABASE_URL" -a "$DATABASE_URL" = "$ROWLOCK_TEST_DATABASE_URL" && exit 7"#;
    command.args(["postgres", "run", "--", "sh", "-c", script]);
    assert_eq!(command.status().expect("runs").code(), Some(7));
}

#[tokio::test]
async fn a_folder_with_other_files_is_refused() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).expect("create");
    fs::write(folder.0.join("thesis.txt"), "years of work").expect("write");
    let refused = embedded::start(&folder.options()).await;
    assert!(matches!(refused, Err(Error::NotOurs { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(&folder.0).expect("read").count(), 1);
}

#[tokio::test]
async fn unusable_binaries_are_named() {
    let folder = Folder::new();
    let bin_dir = Some(PathBuf::from("/nonexistent"));
    let options = Options { bin_dir, ..folder.options() };
    let error = embedded::start(&options).await.expect_err("no binaries there");
    assert_eq!(error.to_string(), "/nonexistent is not usable: no initdb");
}
