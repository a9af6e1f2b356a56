//! The SQL of a migration, step by step: what runs is exactly what a dry run prints.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::files::{BOOKKEEPING, Files, FunctionFile, Migration, ROLES};
use crate::model::SchemaName;

/// One piece of SQL, run as one batch.
pub(super) struct Step {
    pub(super) title: String,
    pub(super) sql: String,
}

impl Step {
    fn new(title: impl Into<String>, sql: impl Into<String>) -> Self {
        Step { title: title.into(), sql: sql.into() }
    }
}

/// SHA-256 as lower-case hex.
pub(super) fn checksum(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        write!(hex, "{byte:02x}").expect("a string takes all that is written");
    }
    hex
}

/// The key of the advisory lock under which this schema is migrated.
fn lock_key(schema: &SchemaName) -> i64 {
    let digest = Sha256::digest(format!("rowlock migrate {schema}").as_bytes());
    let first = digest.first_chunk::<8>().expect("a SHA-256 has 32 bytes");
    i64::from_be_bytes(*first)
}

/// From BEGIN to the point at which what has been applied can be read.
pub(super) fn opening(schema: &SchemaName) -> Vec<Step> {
    let (name, quoted) = (schema.as_str(), schema.quoted());
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n\
                 SET LOCAL statement_timeout = 0;\n\
                 SET LOCAL idle_in_transaction_session_timeout = 0;\n\
                 SET LOCAL lock_timeout = 0;";
    // The lock is waited for without bound, tables that others use are not.
    let lock = format!(
        "SELECT pg_catalog.pg_advisory_xact_lock({});\nSET LOCAL lock_timeout = '30s';",
        lock_key(schema)
    );
    // IF NOT EXISTS would ask for the right to create even where nothing is created.
    let create = format!(
        "DO $$ BEGIN\n    \
         IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{name}') THEN\n        \
         CREATE SCHEMA {quoted};\n    END IF;\nEND $$;"
    );
    let path = format!("SET LOCAL search_path = {quoted}, pg_temp;");
    let owner = format!(
        "SELECT pg_catalog.set_config('role', pg_catalog.pg_get_userbyid(nspowner), true)\n  \
         FROM pg_catalog.pg_namespace WHERE nspname = '{name}';"
    );
    vec![
        Step::new("begin", begin),
        Step::new("one migration of this schema at a time", lock),
        Step::new("the schema", create),
        Step::new("names without a schema are this one's", path),
        Step::new("roles", ROLES),
        Step::new("act as the schema's owner", owner),
    ]
}

/// What is to be done in between.
pub(super) struct Pending {
    pub(super) bookkeeping: bool,
    pub(super) migrations: Vec<Migration>,
    pub(super) functions: &'static [FunctionFile],
}

impl Pending {
    /// Everything, for a database without this schema.
    pub(super) fn all(files: &Files) -> Self {
        Pending {
            bookkeeping: true,
            migrations: files.migrations.to_vec(),
            functions: files.functions,
        }
    }

    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.bookkeeping {
            steps.push(Step::new("schema/bookkeeping.sql", BOOKKEEPING));
        }
        for migration in &self.migrations {
            steps.push(Step::new(path_of_migration(migration), migration.sql));
            steps.push(Step::new("remember it", remember_migration(migration)));
        }
        for function in self.functions {
            steps.push(Step::new(path_of_function(function), function.sql));
        }
        if !self.functions.is_empty() {
            steps.push(Step::new("remember the functions", remember_functions(self.functions)));
        }
        steps
    }
}

pub(super) fn closing() -> Step {
    Step::new("commit", "COMMIT;")
}

/// The steps as a script for psql.
pub(super) fn print(steps: &[Step]) -> String {
    let mut script = String::new();
    for step in steps {
        let sql = step.sql.trim_end();
        let end = if sql.ends_with(';') { "" } else { "\n;" };
        writeln!(script, "-- {}\n{sql}{end}\n", step.title).expect("a string takes all");
    }
    script
}

fn path_of_migration(migration: &Migration) -> String {
    format!("schema/migrations/{}.sql", migration.file)
}

fn path_of_function(function: &FunctionFile) -> String {
    format!("schema/functions/{}.sql", function.file)
}

fn remember_migration(migration: &Migration) -> String {
    format!(
        "INSERT INTO migrations (version, name, checksum) VALUES ({}, '{}', '{}');",
        migration.version(),
        migration.name(),
        checksum(migration.sql)
    )
}

fn remember_functions(functions: &[FunctionFile]) -> String {
    let rows: Vec<String> = functions
        .iter()
        .map(|function| format!("('{}', '{}')", function.file, checksum(function.sql)))
        .collect();
    format!(
        "DELETE FROM function_files;\nINSERT INTO function_files (name, checksum) VALUES\n    {};",
        rows.join(",\n    ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: Files = Files {
        migrations: &[Migration { file: "0001_toys", sql: "create table toys (id int);\n" }],
        functions: &[FunctionFile { file: "play", sql: "-- no end" }],
    };

    fn script(name: &str) -> String {
        let mut steps = opening(&name.parse().unwrap());
        steps.extend(Pending::all(&FILES).steps());
        steps.push(closing());
        print(&steps)
    }

    #[test]
    fn a_dry_run_is_a_whole_transaction_with_the_search_path() {
        let script = script("etl");
        assert!(script.starts_with("-- begin\nBEGIN "));
        assert!(script.contains("\nSET LOCAL search_path = \"etl\", pg_temp;\n"));
        assert!(script.contains("-- schema/migrations/0001_toys.sql\ncreate table toys"));
        assert!(script.contains("VALUES (1, 'toys', '"));
        assert!(script.contains("-- no end\n;\n"));
        assert!(script.ends_with("COMMIT;\n\n"));
    }

    #[test]
    fn each_schema_has_its_own_lock() {
        let key = |name: &str| lock_key(&name.parse().unwrap());
        assert_eq!(key("a"), key("a"));
        assert_ne!(key("a"), key("b"));
    }

    #[test]
    fn checksums_are_sha256_in_hex() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(checksum(""), empty);
    }
}
