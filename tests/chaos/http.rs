//! Requests to the service, one a connection.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any long poll of ours, and no longer than the judge allows for silence.
const PATIENCE: Duration = Duration::from_secs(4);

/// Posts JSON, and gives the status and the body of the answer.
///
/// # Errors
///
/// When there was no whole answer: it is unknown then whether anything was done.
pub(crate) async fn post(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(u16, Value)> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        let more: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).context("no status")?.parse()?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        anyhow::Ok((status, serde_json::from_str(body).context("half an answer")?))
    };
    timeout(PATIENCE, asking).await.context("no answer in time")?
}
