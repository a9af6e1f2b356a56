//! Enqueue: small calls of all callers share statements, as far as none can hold up another.

use tokio::time::Instant;

use super::coalesce::{Verb, Weight};
use super::known::known;
use super::{CONFLICT_TRIES, Engine, Error, measure};
use crate::db::Pool;
use crate::model::NewJob;
use crate::store;
use crate::store::enqueue::Enqueued;

/// A call of so many jobs is as well off with a statement of its own.
const MANY_JOBS: usize = 50;

/// So is one of so many bytes.
const MANY_BYTES: usize = 256 << 10;

/// So many calls that a refusal names are left out of a statement, one by one, which costs little
/// since nothing was committed. With more, the statement is divided.
const MOST_SINGLED_OUT: usize = 8;

/// What a job weighs beside its texts.
const BYTES_A_JOB: usize = 500;

impl Engine {
    /// Enqueues jobs, all of them or none; one answer a job, in input order.
    ///
    /// Small calls that are made at the same time travel together, so that a thousand tasks may
    /// each enqueue their own job without a commit for each. A call with dependencies or a
    /// `unique_key` goes alone.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when a job is not valid or belongs to another; nothing is stored then.
    /// [`Error::Overloaded`] at once when too many calls wait. [`Error::InDoubt`] when no answer
    /// came; jobs that all have ids were sent twice by then, and `created` is false in an answer to
    /// the second.
    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, Error> {
        let began = Instant::now();
        let answer = match travels(&jobs) {
            Some(with) => self.inner.enqueue.call(with, jobs).await,
            None => self.enqueue_alone(&jobs).await,
        };
        measure::enqueue(began, answer.as_deref().ok());
        answer
    }

    async fn enqueue_alone(&self, jobs: &Vec<NewJob>) -> Result<Vec<Enqueued>, Error> {
        let _place = self.inner.alone.enqueues.enter(Enqueue::NAME, bytes_of(jobs))?;
        let _turn = self.inner.alone.enqueues.turn().await?;
        self.inner.enqueue.verb().alone(jobs).await
    }

    /// Enqueues one job; see [`Engine::enqueue`].
    ///
    /// ```no_run
    /// use rowlock::config::Settings;
    /// use rowlock::db::Options;
    /// use rowlock::engine::Engine;
    /// use rowlock::shutdown::Shutdown;
    /// use rowlock::NewJob;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let (settings, shutdown) = (Settings::default(), Shutdown::new());
    /// let options = Options::new("postgres://app@db/app".into(), &settings.database);
    /// let engine = Engine::open(&options, &settings.queue, &shutdown)?;
    /// // One engine a program; its clones, in as many tasks as it has, share statements.
    /// let job = NewJob::new("welcome", "ann@example.org")?.queue("mail");
    /// println!("{}", engine.enqueue_one(job).await?.job_id);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Engine::enqueue`].
    pub async fn enqueue_one(&self, job: NewJob) -> Result<Enqueued, Error> {
        let mut answers = self.enqueue(vec![job]).await?;
        let missing = || Error::Other("the job that was enqueued was not answered".into());
        answers.pop().ok_or_else(missing)
    }
}

/// Which calls a call may travel with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum With {
    /// Jobs that nobody else can know: they wait for nothing.
    Fresh,
    /// Jobs with ids, which another transaction may be enqueueing at this moment.
    Named,
}

/// With which others a call travels; alone where what it waits for is not known.
fn travels(jobs: &[NewJob]) -> Option<With> {
    let plain = |job: &NewJob| {
        job.unique_key.is_none() && job.parents.is_empty() && job.reference.is_none()
    };
    let small = (1..MANY_JOBS).contains(&jobs.len()) && bytes_of(jobs) < MANY_BYTES;
    if !small || !jobs.iter().all(plain) {
        return None;
    }
    let named = jobs.iter().any(|job| job.id.is_some());
    Some(if named { With::Named } else { With::Fresh })
}

pub(super) fn bytes_of(jobs: &[NewJob]) -> usize {
    jobs.iter().map(|job| job.args.get().len() + job.kind.len() + BYTES_A_JOB).sum()
}

/// The place, from 0, of the job that a refusal names.
fn place_in(error: &Error) -> Option<usize> {
    let Error::Refused { message, .. } = error else { return None };
    let (_, rest) = message.split_once(" of job ")?;
    rest.split(' ').next()?.parse::<usize>().ok()?.checked_sub(1)
}

/// Whose job has this place among those that were sent.
fn caller_of(calls: &[Vec<NewJob>], faulty: &[bool], place: usize) -> Option<usize> {
    let mut before = 0;
    (0..calls.len()).filter(|caller| !faulty[*caller]).find(|caller| {
        before += calls[*caller].len();
        place < before
    })
}

