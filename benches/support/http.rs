//! A small client for one kept connection: cheap, since it shares the cores with what it measures.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection to the service.
pub(crate) struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    /// Connects.
    pub(crate) async fn connect(address: &str) -> Http {
        let stream = TcpStream::connect(address).await.expect("the service accepts");
        stream.set_nodelay(true).expect("no delay");
        Http { stream, buffer: Vec::new() }
    }

    /// Posts JSON, and gives the JSON of the answer, which must be a good one.
    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Value {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await.expect("the service reads");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the service answers");
            assert!(read > 0, "the service closed the connection");
            if let Some(answer) = whole(&self.buffer) {
                return answer;
            }
        }
    }
}

/// The body of an answer once all of it is there.
fn whole(bytes: &[u8]) -> Option<Value> {
    let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_end]).expect("a head is text");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.expect("an answer says its length").expect("a number");
    let body = bytes.get(head_end + 4..head_end + 4 + length)?;
    let status = head.split(' ').nth(1).expect("a status");
    assert!(status.starts_with('2'), "{head}\n{}", String::from_utf8_lossy(body));
    Some(serde_json::from_slice(body).expect("JSON"))
}
