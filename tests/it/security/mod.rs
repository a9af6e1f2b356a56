//! Nobody gets in: who may do what, and what becomes of those who try more.

mod attacks;
mod canaries;
mod grants;
mod injection;
mod probes;
mod stage;

use tokio_postgres::Client;

use crate::harness::sql::run;

/// `rowlock_test_nobody`, which has no right; for whoever asks first.
async fn make_nobody(client: &Client) {
    let sql = "do $$ begin create role rowlock_test_nobody nologin;
        exception when duplicate_object or unique_violation then null; end $$";
    run(client, sql).await;
}
