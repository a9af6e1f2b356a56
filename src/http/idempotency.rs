//! `Idempotency-Key`: the jobs' ids follow from it, so that a repeat finds the same jobs.
//!
//! Nothing is stored for it. The database takes a repeated id for the job that has it when the
//! content is the same, and refuses other content; so a key works for as long as its jobs are kept.

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::problem::Problem;
use crate::model::NewJob;

const HEADER: &str = "idempotency-key";
const MOST_CHARACTERS: usize = 200;

/// A key as the client chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of a request, if it has one.
    ///
    /// # Errors
    ///
    /// When there are several, or it is not 1 to 200 visible ASCII characters.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(HEADER).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            let several = headers.contains_key(HEADER);
            return if several { Err(refused("there are several")) } else { Ok(None) };
        };
        let visible = |byte: &u8| matches!(byte, b' '..=b'~');
        let bytes = value.as_bytes();
        if !(1..=MOST_CHARACTERS).contains(&bytes.len()) || !bytes.iter().all(visible) {
            return Err(refused("it is empty, too long or not ASCII"));
        }
        Ok(Some(IdempotencyKey(String::from_utf8_lossy(bytes).into_owned())))
    }

    /// Gives ids to the jobs of the call that have none.
    pub(super) fn name(&self, jobs: &mut [NewJob]) {
        let size = i32::try_from(jobs.len()).unwrap_or(i32::MAX);
        for (place, job) in jobs.iter_mut().enumerate().filter(|(_, job)| job.id.is_none()) {
            job.id = Some(self.job_id(place));
            job.call_size = Some(size);
        }
    }

    /// The id of the job at this place (from 0) of the call.
    fn job_id(&self, place: usize) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(b"rowlock idempotency key\0");
        hash.update((place as u64).to_be_bytes());
        hash.update(self.0.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let first: [u8; 16] = digest[..16].try_into().expect("half of 32 is 16");
        Builder::from_custom_bytes(first).into_uuid()
    }
}

fn refused(why: &str) -> Problem {
    Problem::invalid(format!("the Idempotency-Key header cannot be used: {why}"))
        .hint(format!("Send one key of 1 to {MOST_CHARACTERS} visible ASCII characters."))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(values: &[&[u8]]) -> Result<Option<IdempotencyKey>, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        IdempotencyKey::of(&headers)
    }

    #[test]
    fn ids_follow_from_key_and_place() {
        let key = of(&[b"order 7"]).unwrap().unwrap();
        assert_eq!(key.job_id(3), key.job_id(3));
        assert_ne!(key.job_id(3), key.job_id(4));
        assert_ne!(key.job_id(0), of(&[b"order 8"]).unwrap().unwrap().job_id(0));
        assert_eq!(key.job_id(0).get_version_num(), 8);
    }

    #[test]
    fn only_one_plain_key_is_taken() {
        assert_eq!(of(&[]).unwrap(), None);
        assert!(of(&[b"a", b"a"]).is_err());
        assert!(of(&[b""]).is_err());
        assert!(of(&["é".as_bytes()]).is_err());
        assert!(of(&[&[b'x'; 201]]).is_err());
        assert!(of(&[&[b'x'; 200]]).is_ok());
    }
}
