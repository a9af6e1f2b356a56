//! Who keeps dead rows from being removed.

use std::time::Duration;

use super::{Finding, Severity, looked};
use crate::db::{Connection, Error};
use crate::store::doctor::{Holder, hidden_sessions, holders};

/// Where nobody looks any more, as with a slot that nobody reads.
const FOR_EVER: Duration = Duration::from_secs(100_000_000);

pub(super) async fn check(connection: &Connection, bound: Duration) -> Vec<Finding> {
    looked("sessions", find(connection, bound).await)
}

async fn find(connection: &Connection, bound: Duration) -> Result<Vec<Finding>, Error> {
    let mut findings: Vec<_> = holders(connection, bound).await?.iter().map(told).collect();
    let hidden = hidden_sessions(connection).await?;
    if 0 < hidden {
        findings.push(Finding::new(
            "hidden",
            Severity::Info,
            format!("{hidden} sessions of other roles may keep old snapshots, and cannot be seen"),
            "grant pg_read_all_stats to this role, or run the doctor as one that has it",
        ));
    }
    Ok(findings)
}

fn told(holder: &Holder) -> Finding {
    let Holder { name, age, writes } = holder;
    let since = match *age {
        age if FOR_EVER < age => String::new(),
        age => format!(" for {} s", age.as_secs()),
    };
    let more = if *writes { ", and the lanes' floors from rising" } else { "" };
    let name = printable(name);
    let found = format!("{name} keeps dead rows from being removed{since}{more}");
    Finding::new("holders", Severity::Warning, found, remedy(&name))
}

fn remedy(name: &str) -> &'static str {
    if name.starts_with("session") {
        "end its transaction, or the session with pg_terminate_backend; \
         set idle_in_transaction_session_timeout for its role"
    } else if name.starts_with("prepared") {
        "COMMIT PREPARED or ROLLBACK PREPARED it"
    } else {
        "let its reader run again, or pg_drop_replication_slot it"
    }
}

/// Names are other people's: what a terminal would obey is left out.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_named_with_what_ends_it() {
        let holder = |name: &str, writes| Holder {
            name: name.to_owned(),
            age: Duration::from_secs(400),
            writes,
        };
        let found = told(&holder("session 7 of ann (psql\u{1b}[2J, idle in transaction)", true));
        assert!(!found.found.contains('\u{1b}'), "{found:?}");
        assert!(found.found.contains("for 400 s, and the lanes' floors"), "{found:?}");
        assert!(found.advice.contains("pg_terminate_backend"), "{found:?}");
        assert!(told(&holder("prepared transaction 'x'", false)).advice.contains("PREPARED"));
        let slot = Holder {
            age: Duration::from_secs(1_000_000_000),
            ..holder("replication slot s", false)
        };
        assert!(told(&slot).found.ends_with("being removed"), "{slot:?}");
    }
}