/// To each caller its own; to one who was not sent, nothing.
fn hand_out(
    calls: &[Vec<NewJob>],
    faulty: &[bool],
    answers: Vec<Enqueued>,
) -> Vec<Option<Vec<Enqueued>>> {
    let mut answers = answers.into_iter();
    let of = |(call, faulty): (&Vec<NewJob>, &bool)| {
        (!faulty).then(|| answers.by_ref().take(call.len()).collect())
    };
    calls.iter().zip(faulty).map(of).collect()
}

/// Enqueue as a verb that many call at a time.
pub(super) struct Enqueue(pub(super) Pool);

impl Verb for Enqueue {
    const NAME: &'static str = "enqueue";
    const MOST_CALLS: usize = 1_000;

    type Key = With;
    type Call = Vec<NewJob>;
    type Answer = Vec<Enqueued>;

    fn weigh(jobs: &Vec<NewJob>) -> Weight {
        Weight { entries: jobs.len(), bytes: bytes_of(jobs) }
    }

    async fn together(&self, calls: &[Vec<NewJob>]) -> Result<Vec<Option<Vec<Enqueued>>>, Error> {
        let mut faulty = vec![false; calls.len()];
        loop {
            let sent = || calls.iter().zip(&faulty).filter(|(_, faulty)| !**faulty);
            let jobs: Vec<&NewJob> = sent().flat_map(|(call, _)| call).collect();
            let error = match self.enqueue(&jobs).await {
                Ok(answers) => return Ok(hand_out(calls, &faulty, answers)),
                Err(error) => error,
            };
            let singled_out = faulty.iter().filter(|faulty| **faulty).count();
            match place_in(&error).and_then(|place| caller_of(calls, &faulty, place)) {
                Some(caller) if singled_out < MOST_SINGLED_OUT => faulty[caller] = true,
                _ => return Err(error),
            }
        }
    }

    async fn alone(&self, jobs: &Vec<NewJob>) -> Result<Vec<Enqueued>, Error> {
        let jobs: Vec<&NewJob> = jobs.iter().collect();
        self.enqueue(&jobs).await
    }

    fn is_of_some(with: &With, error: &Error) -> bool {
        match error {
            // Fresh jobs meet a lock on a whole table only, and so all of them.
            Error::Locked(_) => *with == With::Named,
            error => error.is_of_content(),
        }
    }
}

impl Enqueue {
    /// Jobs that have ids may be sent twice.
    async fn enqueue(&self, jobs: &[&NewJob]) -> Result<Vec<Enqueued>, Error> {
        if jobs.iter().all(|job| job.id.is_some()) {
            known(|| self.in_tries(jobs)).await
        } else {
            self.in_tries(jobs).await
        }
    }

    async fn in_tries(&self, jobs: &[&NewJob]) -> Result<Vec<Enqueued>, Error> {
        let mut tries = 1;
        loop {
            let connection = self.0.get().await?;
            match store::enqueue::enqueue(&connection, jobs).await {
                Err(Error::Conflict(_)) if tries < CONFLICT_TRIES => tries += 1,
                answer => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Code;

    fn job() -> NewJob {
        NewJob::new("mail", &()).unwrap()
    }

    fn refused(message: &str) -> Error {
        let (code, message) = (Code::Invalid, message.to_owned());
        Error::Refused { code, message, detail: None, hint: None }
    }

    #[test]
    fn what_may_wait_for_others_travels_alone() {
        assert_eq!(travels(&[job(), job().priority(0)]), Some(With::Fresh));
        assert_eq!(travels(&[job(), job().id(uuid::Uuid::nil())]), Some(With::Named));
        assert_eq!(travels(&[job().unique_key("a")]), None);
        assert_eq!(travels(&[job().reference("a"), job().depends_on("a")]), None);
        assert_eq!(travels(&[]), None);
        assert_eq!(travels(&vec![job(); MANY_JOBS]), None);
        let large = "x".repeat(MANY_BYTES);
        assert_eq!(travels(&[NewJob::new("mail", &large).unwrap()]), None);
    }

    #[test]
    fn a_refusal_finds_its_caller() {
        let calls = [vec![job()], vec![job(), job()], vec![job()]];
        let caller = |message: &str, faulty: [bool; 3]| {
            place_in(&refused(message)).and_then(|place| caller_of(&calls, &faulty, place))
        };
        assert_eq!(caller("kind of job 1 is not valid", [false; 3]), Some(0));
        assert_eq!(caller("kind of job 3 is not valid", [false; 3]), Some(1));
        assert_eq!(caller("id of job 4 belongs to another job", [false; 3]), Some(2));
        assert_eq!(caller("kind of job 2 is not valid", [false, true, false]), Some(2));
        assert_eq!(caller("kind of job 5 is not valid", [false; 3]), None);
        assert_eq!(caller("unsupported Unicode escape sequence", [false; 3]), None);
        assert_eq!(place_in(&Error::PoolExhausted), None);
    }
}
