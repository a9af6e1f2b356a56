//! The schema and the rights on it.

use super::{Duty, Finding, Severity, listed, looked};
use crate::db::migrate::Error as MigrateError;
use crate::db::{Connection, Error};
use crate::model::SchemaName;
use crate::store::doctor::{
    closed_functions, disabled_triggers, drift, loose_tables, missing_roles, overdue,
};

/// Whether the schema is the binary's, and whether there is one at all.
pub(super) async fn check_version(
    connection: &Connection,
    schema: &SchemaName,
) -> (Vec<Finding>, bool) {
    let Err(error) = connection.check_schema(schema).await else { return (Vec::new(), true) };
    let advice = match &error {
        MigrateError::Behind { .. } | MigrateError::OtherFunctions => {
            "run `rowlock migrate` of this version, as the schema's owner"
        }
        MigrateError::Newer { .. } => "run the newer rowlock that was here before",
        MigrateError::Db(_) => "grant the role of its duty to who connects, such as the service's",
        _ => "restore the schema from a backup, or move the jobs to a fresh one",
    };
    let is_there =
        matches!(error, MigrateError::Behind { found: 1.., .. } | MigrateError::OtherFunctions);
    let found = match &error {
        MigrateError::Db(error) => error.chain(),
        error => error.to_string(),
    };
    (vec![Finding::new("migrations", Severity::Error, found, advice)], is_there)
}

pub(super) async fn check(connection: &Connection, duty: Duty) -> Vec<Finding> {
    let mut findings = looked("the functions", changed(connection).await);
    findings.extend(looked("the tables", tables(connection).await));
    findings.extend(looked("the rights", rights(connection, duty).await));
    findings
}

async fn changed(connection: &Connection) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let changed = drift(connection).await?;
    let (unknown, ours): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|name| name.ends_with(" (unknown)"));
    if let Some(names) = listed(&ours) {
        findings.push(Finding::new(
            "drift",
            Severity::Error,
            format!("functions are not as they were installed: {names}"),
            "find out who changed them; as the owner, `delete from function_files` and run \
             `rowlock migrate`, which applies all anew",
        ));
    }
    if let Some(names) = listed(&unknown) {
        findings.push(Finding::new(
            "drift",
            Severity::Warning,
            format!("functions that no migration made stand in the schema: {names}"),
            "drop or move them: ours could call them, with the owner's rights",
        ));
    }
    if let Some(names) = listed(&disabled_triggers(connection).await?) {
        findings.push(Finding::new(
            "triggers",
            Severity::Error,
            format!("triggers are disabled: {names}"),
            "enable them (`alter table ... enable trigger`); without them children wait for \
             maintenance",
        ));
    }
    Ok(findings)
}

async fn tables(connection: &Connection) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    if let Some(names) = listed(&loose_tables(connection).await?) {
        findings.push(Finding::new(
            "tables",
            Severity::Warning,
            format!("dead rows are not removed from {names}"),
            "reset autovacuum_enabled of the table, look at the findings of `holders`, or \
             vacuum them by hand",
        ));
    }
    let late = overdue(connection).await?;
    if 0 < late {
        let more = if late == 1000 { " or more" } else { "" };
        findings.push(Finding::new(
            "maintenance",
            Severity::Warning,
            format!("{late}{more} jobs have been due for over a minute: maintenance does not run"),
            "run `rowlock serve`, or call maintain() every second; look at its log for errors",
        ));
    }
    Ok(findings)
}

async fn rights(connection: &Connection, duty: Duty) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    if let Some(names) = listed(&missing_roles(connection).await?) {
        findings.push(Finding::new(
            "roles",
            Severity::Warning,
            format!("roles are missing: {names}"),
            "create them as a role that may, then `delete from function_files` as the owner and \
             run `rowlock migrate`, which grants",
        ));
    }
    let word = duty.as_str();
    if let Some(names) = listed(&closed_functions(connection, word).await?) {
        findings.push(Finding::new(
            "privileges",
            Severity::Error,
            format!("this role may not call what a {word} calls: {names}"),
            format!("grant the schema's {word} role to it"),
        ));
    }
    Ok(findings)
}
