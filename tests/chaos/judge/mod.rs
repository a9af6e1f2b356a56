//! The judge: what everybody was told, against what the database has.

mod figures;
mod load;
mod residue;

pub(crate) use figures::Figures;
pub(crate) use residue::left_open;

use std::path::Path;

use anyhow::{Context, Result};
use tokio_postgres::Client;

use crate::database::Database;
use crate::run::Run;

/// So many violations of a check are shown.
const SHOWN: usize = 20;

/// A check: its name, what a violation of it is called, and the query that finds them.
type Check = (&'static str, &'static str, &'static str);

const CHECKS: &[Check] = &[
    ("L1", "lost", include_str!("l1.sql")),
    ("L2", "phantom", include_str!("l2.sql")),
    ("L3", "enqueued twice", include_str!("l3.sql")),
    ("L4", "overlapping leases", include_str!("l4.sql")),
    ("L5", "stale and accepted", include_str!("l5.sql")),
    ("L6", "effects", include_str!("l6.sql")),
    ("L7", "overlapping handlers", include_str!("l7.sql")),
    ("L8", "forbidden changes", include_str!("l8.sql")),
    ("L9", "executions", include_str!("l9.sql")),
    ("L10", "dependencies", include_str!("l10.sql")),
    ("L11", "liveness", include_str!("l11.sql")),
    ("L13", "unexplained executions", include_str!("l13.sql")),
];

/// What one check found.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) what: &'static str,
    pub(crate) violations: Vec<String>,
}

/// What the judge says.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) findings: Vec<Finding>,
    pub(crate) figures: Figures,
}

impl Judgement {
    /// How many violations there are in all.
    pub(crate) fn violations(&self) -> usize {
        self.findings.iter().map(|finding| finding.violations.len()).sum()
    }

    /// How many of one check.
    pub(crate) fn of(&self, check: &str) -> usize {
        let same = self.findings.iter().filter(|finding| finding.check == check);
        same.map(|finding| finding.violations.len()).sum()
    }

    /// The names of the checks that found something.
    pub(crate) fn found_by(&self) -> Vec<&'static str> {
        let found = self.findings.iter().filter(|finding| !finding.violations.is_empty());
        found.map(|finding| finding.check).collect()
    }

    /// Prints the first violations of each check.
    pub(crate) fn print(&self) {
        for Finding { check, what, violations } in &self.findings {
            for violation in violations.iter().take(SHOWN) {
                println!("{check} {what}: {violation}");
            }
            if SHOWN < violations.len() {
                println!("{check} {what}: ... and {} more", violations.len() - SHOWN);
            }
        }
    }
}

/// Judges a run that has been drained, and whose processes have ended; what they had left open is
/// given.
pub(crate) async fn judge(
    run: &Run,
    database: &Database,
    left_open: Vec<String>,
) -> Result<Judgement> {
    let client = database.accepts().await?;
    let mut residue = residue::look(&client, &database.log).await?;
    residue.violations.extend(left_open);
    let mut findings = vec![residue];
    load::load(run, &client).await.context("load the ledgers")?;
    client.batch_execute(include_str!("facts.sql")).await.context("state the facts")?;
    for (check, what, sql) in CHECKS {
        findings.push(Finding { check, what, violations: rows(&client, sql, check).await? });
    }
    let sql = "select format('%s: %s, such as %s', v.invariant, v.violations, v.sample)
         from rowlock.verify() v where v.violations > 0";
    let violations = rows(&client, sql, "verify").await?;
    findings.push(Finding { check: "verify", what: "invariants", violations });
    let figures = Figures::read(&client).await.context("read the figures")?;
    Ok(Judgement { findings, figures })
}

async fn rows(client: &Client, sql: &str, check: &str) -> Result<Vec<String>> {
    let rows = client.query(sql, &[]).await.with_context(|| format!("check {check}"))?;
    Ok(rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect())
}

/// The text of a file, as far as it can be read.
fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
