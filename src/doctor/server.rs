//! The server's settings and state.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Severity::{Error as Bad, Info, Warning};
use super::{Finding, looked};
use crate::config::DatabaseSettings;
use crate::db::{Connection, Error};
use crate::store::doctor::{ServerFacts, server_facts};

/// The majors that the tests run on.
const MAJORS: std::ops::RangeInclusive<i32> = 14..=18;

/// The first minor of each major whose LISTEN does not fail for want of an old transaction's status.
const SOUND_MINORS: [(i32, i32); 5] = [(14, 21), (15, 16), (16, 12), (17, 8), (18, 2)];

/// Connections beside the pool: the listener, the heartbeat and a person's.
const BESIDE_THE_POOL: i64 = 3;

/// How far clocks may be apart before times in logs mislead.
const SKEW: f64 = 2.0;

pub(super) async fn check(connection: &Connection, settings: &DatabaseSettings) -> Vec<Finding> {
    looked("the server", find(connection, settings).await)
}

async fn find(connection: &Connection, settings: &DatabaseSettings) -> Result<Vec<Finding>, Error> {
    let before = now();
    let facts = server_facts(connection).await?;
    Ok(judge(&facts, settings.pool_size, before, now()))
}

/// Seconds since 1970 by this machine's clock.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn judge(facts: &ServerFacts, pool_size: u32, before: f64, after: f64) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(durability(facts));
    findings.extend(version(facts));
    findings.extend(state(facts));
    findings.extend(room(facts, pool_size));
    findings.extend(vacuum(facts));
    findings.extend(secrecy(facts));
    let skew = (before - facts.clock).max(facts.clock - after);
    if SKEW < skew {
        findings.push(Finding::new(
            "clock",
            Info,
            format!("the server's clock and this machine's are {skew:.0} s apart"),
            "let both follow NTP; Rowlock itself asks the server's clock only",
        ));
    }
    findings
}

fn durability(facts: &ServerFacts) -> Option<Finding> {
    if facts.not_durable.is_empty() {
        return None;
    }
    let found =
        format!("{} = off: a crash may lose acknowledged jobs", facts.not_durable.join(", "));
    if facts.may_lose_data {
        let advice = "nothing, where rowlock.allow_data_loss = on is meant";
        return Some(Finding::new("durability", Info, found, advice));
    }
    let advice = "turn them on; where losing jobs is acceptable, say so to Postgres: \
                  alter database ... set rowlock.allow_data_loss = on";
    Some(Finding::new("durability", Bad, found, advice))
}

fn version(facts: &ServerFacts) -> Option<Finding> {
    let (major, minor) = (facts.version_number / 10_000, facts.version_number % 10_000);
    let version = &facts.version;
    if major < *MAJORS.start() {
        let found = format!("Postgres {version} is too old: its SQL lacks what the schema uses");
        return Some(Finding::new("version", Bad, found, "upgrade to 14 or newer"));
    }
    if *MAJORS.end() < major {
        let found = format!("Postgres {version} is newer than what this rowlock was tested on");
        return Some(Finding::new("version", Warning, found, "look for a newer rowlock"));
    }
    let sound = SOUND_MINORS.iter().find(|(of, _)| *of == major)?.1;
    (minor < sound).then(|| {
        let found = format!(
            "Postgres {version} has a known fault: LISTEN may fail with \"could not access status \
             of transaction\", and workers then poll"
        );
        Finding::new("version", Warning, found, format!("upgrade to {major}.{sound} or newer"))
    })
}

fn state(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.in_recovery {
        let found = "this is a standby, on which nothing can be written";
        findings.push(Finding::new("recovery", Bad, found, "connect to the primary"));
    } else if facts.read_only {
        let found = "sessions are read only: default_transaction_read_only = on";
        let advice = "turn it off for this database and role";
        findings.push(Finding::new("recovery", Bad, found, advice));
    }
    if facts.encoding != "UTF8" {
        let found = format!("the database's encoding is {}", facts.encoding);
        let advice = "make a database with encoding UTF8: args and names are Unicode";
        findings.push(Finding::new("encoding", Bad, found, advice));
    }
    if !facts.checksums {
        let found = "pages carry no checksums: damage on disk goes unnoticed";
        let advice = "pg_checksums --enable, while the server is down";
        findings.push(Finding::new("checksums", Info, found, advice));
    }
    findings
}

