//! The schema: what a migration left and somebody changed, and who may use it.

use crate::db::{Connection, Error, Row};

fn names(rows: &[Row]) -> Result<Vec<String>, Error> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Functions that are not as the last migration left them, with what is wrong in parentheses. None
/// is told to a role that may not ask.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn drift(connection: &Connection) -> Result<Vec<String>, Error> {
    let may = "SELECT coalesce(has_function_privilege(to_regprocedure(\
                 quote_ident(current_schema()) || '.drift()'), 'EXECUTE'), false)";
    if !connection.query_one(may, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT function || ' (' || what || ')' FROM drift()";
    names(&connection.query(sql, &[]).await?)
}

/// Triggers of the schema's tables that do not fire.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn disabled_triggers(connection: &Connection) -> Result<Vec<String>, Error> {
    let sql = "SELECT t.tgname || ' on ' || c.relname FROM pg_trigger t \
               JOIN pg_class c ON c.oid = t.tgrelid \
               WHERE c.relnamespace = current_schema()::regnamespace \
                 AND NOT t.tgisinternal AND t.tgenabled = 'D' ORDER BY 1";
    names(&connection.query(sql, &[]).await?)
}

/// Tables of the schema from which autovacuum does not remove enough: it is off for them, or dead
/// rows are many more than live ones.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn loose_tables(connection: &Connection) -> Result<Vec<String>, Error> {
    let sql = "SELECT c.relname || CASE WHEN s.is_off THEN ' (autovacuum_enabled = off)' \
                   ELSE format(' (%s dead rows, %s live)', t.n_dead_tup, t.n_live_tup) END \
               FROM pg_class c \
               CROSS JOIN LATERAL (SELECT coalesce(bool_or(o.option_value IN \
                   ('off', 'false', 'no', '0')), false) AS is_off \
                 FROM pg_options_to_table(c.reloptions) o \
                 WHERE o.option_name = 'autovacuum_enabled') s \
               LEFT JOIN pg_stat_all_tables t ON t.relid = c.oid \
               WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' \
                 AND (s.is_off OR t.n_dead_tup > 100000 + 2 * t.n_live_tup) ORDER BY 1";
    names(&connection.query(sql, &[]).await?)
}

/// The roles that a schema comes with and that are not here.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn missing_roles(connection: &Connection) -> Result<Vec<String>, Error> {
    let sql = "SELECT current_schema() || '_' || d.duty \
               FROM unnest('{owner,service,producer,worker,observer}'::text[]) \
                 WITH ORDINALITY d(duty, n) \
               WHERE NOT EXISTS (SELECT FROM pg_roles \
                 WHERE rolname = current_schema() || '_' || d.duty) ORDER BY d.n";
    names(&connection.query(sql, &[]).await?)
}

/// The functions that this duty's role may call and this session's may not.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn closed_functions(connection: &Connection, duty: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT p.proname::text FROM pg_proc p \
               JOIN LATERAL aclexplode(p.proacl) a ON a.privilege_type = 'EXECUTE' \
               JOIN pg_roles r ON r.oid = a.grantee AND r.rolname = current_schema() || '_' || $1::text \
               WHERE p.pronamespace = current_schema()::regnamespace \
                 AND NOT has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1";
    names(&connection.query(sql, &[&duty]).await?)
}

/// How many jobs, of a thousand at most, should have become ready a minute ago: none where maintenance
/// runs. Nothing is told to a role that may not read them.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn overdue(connection: &Connection) -> Result<i64, Error> {
    let may = "SELECT has_table_privilege('scheduled', 'SELECT')";
    if !connection.query_one(may, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let sql = "SELECT count(*) FROM (SELECT FROM scheduled \
                 WHERE run_at < clock_timestamp() - interval '1 minute' LIMIT 1000) s";
    connection.query_one(sql, &[]).await?.try_get(0).map_err(Error::from)
}
