//! Which core a process runs on, where `taskset` can say so.

use std::process::Stdio;

use tokio::process::Command;

use super::database::Bench;

/// One core for the service and Postgres, another for those who ask; neither where that cannot be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// For the service; Postgres is there already.
    pub(crate) service: Option<usize>,
    /// For who asks.
    pub(crate) load: Option<usize>,
}

impl Cores {
    /// Puts Postgres, with all that it starts from now on, on the first core.
    pub(crate) async fn apart(bench: &Bench) -> Cores {
        if cores() >= 2 && pin_postgres(bench, "0").await {
            return Cores { service: Some(0), load: Some(1) };
        }
        Cores { service: None, load: None }
    }

    /// Gives all cores back to Postgres.
    pub(crate) async fn together(self, bench: &Bench) {
        if self.service.is_some() {
            let all = format!("0-{}", cores() - 1);
            assert!(pin_postgres(bench, &all).await, "Postgres gets its cores back");
        }
    }
}

/// A command, on one core where one is given.
pub(super) fn command(program: impl AsRef<std::ffi::OsStr>, core: Option<usize>) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The server and what runs for it already; its children inherit. Whether all could be told so.
async fn pin_postgres(bench: &Bench, cores: &str) -> bool {
    let sql = r"select split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int as pid
        union all select pid from pg_stat_activity";
    for row in bench.client.query(sql, &[]).await.expect("its processes") {
        let pid: i32 = row.get(0);
        let mut command = Command::new("taskset");
        command.arg("-pc").arg(cores).arg(pid.to_string());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        let gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists();
        if !status.is_ok_and(|status| status.success()) && !gone() {
            return false;
        }
    }
    true
}
