//! The SQL core, against a real Postgres: each protocol as the interleaving that would break it.

mod lifecycle;
