//! What stands between the processes and the database: wires that can be cut, and a pooler.

use crate::pgbouncer::{self, PgBouncer};
use crate::run::Ways;
use crate::wire::{Protocol, Proxy, Upstream};

/// Fewer than those have connections who come by it.
const SESSIONS: u32 = 4;

/// All of them, as long as a run lasts.
pub(crate) struct Between {
    /// What a fault may strike, and who is behind it, as incarnations are named.
    pub(crate) wires: Vec<(Proxy, &'static str)>,
    pooler: Option<PgBouncer>,
}

impl Between {
    /// Nothing: everybody goes straight.
    pub(crate) fn nothing() -> Between {
        Between { wires: Vec::new(), pooler: None }
    }

    /// Everything, before this database and a service at this address.
    pub(crate) async fn all(url: &str, service: &str) -> Between {
        let database = || Proxy::start(Upstream::of(url), Protocol::Postgres);
        let http = Proxy::start(Upstream::Tcp(service.to_owned()), Protocol::Http).await;
        let wires = vec![
            (database().await, "producer-0 producer-2"),
            (database().await, "worker-2 worker-3"),
            (http, "producer-1 worker-4"),
        ];
        let pooler = match pgbouncer::look() {
            Some(_) => Some(PgBouncer::start(url, SESSIONS).await),
            None => {
                println!("chaos: no PgBouncer is installed: nobody comes by a pooler");
                None
            }
        };
        Between { wires, pooler }
    }

    /// The addresses, for the processes.
    pub(crate) fn ways(&self, url: &str) -> Ways {
        let wire = |at: usize| self.wires.get(at).map(|(wire, _)| wire);
        Ways {
            producers: wire(0).map(|wire| wire.url(url)),
            workers: wire(1).map(|wire| wire.url(url)),
            service: wire(2).map(|wire| wire.address().to_string()),
            pooler: self.pooler.as_ref().map(|pooler| pooler.url(url)),
        }
    }
}
