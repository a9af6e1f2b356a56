//! `rowlock token`: the tokens of the HTTP API.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use rowlock::config::units;
use rowlock::engine::KeptToken;
use rowlock::model::{Action, ApiToken, Scope};
use serde_json::{Value, json};

use super::database::Database;
use super::show;

/// Arguments of `rowlock token`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a token and print it, once: only its digest is kept
    Create(CreateArgs),
    /// List the tokens, newest first; never the tokens themselves
    List(ListArgs),
    /// Create a token in the place of another, which goes on for a while, and print it
    Rotate(RotateArgs),
    /// End a token
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// What it is called; need not be unique
    #[arg(long)]
    name: String,
    /// What it is for: enqueue, work, operate or observe; may be repeated
    #[arg(long = "action", required = true, value_name = "ACTION")]
    actions: Vec<Action>,
    /// A queue it is for, or the beginning of names, such as etl/*; may be repeated; all without it
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
    /// After so long it is good no more, such as 90d
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    expires: Option<Duration>,
    /// One object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// One object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

#[derive(Debug, clap::Args)]
struct RotateArgs {
    /// The public part of the token, as `list` shows it
    id: String,
    /// For how long the old one goes on
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = units::duration)]
    overlap: Duration,
    /// After so long the new one is good no more; as long as the old one was made for without it
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    expires: Option<Duration>,
    /// One object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

#[derive(Debug, clap::Args)]
struct RevokeArgs {
    /// The public part of the token, as `list` shows it
    id: String,
    #[command(flatten)]
    database: Database,
}

/// Does what was asked for.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Create(args) => create(args).await?,
        Verb::List(args) => list(args).await?,
        Verb::Rotate(args) => rotate(args).await?,
        Verb::Revoke(args) => revoke(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let queues = Some(args.queues).filter(|queues| !queues.is_empty());
    let scope = Scope { actions: args.actions, queues };
    let engine = args.database.engine().await?;
    show_once(&engine.create_token(&args.name, &scope, args.expires).await?, args.json)
}

async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let engine = args.database.engine().await?;
    show_once(&engine.rotate_token(&args.id, args.overlap, args.expires).await?, args.json)
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let revoked = args.database.engine().await?.revoke_token(&args.id).await?;
    show::line(if revoked { "revoked" } else { "it was revoked before" })
}

/// The only place that a token ever comes out of.
fn show_once(token: &ApiToken, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return show::lines([json!({"id": token.id(), "token": token.expose()})]);
    }
    show::line(token.expose())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let tokens = args.database.engine().await?.tokens().await?;
    if args.json {
        return show::lines(tokens.iter().map(token_json));
    }
    let header = ["id", "name", "actions", "queues", "state", "created", "expires", "last used"];
    show::table(&header, tokens.iter().map(token_row).collect(), "no tokens")
}

fn token_row(token: &KeptToken) -> Vec<String> {
    let time = |time: Option<_>| show::or_dash(time.map(show::time));
    vec![
        token.id.clone(),
        token.name.clone(),
        words(&token.scope.actions).join(","),
        token.scope.queues.as_ref().map_or_else(|| "*".to_owned(), |queues| queues.join(",")),
        token.state.clone(),
        show::time(token.created_at),
        time(token.expires_at),
        time(token.last_used_at),
    ]
}

fn token_json(token: &KeptToken) -> Value {
    let time = |time: Option<_>| time.map_or(Value::Null, show::rfc3339);
    json!({
        "id": token.id,
        "name": token.name,
        "actions": words(&token.scope.actions),
        "queues": token.scope.queues,
        "state": token.state,
        "created_at": show::rfc3339(token.created_at),
        "expires_at": time(token.expires_at),
        "last_used_at": time(token.last_used_at),
    })
}

fn words(actions: &[Action]) -> Vec<&'static str> {
    actions.iter().map(|action| action.as_str()).collect()
}
