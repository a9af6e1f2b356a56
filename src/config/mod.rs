//! Settings: flags and environment variables are one list, with one list of defaults.
//!
//! `clap` fills [`Settings`] from flags, then variables, then [`defaults`]; [`Settings::validate`]
//! then reports every fault at once, and [`Settings::redacted`] prints what is in force.
//!
//! # Invariants
//!
//! 1. A secret is never printed, by `Debug` neither.
//! 2. A `ROWLOCK_` variable that nothing reads is a fault, so that a misspelt one is noticed.

pub mod defaults;
mod secret;
mod settings;
pub mod units;
mod validate;

pub use secret::{DatabaseUrl, Secret};
pub use settings::{
    DatabaseSettings, HttpSettings, LogFormat, LogSettings, Pooler, QueueSettings, Settings,
};
pub use validate::Faults;
