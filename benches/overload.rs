//! Three times as many requests as the service can take: how much of its best it still does, and
//! how soon all is as before.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::{Bench, Report, Rows, Service, millis, percentile, rate, span};

pub(crate) const ROWS: &[&str] = &["overload_goodput", "overload_back_to_normal"];

/// Callers that find out what the service can take.
const CALLERS: usize = 64;

/// How much more than that is asked of it.
const TIMES: f64 = 3.0;

/// What is asked of it in good times, of what it can take.
const USUAL: f64 = 0.5;

/// A request that takes longer is none that a caller had use for.
const PATIENCE: Duration = Duration::from_secs(5);

/// As normal: nothing refused, and at most so many times the usual worst or so long, in so many
/// windows in a row.
const NORMAL: f64 = 4.0;
const NORMAL_MS: f64 = 100.0;
const WINDOW: Duration = Duration::from_secs(1);
const WINDOWS: usize = 3;

/// No more connections than this; requests beyond are not sent, and counted as failed.
const MOST_CONNECTIONS: usize = 4_000;

/// When a request was due after the start, how long it took, and whether it was well.
#[derive(Clone, Copy)]
struct Sample {
    due: Duration,
    took: Duration,
    good: bool,
}

/// Connections that rest, and what came of the requests.
struct Caller {
    idle: Mutex<VecDeque<(TcpStream, OwnedSemaphorePermit)>>,
    samples: Mutex<Vec<Sample>>,
    /// One a connection.
    places: Arc<Semaphore>,
}

pub(crate) async fn report(_: Rows) {
    let mut report = Report::rows("overload").await;
    let bench = Bench::new(2).await;
    let service = Service::start(&bench.url).await;
    let address = service.address.clone();
    let capacity = capacity(&address).await;

    let usual = offer(&address, capacity * USUAL, span(10.0)).await;
    assert!(usual.iter().all(|sample| sample.good), "in good times all is well");
    let worst = percentile(usual.iter().map(|it| millis(it.took)).collect(), 0.99);

    let window = span(30.0);
    let over = offer(&address, capacity * TIMES, window).await;
    let good = over.iter().filter(|sample| sample.good).count();
    let goodput = rate(good, window) / capacity;

    let beside = json!({
        "capacity": capacity, "offered": capacity * TIMES, "refused": over.len() - good,
        "p99_ms": percentile(took(&over), 0.99), "seconds": window.as_secs_f64(),
    });
    report.figure(ROWS[0], "ratio", goodput, beside);

    let after = offer(&address, capacity * USUAL, Duration::from_secs(40)).await;
    let back = back_to_normal(&after, NORMAL_MS.max(worst * NORMAL));
    let stored = bench.ready().await;
    let beside = json!({ "usual_p99_ms": worst, "jobs": stored });
    report.figure(ROWS[1], "s", back, beside);
    service.end().await;
    bench.verify().await;
    bench.end().await;
    report.end();
}

fn took(samples: &[Sample]) -> Vec<f64> {
    samples.iter().filter(|it| it.good).map(|it| millis(it.took)).collect()
}

/// Each a commit of its own: a key travels alone.
fn request(number: usize, tag: &str) -> String {
    let body = json!({"kind": "noop", "queue": "bench", "unique_key": format!("{tag}{number}")});
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
    let mut bytes = Vec::with_capacity(512);
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

/// Jobs a second that callers get who each wait for their answer.
async fn capacity(address: &str) -> f64 {
    let (began, window) = (Instant::now(), span(10.0));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut stream = TcpStream::connect(address).await.expect("the service accepts");
        stream.set_nodelay(true).expect("no delay");
        callers.spawn(async move {
            let mut done = 0;
            while began.elapsed() < window {
                let request = request(done, &format!("capacity {caller} "));
                assert_eq!(ask(&mut stream, &request).await.expect("an answer"), 201);
                done += 1;
            }
            done
        });
    }
    let done: usize = callers.join_all().await.into_iter().sum();
    rate(done, began.elapsed())
}

/// Asks at this pace, whatever comes back, and waits for the last answer.
async fn offer(address: &str, pace: f64, window: Duration) -> Vec<Sample> {
    let caller = Arc::new(Caller::new());
    let mut ticks = interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (began, mut sent) = (Instant::now(), 0);
    let tag = format!("{pace} {began:?} ");
    let mut requests = JoinSet::new();
    while began.elapsed() < window {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * pace) as usize;
        for number in sent..due {
            let at = Duration::from_secs_f64(number as f64 / pace);
            let (caller, address, tag) = (caller.clone(), address.to_owned(), tag.clone());
            requests.spawn(async move {
                let request = request(number, &tag);
                let status = timeout(PATIENCE, caller.ask(&address, &request)).await;
                let good = matches!(status, Ok(Ok(201)));
                let took = began.elapsed().saturating_sub(at);
                let sample = Sample { due: at, took, good: good && took <= PATIENCE };
                caller.samples.lock().expect("nobody panics").push(sample);
            });
        }
        sent = sent.max(due);
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
    let samples = std::mem::take(&mut *caller.samples.lock().expect("nobody panics"));
    assert_eq!(samples.len(), sent, "each request has its sample");
    samples
}

impl Caller {
    fn new() -> Self {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        Caller { idle: Mutex::default(), samples: Mutex::default(), places }
    }

    async fn ask(&self, address: &str, request: &str) -> std::io::Result<u16> {
        let idle = self.idle.lock().expect("nobody panics").pop_front();
        let (mut stream, place) = match idle {
            Some(connection) => connection,
            None => {
                let place = self.places.clone().try_acquire_owned();
                let place = place.map_err(std::io::Error::other)?;
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                (stream, place)
            }
        };
        let status = ask(&mut stream, request).await?;
        self.idle.lock().expect("nobody panics").push_back((stream, place));
        Ok(status)
    }
}

/// Seconds until some windows in a row are as normal.
fn back_to_normal(samples: &[Sample], most_ms: f64) -> f64 {
    let end = samples.iter().map(|sample| sample.due).max().unwrap_or_default();
    let (mut start, mut normal) = (Duration::ZERO, 0);
    while start < end {
        let within = |sample: &&Sample| (start..start + WINDOW).contains(&sample.due);
        let window: Vec<Sample> = samples.iter().filter(within).copied().collect();
        let is_normal = window.iter().all(|sample| sample.good)
            && percentile(window.iter().map(|it| millis(it.took)).collect(), 0.99) <= most_ms;
        normal = if is_normal { normal + 1 } else { 0 };
        start += WINDOW;
        if normal == WINDOWS {
            return (start - WINDOW * u32::try_from(WINDOWS).expect("few")).as_secs_f64();
        }
    }
    panic!("it is not as before after {end:?}");
}
