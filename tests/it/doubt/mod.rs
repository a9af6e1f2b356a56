//! Commit in doubt: what callers are told, and what becomes of a call that is repeated, where a
//! commit or its answer is lost on the wire.

mod engine;
mod http;
mod pooler;
mod session;
mod standby;
mod worker;

use std::time::Duration;

use rowlock::config::Settings;
use rowlock::db::Options;
use rowlock::engine::Engine;
use rowlock::shutdown::Shutdown;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::value;
use crate::proxy::{Loss, Protocol, Proxy, Upstream, When};

const DEADLINE: Duration = Duration::from_secs(30);

/// Long enough for any statement of a test on a busy machine, and short enough to wait for.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The ways to lose a commit, and whether it was kept.
const LOSSES: [(When, Loss); 4] = [
    (When::Before, Loss::Cut),
    (When::After, Loss::Cut),
    (When::Before, Loss::Silence),
    (When::After, Loss::Silence),
];

/// A database behind a wire that can be made bad, and a connection that goes round it.
struct Scene {
    db: Db,
    proxy: Proxy,
    direct: Client,
}

impl Scene {
    async fn new() -> Scene {
        let db = Db::new().await;
        let proxy = Proxy::start(Upstream::of(&db.url()), Protocol::Postgres).await;
        let direct = db.connect().await;
        Scene { db, proxy, direct }
    }

    /// The way through the proxy, with a short patience.
    fn options(&self) -> Options {
        let mut settings = Settings::default().database;
        settings.pool_size = 3;
        settings.lock_timeout = CALL_TIMEOUT / 4;
        settings.statement_timeout = CALL_TIMEOUT / 2;
        settings.call_timeout = CALL_TIMEOUT;
        settings.connect_timeout = CALL_TIMEOUT;
        Options::new(self.proxy.url(&self.db.url()).as_str().into(), &settings)
    }

    fn engine(&self) -> (Engine, Shutdown) {
        let shutdown = Shutdown::new();
        let queue = Settings::default().queue;
        let engine = Engine::open(&self.options(), &queue, &shutdown).expect("the url is good");
        (engine, shutdown)
    }

    async fn jobs(&self) -> i64 {
        value(&self.direct, "select count(*) from jobs").await
    }

    async fn state(&self, job: Uuid) -> String {
        crate::harness::sql::state(&self.direct, job).await
    }

    /// Nothing is left but what the schema allows.
    async fn end(self) {
        drop((self.proxy, self.direct));
        self.db.finish().await;
    }
}
