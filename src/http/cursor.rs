//! Where a listing goes on: the last id, bound to the filters it was made for.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::problem::Problem;

const ID_BYTES: usize = 16;
const FILTER_BYTES: usize = 8;

/// Writes the cursor after `last`. Opaque to clients.
pub(super) fn write(last: Uuid, filter: &str) -> String {
    let bytes = last.as_bytes().iter().chain(&filter_mark(filter)).copied().collect::<Vec<u8>>();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a cursor that was written for the same filter.
///
/// # Errors
///
/// When it is not one of ours, or belongs to another listing.
pub(super) fn read(text: &str, filter: &str) -> Result<Uuid, Problem> {
    let bytes = unhex(text).ok_or_else(refused)?;
    let (id, mark) = bytes.split_at_checked(ID_BYTES).ok_or_else(refused)?;
    if mark != filter_mark(filter) {
        return Err(refused());
    }
    Uuid::from_slice(id).map_err(|_| refused())
}

fn filter_mark(filter: &str) -> [u8; FILTER_BYTES] {
    let digest: [u8; 32] = Sha256::digest(filter.as_bytes()).into();
    digest[..FILTER_BYTES].try_into().expect("8 of 32")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * (ID_BYTES + FILTER_BYTES))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn refused() -> Problem {
    Problem::invalid("cursor is not valid for this listing")
        .hint("Pass next_cursor as it came, with the same filters; or none to begin anew.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_with_its_own_filter_only() {
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        let cursor = write(id, "state=ready");
        assert_eq!(read(&cursor, "state=ready").unwrap(), id);
        assert!(read(&cursor, "state=running").is_err());
    }

    #[test]
    fn garbage_is_refused() {
        let good = write(Uuid::nil(), "");
        for text in ["", "zz", "é", &good[1..], &format!("{good}00"), &"g".repeat(48)] {
            assert!(read(text, "").is_err(), "{text}");
        }
    }
}
