//! `rowlock serve`: the service.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use rowlock::config::Settings;
use rowlock::server::{Options, Port, Schema, Server};
use rowlock::shutdown::Shutdown;
use rowlock::{embedded, telemetry};
use tracing::info;

/// Arguments of `rowlock serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// The folder of the Postgres that is started where no DATABASE_URL is set. Default:
    /// /var/lib/rowlock/dev for root, else .rowlock/pg here.
    #[arg(long, env = "ROWLOCK_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Refuse to start where migrations wait, instead of applying them.
    #[arg(long)]
    no_migrate: bool,
    /// Take the next free port where the one to listen on is taken, and say so.
    #[arg(long)]
    port_fallback: bool,
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.settings.validate()?;
    telemetry::init(&args.settings.log)?;
    info!("configuration: {}", args.settings.redacted().replace('\n', " "));
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let options = Options {
        settings: args.settings,
        data_dir: args.data_dir.unwrap_or_else(embedded::default_data_dir),
        schema: if args.no_migrate { Schema::Check } else { Schema::Migrate },
        port: if args.port_fallback { Port::NextFree } else { Port::Exact },
    };
    let server = Server::start(options, shutdown).await?;
    // For programs that start this one; nobody may be reading.
    let address = server.address();
    let _ = writeln!(std::io::stdout(), "listening on http://{address}");
    info!("listening on http://{address}");
    let drained = server.run().await;
    Ok(if drained { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
