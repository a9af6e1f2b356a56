//! What has been applied, and whether it fits the binary.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::Error;
use super::files::Files;
use super::script::{Pending, checksum};
use crate::model::SchemaName;

/// The oldest Postgres whose SQL the files may use.
const OLDEST_SERVER: i32 = 140_000;

/// What the bookkeeping tables say; `None` where there are none.
pub(super) struct State {
    pub(super) applied: Option<Applied>,
}

#[derive(Default)]
pub(super) struct Applied {
    /// Version → (name, checksum).
    pub(super) migrations: BTreeMap<i32, (String, String)>,
    /// Name → checksum.
    pub(super) functions: BTreeMap<String, String>,
}

impl State {
    /// Reads it, from a schema that need not exist.
    pub(super) async fn read(client: &Client, schema: &SchemaName) -> Result<Self, Error> {
        let quoted = schema.quoted();
        let table = format!("{quoted}.migrations");
        let exists = "SELECT to_regclass($1) IS NOT NULL";
        let row = client.query_typed_one(exists, &[(&table, Type::TEXT)]).await?;
        if !row.try_get::<_, bool>(0)? {
            return Ok(State { applied: None });
        }
        let mut applied = Applied::default();
        let sql = format!("SELECT version, name, checksum FROM {quoted}.migrations");
        for row in client.query_typed(&sql, &[]).await? {
            applied.migrations.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
        }
        let sql = format!("SELECT name, checksum FROM {quoted}.function_files");
        for row in client.query_typed(&sql, &[]).await? {
            applied.functions.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(State { applied: Some(applied) })
    }

    /// The highest version applied; 0 in a fresh schema.
    pub(super) fn version(&self) -> i32 {
        let applied = self.applied.as_ref();
        applied.and_then(|applied| applied.migrations.keys().last().copied()).unwrap_or(0)
    }

    /// What is to be done, unless what was done does not fit.
    pub(super) fn pending(&self, files: &Files) -> Result<Pending, Error> {
        let Some(applied) = &self.applied else { return Ok(Pending::all(files)) };
        applied.check(files)?;
        let version = self.version();
        let migrations: Vec<_> =
            files.migrations.iter().filter(|file| version < file.version()).copied().collect();
        // A migration may drop what a function needs, so the functions follow every one.
        let again = !migrations.is_empty() || !applied.has_functions_of(files);
        let functions = if again { files.functions } else { &[] };
        Ok(Pending { bookkeeping: false, migrations, functions })
    }
}

impl Applied {
    fn check(&self, files: &Files) -> Result<(), Error> {
        let newest = files.migrations.last().map_or(0, |file| file.version());
        let found = self.migrations.keys().last().copied().unwrap_or(0);
        if newest < found {
            return Err(Error::Newer { found, newest });
        }
        for file in files.migrations.iter().filter(|file| file.version() <= found) {
            let expected = checksum(file.sql);
            match self.migrations.get(&file.version()) {
                Some((_, checksum)) if *checksum == expected => {}
                Some(_) => return Err(Error::Changed { file: file.file.to_owned() }),
                None => return Err(Error::Missing { file: file.file.to_owned() }),
            }
        }
        Ok(())
    }

    pub(super) fn has_functions_of(&self, files: &Files) -> bool {
        let same = |file: &super::files::FunctionFile| {
            self.functions.get(file.file).is_some_and(|found| *found == checksum(file.sql))
        };
        self.functions.len() == files.functions.len() && files.functions.iter().all(same)
    }
}

/// Refuses a server that is too old to understand the files.
pub(super) async fn check_server(client: &Client) -> Result<(), Error> {
    let sql =
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')";
    let row = client.query_typed_one(sql, &[]).await?;
    if row.try_get::<_, i32>(0)? < OLDEST_SERVER {
        return Err(Error::ServerTooOld { version: row.try_get(1)? });
    }
    Ok(())
}

/// Refuses a role that may neither act as the schema's owner nor, where there is no schema, make it.
pub(super) async fn may_change(client: &Client, schema: &SchemaName) -> Result<(), Error> {
    let sql = "SELECT current_user::text, pg_get_userbyid(n.nspowner)::text, \
                 CASE WHEN n.oid IS NULL \
                   THEN has_database_privilege(current_database(), 'CREATE') \
                   ELSE pg_has_role(current_user, n.nspowner, 'MEMBER') END \
               FROM (SELECT) here LEFT JOIN pg_namespace n ON n.nspname = $1";
    let row = client.query_typed_one(sql, &[(&schema.as_str(), Type::TEXT)]).await?;
    if row.try_get(2)? {
        return Ok(());
    }
    let whom = match row.try_get::<_, Option<String>>(1)? {
        Some(owner) => format!("{owner}, or as a member of that role"),
        None => "a role that may create schemas in this database".to_owned(),
    };
    Err(Error::NotAllowed { role: row.try_get(0)?, whom })
}

#[cfg(test)]
mod tests {
    use super::super::files::{FunctionFile, Migration};
    use super::*;

    const FILES: Files = Files {
        migrations: &[
            Migration { file: "0001_toys", sql: "one" },
            Migration { file: "0002_more", sql: "two" },
        ],
        functions: &[FunctionFile { file: "play", sql: "play" }],
    };

    fn state(migrations: &[(i32, &str)], functions: &[(&str, &str)]) -> State {
        let migrations = migrations.iter().map(|(v, sql)| (*v, (String::new(), checksum(sql))));
        let functions = functions.iter().map(|(name, sql)| (name.to_string(), checksum(sql)));
        let applied = Applied { migrations: migrations.collect(), functions: functions.collect() };
        State { applied: Some(applied) }
    }

    fn counts(state: &State) -> (bool, usize, usize) {
        let pending = state.pending(&FILES).ok().unwrap();
        (pending.bookkeeping, pending.migrations.len(), pending.functions.len())
    }

    #[test]
    fn only_what_is_missing_is_done() {
        assert_eq!(counts(&State { applied: None }), (true, 2, 1));
        assert_eq!(counts(&state(&[(1, "one")], &[("play", "play")])), (false, 1, 1));
        let whole = [(1, "one"), (2, "two")];
        assert_eq!(counts(&state(&whole, &[("play", "play")])), (false, 0, 0));
        assert_eq!(counts(&state(&whole, &[("play", "old")])), (false, 0, 1));
        assert_eq!(counts(&state(&whole, &[("play", "play"), ("gone", "x")])), (false, 0, 1));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = |migrations: &[(i32, &str)]| state(migrations, &[]).pending(&FILES).err();
        let newer = error(&[(1, "one"), (2, "two"), (3, "three")]);
        assert!(matches!(newer, Some(Error::Newer { found: 3, newest: 2 })));
        assert!(matches!(error(&[(1, "other")]), Some(Error::Changed { .. })));
        assert!(matches!(error(&[(2, "two")]), Some(Error::Missing { .. })));
    }
}