fn room(facts: &ServerFacts, pool_size: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wanted = i64::from(pool_size) + BESIDE_THE_POOL;
    if facts.connections < wanted {
        findings.push(Finding::new(
            "connections",
            Warning,
            format!(
                "Postgres gives this role {} connections here, and one process wants {wanted}",
                facts.connections
            ),
            "lower ROWLOCK_POOL_SIZE, raise max_connections, or put a pooler between",
        ));
    }
    let percent = facts.notifications * 100.0;
    if 0.1 < facts.notifications {
        let severity = if facts.notifications < 0.5 { Warning } else { Bad };
        findings.push(Finding::new(
            "notifications",
            severity,
            format!("the queue of notifications is {percent:.0} % full; full, commits fail"),
            "end the session that listens and has a transaction open: see `holders`",
        ));
    }
    if 0.6 < facts.ids_used {
        let severity = if facts.ids_used < 0.9 { Warning } else { Bad };
        let percent = facts.ids_used * 100.0;
        findings.push(Finding::new(
            "wraparound",
            severity,
            format!(
                "{percent:.0} % of transaction ids are used up; at the end Postgres stops writing"
            ),
            "vacuum (freeze) the database, and end what is found under `holders`",
        ));
    }
    findings
}

fn vacuum(facts: &ServerFacts) -> Option<Finding> {
    /// What the page on configuration asks for, with room.
    const LONGEST_PAUSE: Duration = Duration::from_secs(15);
    if !facts.autovacuum {
        let found = "autovacuum is off: a queue becomes slower with every job";
        let advice = "set autovacuum and track_counts on, and reload";
        return Some(Finding::new("autovacuum", Bad, found, advice));
    }
    (LONGEST_PAUSE < facts.autovacuum_pause).then(|| {
        let seconds = facts.autovacuum_pause.as_secs();
        let found = format!(
            "autovacuum looks every {seconds} s, in which a busy queue leaves millions of dead rows"
        );
        Finding::new("autovacuum", Info, found, "set autovacuum_naptime = 10s")
    })
}

fn secrecy(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.is_exposed {
        let found = "the connection to Postgres crosses a network in the clear";
        let advice = "use sslmode=verify-full, a socket, or a tunnel";
        findings.push(Finding::new("exposed", Warning, found, advice));
    }
    if facts.password_encryption == "md5" {
        let found = "passwords are stored as md5, which is broken";
        let advice = "set password_encryption = 'scram-sha-256', and set the passwords again";
        findings.push(Finding::new("passwords", Warning, found, advice));
    }
    if facts.logs_statements {
        let found =
            "Postgres logs statements, and with them what applications write into their text";
        let advice = "if args are secret, set log_statement = none and \
                      log_min_duration_statement = -1, or log_parameter_max_length = 0";
        findings.push(Finding::new("log", Info, found, advice));
    }
    if facts.is_superuser {
        let found = format!(
            "{} is a superuser: whoever takes over this process has the cluster",
            facts.role
        );
        let advice =
            "connect as a login that is a member of the role of its duty, and migrate apart";
        findings.push(Finding::new("superuser", Warning, found, advice));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    fn sound() -> ServerFacts {
        ServerFacts {
            version: "17.8".to_owned(),
            version_number: 170_008,
            not_durable: Vec::new(),
            may_lose_data: false,
            autovacuum: true,
            autovacuum_pause: Duration::from_secs(10),
            checksums: true,
            encoding: "UTF8".to_owned(),
            password_encryption: "scram-sha-256".to_owned(),
            in_recovery: false,
            read_only: false,
            connections: 100,
            notifications: 0.0,
            ids_used: 0.1,
            logs_statements: false,
            is_exposed: false,
            role: "app".to_owned(),
            is_superuser: false,
            clock: 1000.0,
        }
    }

    /// The checks that find something, with how bad it is.
    fn found(change: impl Fn(&mut ServerFacts)) -> Vec<(&'static str, Severity)> {
        let mut facts = sound();
        change(&mut facts);
        let findings = judge(&facts, 20, 999.9, 1000.1);
        findings.iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn a_sound_server_is_left_in_peace() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn versions_are_those_tested_and_without_the_known_fault() {
        let at = |number| found(move |facts| facts.version_number = number);
        for number in [140_021, 150_016, 150_018, 160_012, 170_008, 180_002] {
            assert_eq!(at(number), [], "{number}");
        }
        for number in [140_020, 150_015, 160_011, 170_007, 180_001, 190_000] {
            assert_eq!(at(number), [("version", Warning)], "{number}");
        }
        assert_eq!(at(130_022), [("version", Bad)]);
    }

    #[test]
    fn what_no_test_can_bring_about_is_judged() {
        assert_eq!(found(|facts| facts.notifications = 0.2), [("notifications", Warning)]);
        assert_eq!(found(|facts| facts.notifications = 0.6), [("notifications", Bad)]);
        assert_eq!(found(|facts| facts.ids_used = 0.7), [("wraparound", Warning)]);
        assert_eq!(found(|facts| facts.ids_used = 0.95), [("wraparound", Bad)]);
        assert_eq!(found(|facts| facts.clock = 990.0), [("clock", Info)]);
        assert_eq!(found(|facts| facts.clock = 1010.0), [("clock", Info)]);
        assert_eq!(found(|facts| facts.is_exposed = true), [("exposed", Warning)]);
        assert_eq!(found(|facts| facts.checksums = false), [("checksums", Info)]);
    }
}
