//! The db floor on a live Postgres, with toy files in place of the schema; a schema a test.

mod connection;
mod listen;
mod migrate;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rowlock::config::{DatabaseUrl, Settings};
use rowlock::db::migrate::{Files, FunctionFile, Migration, run_files};
use rowlock::db::{Options, Pool, connect};
use rowlock::model::SchemaName;

const TOYS: Files = Files {
    migrations: &[Migration { file: "0001_toys", sql: "create table toys (id int primary key);" }],
    functions: &[FunctionFile { file: "sleep", sql: TOY_FUNCTIONS }],
};

const MORE_TOYS: Files = Files {
    migrations: &[
        TOYS.migrations[0],
        Migration { file: "0002_colour", sql: "alter table toys add colour text;" },
    ],
    functions: TOYS.functions,
};

const TOY_FUNCTIONS: &str = "
    create or replace function watch(queues text[]) returns pg_snapshot
    language sql security definer set search_path from current
    as $$ select pg_current_snapshot() $$;
    create or replace function settled(since pg_snapshot) returns boolean
    language sql set search_path from current
    as $$ select pg_snapshot_xmin(since) <= pg_snapshot_xmin(pg_current_snapshot()) $$;
    create or replace function unwatch(queues text[]) returns void
    language plpgsql set search_path from current
    as $$ begin raise exception 'no' using errcode = 'RL422', hint = 'why'; end $$;";

static SCHEMAS: AtomicU32 = AtomicU32::new(0);

async fn url() -> DatabaseUrl {
    DatabaseUrl::from(crate::harness::cluster_url().await.as_str())
}

fn schema() -> SchemaName {
    let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
    format!("live_{}_{number}", std::process::id()).parse().expect("works")
}

async fn options() -> Options {
    let mut settings = Settings::default().database;
    settings.schema = schema();
    settings.pool_size = 2;
    settings.connect_timeout = Duration::from_millis(500);
    let mut client = connect(&url().await).await.expect("works");
    run_files(&mut client, &settings.schema, &TOYS).await.expect("works");
    Options::new(url().await, &settings)
}

async fn scalar<T: tokio_postgres::types::FromSqlOwned>(pool: &Pool, sql: &'static str) -> T {
    pool.get().await.expect("works").query_one(sql, &[]).await.expect("works").get(0)
}
