//! What an audit looks at: the server, its sessions and the schema, as they are now.

mod schema;
mod server;
mod sessions;

pub use schema::{
    closed_functions, disabled_triggers, drift, loose_tables, missing_roles, overdue,
};
pub use server::{ServerFacts, server_facts};
pub use sessions::{Holder, backend_of, hidden_sessions, hold_session, holders};
