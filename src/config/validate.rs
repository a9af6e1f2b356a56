//! What makes settings acceptable. All faults are found before any is reported.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::{Settings, units};

/// Variables that other parts of the program read.
const READ_ELSEWHERE: &[&str] = &[
    "ROWLOCK_DATA_DIR",
    "ROWLOCK_PG_BIN",
    "ROWLOCK_SETUP_HIDE_SYSTEM",
    // What `rowlock work` tells its command, which may be a rowlock again.
    "ROWLOCK_JOB_ID",
    "ROWLOCK_ATTEMPT",
    "ROWLOCK_KIND",
    "ROWLOCK_QUEUE",
];

/// Variables of the tests and benchmarks, which start the program as their child.
const PREFIXES_OF_TESTS: &[&str] = &["ROWLOCK_TEST_", "ROWLOCK_BENCH_"];

/// Everything that is wrong with the settings, one sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl Faults {
    /// The sentences.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fault(s) in the settings:", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
    }
}

impl std::error::Error for Faults {}

impl Settings {
    /// Checks every setting and the names of the process's environment variables.
    ///
    /// # Errors
    ///
    /// All faults at once.
    pub fn validate(&self) -> Result<(), Faults> {
        let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        self.validate_with(names)
    }

    /// The same for an environment given by its variables' names.
    ///
    /// # Errors
    ///
    /// All faults at once.
    pub fn validate_with(&self, variables: impl Iterator<Item = String>) -> Result<(), Faults> {
        let mut faults = Vec::new();
        faults.extend(unknown_variables(variables));
        faults.extend(self.faults_of_database());
        faults.extend(self.faults_of_http());
        faults.extend(self.faults_of_queue());
        if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
    }

    fn faults_of_database(&self) -> Vec<String> {
        let database = &self.database;
        let mut faults = Vec::new();
        for (name, url) in
            [("DATABASE_URL", &database.url), ("ROWLOCK_LISTEN_URL", &database.listen_url)]
        {
            if url.as_ref().is_some_and(|url| url.is_empty()) {
                faults.push(format!("{name} is empty; leave it out instead"));
            }
        }
        if !(2..=1000).contains(&database.pool_size) {
            faults.push(format!("ROWLOCK_POOL_SIZE is {}, not 2 to 1000", database.pool_size));
        }
        if 63 < database.application_name.len() {
            faults.push("ROWLOCK_APPLICATION_NAME is longer than 63 bytes".to_owned());
        }
        let hour = Duration::from_secs(3600);
        let second = Duration::from_secs(1);
        faults.extend(outside("ROWLOCK_POOL_IDLE", database.pool_idle, second, 24 * hour));
        faults.extend(outside("ROWLOCK_CONNECT_TIMEOUT", database.connect_timeout, MILLI, hour));
        faults.extend(outside("ROWLOCK_LOCK_TIMEOUT", database.lock_timeout, MILLI, hour));
        let idle = database.idle_in_transaction_timeout;
        faults.extend(outside("ROWLOCK_IDLE_IN_TRANSACTION_TIMEOUT", idle, second, hour));
        let statement = database.statement_timeout;
        faults.extend(outside("ROWLOCK_STATEMENT_TIMEOUT", statement, Duration::ZERO, 24 * hour));
        if !statement.is_zero() && statement <= database.lock_timeout {
            faults
                .push("ROWLOCK_STATEMENT_TIMEOUT must be longer than ROWLOCK_LOCK_TIMEOUT".into());
        }
        let call = database.call_timeout;
        faults.extend(outside("ROWLOCK_CALL_TIMEOUT", call, MILLI, 24 * hour));
        // Else outcomes would be unknown that the server would have told a moment later.
        if call <= statement.max(database.lock_timeout) {
            faults.push(
                "ROWLOCK_CALL_TIMEOUT must be longer than ROWLOCK_STATEMENT_TIMEOUT and \
                 ROWLOCK_LOCK_TIMEOUT"
                    .into(),
            );
        }
        faults
    }

