//! What every handler has: the engine, the limits, the stop.

use std::sync::Arc;

use super::bodies::Bodies;
use super::scrape::Scrape;
use crate::config::HttpSettings;
use crate::engine::Engine;
use crate::shutdown::Shutdown;

/// The state of the router; clones share it.
#[derive(Clone)]
pub(super) struct App {
    /// The verbs.
    pub(super) engine: Engine,
    /// How much of bodies is read, and for how long.
    pub(super) bodies: Bodies,
    /// Long polls end when a stop is asked for.
    pub(super) shutdown: Shutdown,
    /// The figures for `/metrics`, kept for some seconds.
    pub(super) scrape: Arc<Scrape>,
}

impl App {
    /// The state of one router.
    pub(super) fn new(engine: Engine, settings: &HttpSettings, shutdown: Shutdown) -> Self {
        App { engine, bodies: Bodies::new(settings), shutdown, scrape: Arc::default() }
    }
}
