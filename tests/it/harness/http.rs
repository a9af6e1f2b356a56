//! The API served on a loopback port, and a client that writes requests byte by byte.

use std::sync::Mutex;
use std::time::Duration;

use rowlock::config::{DatabaseSettings, HttpSettings, QueueSettings, Settings};
use rowlock::db::Options;
use rowlock::engine::Engine;
use rowlock::http::router;
use rowlock::shutdown::Shutdown;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Db;

const DEADLINE: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(10);

/// A service of one test.
pub(crate) struct Api {
    address: std::net::SocketAddr,
    pub(crate) shutdown: Shutdown,
    asked: Mutex<Vec<(String, String)>>,
}

/// What can be set differently.
pub(crate) struct Setup {
    pub(crate) http: HttpSettings,
    pub(crate) queue: QueueSettings,
    pub(crate) database: DatabaseSettings,
    pub(crate) url: String,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Api {
    /// Serves a database with the default settings.
    pub(crate) async fn start(db: &Db) -> Api {
        Api::start_with(db, |_| {}).await
    }

    /// Serves a database with other settings.
    pub(crate) async fn start_with(db: &Db, change: impl FnOnce(&mut Setup)) -> Api {
        let Settings { http, queue, database, .. } = Settings::default();
        let mut setup = Setup { http, queue, database, url: db.url() };
        // Ten tests at a time share the server's connections.
        setup.database.pool_size = 8;
        change(&mut setup);
        let shutdown = Shutdown::new();
        let options = Options::new(setup.url.as_str().into(), &setup.database);
        let engine = Engine::open(&options, &setup.queue, &shutdown).expect("an engine");
        let app = router(engine, &setup.http, shutdown.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Api { address, shutdown, asked: Mutex::default() }
    }

    /// Ends what the service started.
    pub(crate) async fn stop(self) {
        assert!(self.shutdown.drain(DRAIN).await, "tasks of the service do not end");
    }

    fn note(&self, method: String, path: String) {
        self.asked.lock().expect("no panic while held").push((method, path));
    }

    /// Method and path of every request so far.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().expect("no panic while held").clone()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Posts JSON; an empty text posts nothing.
    pub(crate) async fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], &body.to_string()).await
    }

    /// Sends a request with these headers, and reads the whole answer.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = self.open(method, path, headers, body).await;
        let mut bytes = Vec::new();
        let reading = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
        let whole = reading.expect("an answer within the deadline");
        // A body that was not read to its end makes the close a reset, after the answer.
        if bytes.is_empty() {
            whole.expect("an answer");
        }
        Answer::read(&bytes)
    }

    /// Sends these very bytes, and reads the whole answer.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        reading.expect("an answer within the deadline").expect("an answer");
        Answer::read(&answer)
    }

    /// Sends a request and leaves the connection open, for tests that go away or wait.
    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TcpStream {
        let without_query = path.split('?').next().unwrap_or(path).to_owned();
        self.note(method.to_owned(), without_query);
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        let mut announced = false;
        for (name, value) in headers {
            announced |= matches!(*name, "content-length" | "transfer-encoding");
            head += &format!("{name}: {value}\r\n");
        }
        if !announced {
            head += &format!("content-length: {}\r\n", body.len());
        }
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        // Early answers may close the other side's ear.
        let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
        stream
    }
}

impl Answer {
    fn read(bytes: &[u8]) -> Answer {
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Answer {
            status: status.parse().expect("a number"),
            headers: lines.map(header).collect(),
            body: body.to_owned(),
        }
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem that an answer must be, checked for the members of all problems.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.json(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        assert_eq!(problem["type"], format!("urn:rowlock:{code}"), "{self:?}");
        for member in ["title", "detail"] {
            let text = problem[member].as_str().unwrap_or("");
            assert!(!text.is_empty(), "{member} is missing: {self:?}");
        }
        problem
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }
}