    fn faults_of_http(&self) -> Vec<String> {
        let http = &self.http;
        let mut faults = Vec::new();
        if http.token.is_none() && !http.tokens && !http.listen.ip().is_loopback() {
            faults.push(format!(
                "ROWLOCK_LISTEN is {}, which others can reach, and there is no ROWLOCK_TOKEN, \
                 nor ROWLOCK_TOKENS=true",
                http.listen
            ));
        }
        if http.token.as_ref().is_some_and(|token| token.expose().trim().is_empty()) {
            faults.push("ROWLOCK_TOKEN is empty".to_owned());
        }
        if !(1 << 10..=1 << 30).contains(&http.body_limit) {
            let size = units::show_size(http.body_limit);
            faults.push(format!("ROWLOCK_BODY_LIMIT is {size}, not 1KiB to 1GiB"));
        }
        let longest = Duration::from_secs(600);
        faults.extend(outside("ROWLOCK_HEADER_TIMEOUT", http.header_timeout, MILLI, longest));
        faults.extend(outside("ROWLOCK_TRANSFER_TIMEOUT", http.transfer_timeout, MILLI, longest));
        if !(16..=1_000_000).contains(&http.max_connections) {
            let most = http.max_connections;
            faults.push(format!("ROWLOCK_MAX_CONNECTIONS is {most}, not 16 to 1000000"));
        }
        faults
    }

    fn faults_of_queue(&self) -> Vec<String> {
        let queue = &self.queue;
        let hour = Duration::from_secs(3600);
        let second = Duration::from_secs(1);
        let mut faults = Vec::new();
        faults.extend(outside("ROWLOCK_LEASE", queue.lease, second, 24 * hour));
        faults.extend(outside("ROWLOCK_POLL", queue.poll, 10 * MILLI, hour));
        faults.extend(outside("ROWLOCK_DRAIN", queue.drain, Duration::ZERO, 24 * hour));
        let interval = queue.maintenance_interval;
        faults.extend(outside("ROWLOCK_MAINTENANCE_INTERVAL", interval, 10 * MILLI, hour));
        let interval = queue.verify_interval;
        if !interval.is_zero() {
            let (least, most) = (100 * MILLI, 7 * 24 * hour);
            faults.extend(outside("ROWLOCK_VERIFY_INTERVAL", interval, least, most));
        }
        faults
    }
}

const MILLI: Duration = Duration::from_millis(1);

fn outside(name: &str, value: Duration, least: Duration, most: Duration) -> Option<String> {
    let show = units::show_duration;
    let fault = || format!("{name} is {}, not {} to {}", show(value), show(least), show(most));
    (value < least || most < value).then(fault)
}

fn unknown_variables(variables: impl Iterator<Item = String>) -> Vec<String> {
    let command = Settings::command();
    let known: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .chain(READ_ELSEWHERE.iter().map(ToString::to_string))
        .collect();
    variables
        .filter(|name| name.starts_with("ROWLOCK_") && !known.contains(name))
        .filter(|name| !PREFIXES_OF_TESTS.iter().any(|prefix| name.starts_with(prefix)))
        .map(|name| format!("{name} is not a setting; `rowlock serve --help` lists them"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(settings: &Settings, variables: &[&str]) -> Vec<String> {
        let variables = variables.iter().map(ToString::to_string);
        settings.validate_with(variables).err().map(|faults| faults.0).unwrap_or_default()
    }

    #[test]
    fn the_defaults_have_no_fault() {
        let known = ["PATH", "DATABASE_URL", "ROWLOCK_LEASE", "ROWLOCK_TEST_SEED"];
        assert_eq!(faults(&Settings::default(), &known), [""; 0]);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let mut settings = Settings::default();
        settings.http.listen = "0.0.0.0:80".parse().unwrap();
        settings.database.pool_size = 1;
        settings.queue.lease = Duration::from_millis(5);
        settings.database.statement_timeout = settings.database.lock_timeout;
        settings.database.call_timeout = settings.database.lock_timeout;
        let faults = faults(&settings, &["ROWLOCK_LAESE"]);
        assert_eq!(faults.len(), 6, "{faults:?}");
        assert!(faults[0].starts_with("ROWLOCK_LAESE is not a setting"));
    }

    #[test]
    fn a_token_opens_the_door_to_other_addresses() {
        let mut settings = Settings::default();
        settings.http.listen = "[::]:80".parse().unwrap();
        assert_eq!(faults(&settings, &[]).len(), 1);
        settings.http.token = Some("s3cret".parse().unwrap());
        assert_eq!(faults(&settings, &[]).len(), 0);
        settings.http.token = Some("".parse().unwrap());
        assert_eq!(faults(&settings, &[]), ["ROWLOCK_TOKEN is empty"]);
        settings.http.token = None;
        settings.http.tokens = true;
        assert_eq!(faults(&settings, &[]).len(), 0);
    }
}
