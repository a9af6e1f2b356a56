//! Tokens of the HTTP API: how they look, and what they allow.

use std::fmt;

use rand::RngCore as _;
use sha2::{Digest, Sha256};

use super::text::words;

/// So that one that has leaked into a text is found there.
const PREFIX: &str = "rlk_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;

words! {
    /// What a token is for.
    Action("action") {
        /// Enqueue jobs and workflows.
        Enqueue = "enqueue",
        /// Acquire, heartbeat and finish.
        Work = "work",
        /// Cancel, retry, reprioritize, pause and resume.
        Operate = "operate",
        /// Read jobs, workflows, queues, workers and figures.
        Observe = "observe",
    }
}

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What for.
    pub actions: Vec<Action>,
    /// In which queues: names, or beginnings of names that end in `*`; `None` is all of them.
    pub queues: Option<Vec<String>>,
}

impl Scope {
    /// Whether it is for this queue.
    #[must_use]
    pub fn covers(&self, queue: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => queue.starts_with(beginning),
            None => queue == pattern,
        };
        self.queues.as_ref().is_none_or(|patterns| patterns.iter().any(fits))
    }
}

/// A token: `rlk_`, 16 hexadecimal digits that name it, `_`, 64 that are its secret, and 8 that check
/// the rest, so that a typing error is told from a token of somebody else's. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

impl ApiToken {
    /// A fresh one.
    #[must_use]
    pub fn generate() -> Self {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        let mut random = rand::rng();
        random.fill_bytes(&mut id);
        random.fill_bytes(&mut secret);
        let body = format!("{PREFIX}{}_{}", hex(&id), hex(&secret));
        let check = check_of(&body);
        ApiToken(body + &check)
    }

    /// A token as a client sent it; `None` if it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix(PREFIX)?;
        let (id, rest) = body.split_once('_')?;
        let is_hex = |part: &str, bytes: usize| {
            let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            part.len() == 2 * bytes && part.bytes().all(digit)
        };
        if !is_hex(id, ID_BYTES) || !is_hex(rest, SECRET_BYTES + CHECK_BYTES) {
            return None;
        }
        let (body, check) = text.split_at(text.len() - 2 * CHECK_BYTES);
        (check_of(body) == check).then(|| ApiToken(text.to_owned()))
    }

    /// The public part, which names it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0[PREFIX.len()..PREFIX.len() + 2 * ID_BYTES]
    }

    /// The token itself, to be shown once to whom it is for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it. Of 256 random bits, a plain hash gives nothing away.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}..)", self.id())
    }
}

fn check_of(body: &str) -> String {
    hex(&Sha256::digest(body.as_bytes())[..CHECK_BYTES])
}

/// As hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_no_letter_of_it_may_be_another() {
        let token = ApiToken::generate();
        assert_ne!(token, ApiToken::generate());
        assert_eq!(ApiToken::parse(token.expose()), Some(token.clone()));
        assert_eq!(token.id().len(), 16);
        for at in 0..token.expose().len() {
            let mut wrong = token.expose().to_owned().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(ApiToken::parse(&wrong), None, "{at}");
        }
        for text in ["", "rlk_", "rlk__", "s3cret", &token.expose().to_uppercase()] {
            assert_eq!(ApiToken::parse(text), None);
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = ApiToken::generate();
        let secret = &token.expose()[21..];
        assert!(!format!("{token:?}").contains(&secret[..8]));
    }

    #[test]
    fn a_scope_covers_names_and_beginnings_of_names() {
        let scope = |queues: &[&str]| Scope {
            actions: vec![Action::Work],
            queues: Some(queues.iter().map(ToString::to_string).collect()),
        };
        let of_etl = scope(&["etl", "mail/*"]);
        for (queue, covered) in
            [("etl", true), ("etl2", false), ("mail/out", true), ("mail", false), ("", false)]
        {
            assert_eq!(of_etl.covers(queue), covered, "{queue}");
        }
        assert!(scope(&["*"]).covers("any"));
        assert!(Scope { actions: vec![], queues: None }.covers("any"));
    }
}
