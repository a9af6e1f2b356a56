//! As much of the Postgres protocol as tells which answers are those of commits.
//!
//! What a client sends is cut into units, each of which the server ends with one `ReadyForQuery`: a
//! simple query, or extended messages up to a `Sync`. Units may be sent before the answers to
//! earlier ones are here, so they wait in line.

use std::collections::{HashMap, VecDeque};

use super::sql::{Effect, effects};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// A message with its header.
pub(super) type Message = Vec<u8>;

/// Puts messages together from what arrives.
#[derive(Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Messages have a type: those of a client only once it has started up.
    typed: bool,
}

impl Frames {
    /// Of a client, whose first message has no type.
    pub(super) fn of_client() -> Frames {
        Frames::default()
    }

    /// Of a server.
    pub(super) fn of_server() -> Frames {
        Frames { bytes: Vec::new(), typed: true }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub(super) fn next(&mut self) -> Option<Message> {
        let header = if self.typed { 1 } else { 0 };
        let length = self.bytes.get(header..header + 4)?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let whole = header + length as usize;
        if self.bytes.len() < whole {
            return None;
        }
        let message: Message = self.bytes.drain(..whole).collect();
        // After a request for encryption, which is answered by a byte, the start-up is still due.
        self.typed |= !asks_for_encryption(&message);
        Some(message)
    }
}

/// Whether the server answers this, a client's first message, by a byte.
pub(super) fn asks_for_encryption(message: &[u8]) -> bool {
    let code = message.get(4..8).map(|code| u32::from_be_bytes(code.try_into().expect("four")));
    message.len() == 8 && matches!(code, Some(SSL_REQUEST | GSS_REQUEST))
}

/// What is under way on a connection.
#[derive(Default)]
pub(super) struct Traffic {
    /// Texts by the names of prepared statements, and of portals.
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, String>,
    /// What the client has sent of the next unit.
    unit: Unit,
    /// Whether the client believes that a transaction is open, and the text of all of it.
    in_transaction: bool,
    transaction: String,
    waiting: VecDeque<Unit>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    /// Something runs, and is not only prepared.
    executes: bool,
    own: String,
    /// In lower case, with what the transaction did before.
    pub(super) text: String,
    /// It would end a transaction well, if nothing in it fails.
    pub(super) commits: bool,
    failed: bool,
}

impl Traffic {
    /// Notes what a client sends; gives the unit that it ends.
    pub(super) fn sent(&mut self, message: &[u8]) -> Option<Unit> {
        let body = &message[5..];
        match message[0] {
            b'Q' => {
                let text = text(body);
                self.runs(&text);
                Some(self.unit_ends())
            }
            b'P' => {
                let (name, rest) = split(body);
                self.statements.insert(name.to_vec(), text(rest));
                None
            }
            b'B' => {
                let (portal, rest) = split(body);
                let sql = self.statements.get(split(rest).0).cloned().unwrap_or_default();
                self.portals.insert(portal.to_vec(), sql);
                None
            }
            b'E' => {
                let sql = self.portals.get(split(body).0).cloned().unwrap_or_default();
                self.runs(&sql);
                None
            }
            b'S' | b'F' => Some(self.unit_ends()),
            _ => None,
        }
    }

    /// The client has sent a unit on its way.
    pub(super) fn waits(&mut self, unit: Unit) {
        self.waiting.push_back(unit);
    }

    /// Whether the server answers something that runs.
    pub(super) fn is_answering(&self) -> bool {
        self.waiting.front().is_some_and(|unit| unit.executes)
    }

    /// Notes what a server sends; gives the unit whose answer ends, if that is a commit.
    pub(super) fn answered(&mut self, message: &[u8]) -> Answered {
        match message[0] {
            b'E' => {
                if let Some(unit) = self.waiting.front_mut() {
                    unit.failed = true;
                }
                Answered::Partly
            }
            b'C' => {
                if let Some(unit) = self.waiting.front_mut() {
                    unit.failed |= message[5..].starts_with(b"ROLLBACK\0");
                }
                Answered::Partly
            }
            b'Z' => {
                let committed = message.get(5) == Some(&b'I');
                let unit = self.waiting.pop_front().unwrap_or_default();
                let kept = committed && unit.executes && !unit.failed;
                if kept { Answered::Committed(unit) } else { Answered::Otherwise }
            }
            _ => Answered::Partly,
        }
    }

    fn runs(&mut self, sql: &str) {
        let unit = &mut self.unit;
        unit.executes = true;
        unit.own.push_str(&sql.to_ascii_lowercase());
        unit.own.push('\n');
        let effects = effects(sql);
        for effect in effects {
            match effect {
                Effect::Begins => self.in_transaction = true,
                Effect::Commits => {
                    unit.commits = true;
                    self.in_transaction = false;
                }
                Effect::RollsBack => {
                    unit.commits = false;
                    self.in_transaction = false;
                }
                Effect::Works => unit.commits = !self.in_transaction,
            }
        }
    }

    fn unit_ends(&mut self) -> Unit {
        let mut unit = std::mem::take(&mut self.unit);
        self.transaction.push_str(&unit.own);
        unit.text.clone_from(&self.transaction);
        if !self.in_transaction {
            self.transaction.clear();
        }
        unit
    }
}

/// What a message of a server ends.
pub(super) enum Answered {
    /// Nothing yet.
    Partly,
    /// A unit that has committed.
    Committed(Unit),
    /// A unit that has not, or the start-up.
    Otherwise,
}

/// Up to the first NUL, and what follows it.
fn split(body: &[u8]) -> (&[u8], &[u8]) {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    (&body[..end], body.get(end + 1..).unwrap_or(&[]))
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(split(body).0).into_owned()
}
