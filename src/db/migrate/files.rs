//! The SQL files that the binary carries, in the order in which they are applied.

/// A numbered file: applied once, never changed afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The file's name without its ending: `NNNN_what_it_does`.
    pub file: &'static str,
    /// Its text.
    pub sql: &'static str,
}

/// A file of functions: applied again whenever it, or another one, has changed.
#[derive(Clone, Copy, Debug)]
pub struct FunctionFile {
    /// The file's name without its ending.
    pub file: &'static str,
    /// Its text.
    pub sql: &'static str,
}

/// A set of files. The binary has one, [`EMBEDDED`]; tests make others.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// Forward only, numbered 1, 2, 3 and so on.
    pub migrations: &'static [Migration],
    /// In an order in which each uses only those before it.
    pub functions: &'static [FunctionFile],
}

impl Migration {
    /// The number in front of the file's name.
    ///
    /// # Panics
    ///
    /// When there is none, which a unit test excludes for the files that the binary carries.
    #[must_use]
    pub fn version(&self) -> i32 {
        let (number, _) = self.file.split_once('_').expect("a migration is named NNNN_name");
        number.parse().expect("a migration's name begins with its number")
    }

    /// The file's name after the number.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.file.split_once('_').map_or(self.file, |(_, name)| name)
    }
}

/// Roles, and the schema's owner: run before every migration.
pub(super) const ROLES: &str = include_str!("../../../schema/roles.sql");

/// The tables that say what has been applied.
pub(super) const BOOKKEEPING: &str = include_str!("../../../schema/bookkeeping.sql");

macro_rules! embed {
    ($type:ident in $folder:literal: $($file:literal),* $(,)?) => {
        &[$($type {
            file: $file,
            sql: include_str!(concat!("../../../schema/", $folder, "/", $file, ".sql")),
        }),*]
    };
}

/// The files of this version. `tests/tidy.rs` checks that none in `schema/` is left out.
pub const EMBEDDED: Files = Files {
    migrations: embed!(Migration in "migrations":
        "0001_jobs", "0002_dependencies", "0003_executions", "0004_tokens",
    ),
    functions: embed!(FunctionFile in "functions":
        "limits", "refuse", "confirm", "ids", "wake",
        "check_jobs", "graph", "resolve_jobs", "plan_edges", "write_jobs", "store_jobs",
        "write_workflow", "enqueue",
        "entries", "enqueue_many",
        "place", "cascade", "fall", "link", "reschedule", "take_back", "worker",
        "pick", "quarantine", "grant", "acquire", "acquire_batch", "finish", "complete", "fail", "heartbeat",
        "heartbeat_batch",
        "operate", "retry", "reprioritize", "workflow", "operate_workflow", "explain", "inputs", "rescue", "prune", "floors", "maintain",
        "tokens", "verify", "views", "drift", "grants",
    ),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps() {
        for (index, migration) in EMBEDDED.migrations.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version()), Ok(index + 1), "{}", migration.file);
            assert_eq!(migration.file, format!("{:04}_{}", index + 1, migration.name()));
        }
    }

    #[test]
    fn names_need_no_quoting() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let migrations = EMBEDDED.migrations.iter().map(|migration| migration.file);
        let functions = EMBEDDED.functions.iter().map(|function| function.file);
        for file in migrations.chain(functions) {
            assert!(file.chars().all(plain), "{file}");
        }
    }

    #[test]
    fn files_name_no_schema() {
        assert!(!ROLES.contains("rowlock."));
        for migration in EMBEDDED.migrations {
            assert!(!migration.sql.contains("rowlock."), "{}", migration.file);
        }
    }

    #[test]
    fn functions_raise_known_codes_only() {
        for file in EMBEDDED.functions {
            for (at, _) in file.sql.match_indices("'RL") {
                let sqlstate = &file.sql[at + 1..at + 6];
                assert!(
                    crate::model::Code::from_sqlstate(sqlstate).is_some(),
                    "{}: {sqlstate}",
                    file.file
                );
            }
        }
    }
}
