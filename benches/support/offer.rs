//! A child that asks at a given pace, whatever comes back, over connections that it keeps.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::QUEUE;

/// An answer that takes longer is not waited for.
const LONGEST: Duration = Duration::from_secs(30);

/// What is asked, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    /// Opened beforehand and kept; a request has one to itself until its answer.
    pub(crate) connections: usize,
    /// How long a request waits for a connection; then it is not sent at all.
    pub(crate) queued: Duration,
    /// So many requests a second for so long, one phase after another without a gap.
    pub(crate) phases: Vec<(f64, Duration)>,
    /// What makes the unique keys of this offer its own.
    pub(crate) tag: String,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Offered {
    /// One a request.
    pub(crate) samples: Vec<Sample>,
    /// Of its core, how much each phase took.
    pub(crate) cpu_shares: Vec<f64>,
}

/// One request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// After the start.
    pub(crate) due: Duration,
    /// From when it was due.
    pub(crate) took: Duration,
    pub(crate) end: End,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// With this status.
    Answered(u16),
    /// No connection was free.
    Unsent,
    /// The connection broke, or nothing was heard.
    Broken,
}

/// The requests that are due, and what came of others.
struct Line {
    offer: Offer,
    began: Instant,
    waiting: Mutex<VecDeque<(usize, Duration)>>,
    /// One permit for each that waits.
    due: Semaphore,
    samples: Mutex<Vec<Sample>>,
}

impl Offer {
    pub(super) async fn run(self) -> Offered {
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            streams.push(connect(&self.address).await.expect("the service accepts"));
        }
        let line = Arc::new(Line {
            offer: self.clone(),
            began: Instant::now(),
            waiting: Mutex::default(),
            due: Semaphore::new(0),
            samples: Mutex::default(),
        });
        let mut callers = JoinSet::new();
        for stream in streams {
            callers.spawn(call(line.clone(), stream));
        }
        let (mut sent, mut start, mut cpu_shares) = (0, Duration::ZERO, Vec::new());
        for &(pace, length) in &self.phases {
            let before = cpu_seconds();
            sent = line.send(sent, start, pace, length).await;
            start += length;
            cpu_shares.push((cpu_seconds() - before) / length.as_secs_f64());
        }
        let end = Instant::now() + LONGEST + self.queued;
        while lock(&line.samples).len() < sent {
            assert!(Instant::now() < end, "some requests have no end");
            sleep(Duration::from_millis(10)).await;
        }
        callers.shutdown().await;
        Offered { samples: std::mem::take(&mut *lock(&line.samples)), cpu_shares }
    }
}

impl Line {
    /// Puts in line what is due in one phase, and gives the number of the next request.
    async fn send(&self, first: usize, start: Duration, pace: f64, length: Duration) -> usize {
        let mut ticks = interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let all = (length.as_secs_f64() * pace) as usize;
        let mut sent = 0;
        while self.began.elapsed() < start + length || sent < all {
            ticks.tick().await;
            let elapsed = self.began.elapsed().saturating_sub(start);
            let due = all.min((elapsed.as_secs_f64() * pace) as usize);
            let mut waiting = lock(&self.waiting);
            for number in sent..due {
                let at = start + Duration::from_secs_f64(number as f64 / pace);
                waiting.push_back((first + number, at));
            }
            self.due.add_permits(due - sent);
            sent = due;
        }
        first + sent
    }

    fn note(&self, due: Duration, end: End) {
        let took = self.began.elapsed().saturating_sub(due);
        lock(&self.samples).push(Sample { due, took, end });
    }
}

/// One connection, with one request after another.
async fn call(line: Arc<Line>, mut stream: TcpStream) {
    loop {
        line.due.acquire().await.expect("it is never closed").forget();
        let next = lock(&line.waiting).pop_front();
        let (number, due) = next.expect("a permit is for one that waits");
        if line.began.elapsed().saturating_sub(due) > line.offer.queued {
            line.note(due, End::Unsent);
            continue;
        }
        let request = request(number, &line.offer.tag);
        match timeout(LONGEST, ask(&mut stream, &request)).await {
            Ok(Ok(status)) => line.note(due, End::Answered(status)),
            _ => {
                line.note(due, End::Broken);
                stream = loop {
                    match connect(&line.offer.address).await {
                        Ok(stream) => break stream,
                        Err(_) => sleep(Duration::from_millis(50)).await,
                    }
                };
            }
        }
    }
}

async fn connect(address: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Each a commit of its own: a key travels alone.
fn request(number: usize, tag: &str) -> String {
    let body = json!({"kind": "noop", "queue": QUEUE, "unique_key": format!("{tag} {number}")});
    let body = body.to_string();
    format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request and reads the whole answer; its status.
async fn ask(stream: &mut TcpStream, request: &str) -> std::io::Result<u16> {
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
        if end + 4 + length <= bytes.len() {
            let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
            return status.ok_or_else(|| std::io::ErrorKind::InvalidData.into());
        }
    }
}

/// What this process has taken of the cores.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("its own usage");
    let took = usage.user_time() + usage.system_time();
    took.num_microseconds() as f64 / 1e6
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
