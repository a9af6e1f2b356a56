//! Ledgers: files outside the database, appended to by one process each, a JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::run::{in_micros, micros};

/// So late a process notices that it did not run.
pub(crate) const STALL: Duration = Duration::from_millis(700);
const TICK: Duration = Duration::from_millis(100);

/// A ledger that is open for appending; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Ledger(Arc<Mutex<File>>);

impl Ledger {
    /// Opens a ledger of this name, making it if need be.
    pub(crate) fn open(folder: &Path, name: &str) -> Ledger {
        let path = folder.join(format!("{name}.ledger"));
        let file = OpenOptions::new().create(true).append(true).open(path);
        let mut file = file.expect("the ledger can be opened");
        // A kill may have cut the last line.
        file.write_all(b"\n").expect("the ledger can be written");
        Ledger(Arc::new(Mutex::new(file)))
    }

    /// Appends a line: an event, what belongs to it, and the moment.
    pub(crate) fn note(&self, event: &str, mut fields: Value) {
        fields["e"] = event.into();
        fields["at"] = micros().into();
        // One write a line: a process killed in between has written all of it or nothing.
        let line = format!("{fields}\n");
        let mut file = self.0.lock().expect("not poisoned");
        file.write_all(line.as_bytes()).expect("the ledger can be written");
    }

    /// Notes from now on when this process was kept from running: a starved machine is no fault of
    /// the queue's, but it has to be told from one.
    pub(crate) fn watch_stalls(&self) {
        let ledger = self.clone();
        std::thread::spawn(move || {
            let mut last = micros();
            loop {
                std::thread::sleep(TICK);
                let now = micros();
                if in_micros(STALL) < now - last {
                    ledger.note("stall", json!({"begin": last}));
                }
                last = now;
            }
        });
    }
}

/// The lines of a ledger, read one by one; none when it was never opened. The last may have been
/// cut by a kill.
pub(crate) fn lines(folder: &Path, name: &str) -> impl Iterator<Item = Value> + use<> {
    let file = File::open(folder.join(format!("{name}.ledger"))).ok();
    let lines = file.into_iter().flat_map(|file| BufReader::new(file).lines());
    lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok())
}

/// The names of the ledgers in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("an entry").file_name().into_string().ok()?;
        Some(name.strip_suffix(".ledger")?.to_owned())
    };
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    names
}
