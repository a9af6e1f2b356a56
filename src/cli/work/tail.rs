//! What is kept of a command's output: the last JSON line, and the end of the errors.

use rowlock::model::RawJson;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

/// A longer line is no result: results are bounded well below.
const LONGEST_LINE: u64 = 1 << 20;
/// What is kept of the errors; the database keeps 16 KiB.
const TAIL: usize = 4 << 10;
const CHUNK: usize = 8 << 10;

/// Reads to the end and keeps the last line that is JSON.
pub(super) async fn last_json(output: impl AsyncRead + Unpin) -> Option<RawJson> {
    let mut output = BufReader::new(output);
    let mut found = None;
    let mut line = Vec::new();
    let mut whole = true;
    loop {
        line.clear();
        let mut bounded = (&mut output).take(LONGEST_LINE);
        // A command whose output cannot be read any more has ended.
        if bounded.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
            return found;
        }
        let ends = line.ends_with(b"\n");
        if whole && (ends || (line.len() as u64) < LONGEST_LINE) {
            found = json(&line).or(found);
        }
        whole = ends;
    }
}

fn json(line: &[u8]) -> Option<RawJson> {
    let text = std::str::from_utf8(line).ok()?.trim();
    RawValue::from_string(text.to_owned()).ok().filter(|_| !text.is_empty())
}

/// Hands everything on to our own standard error, and keeps the end.
pub(super) async fn errors(mut output: impl AsyncRead + Unpin) -> String {
    let mut stderr = tokio::io::stderr();
    let mut tail = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = output.read(&mut chunk).await.unwrap_or(0);
        if length == 0 {
            break;
        }
        // Nobody may read ours; the job goes on.
        let _ = stderr.write_all(&chunk[..length]).await;
        tail.extend_from_slice(&chunk[..length]);
        let over = tail.len().saturating_sub(TAIL);
        tail.drain(..over);
    }
    let _ = stderr.flush().await;
    String::from_utf8_lossy(&tail).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn result(output: &str) -> Option<String> {
        last_json(output.as_bytes()).await.map(|json| json.get().to_owned())
    }

    #[tokio::test]
    async fn the_last_json_line_is_the_result() {
        assert_eq!(result("").await, None);
        assert_eq!(result("hello\n").await, None);
        assert_eq!(result("{\"n\":1}\n{\"n\":2}\nbye").await.as_deref(), Some("{\"n\":2}"));
        assert_eq!(result("working\n 7").await.as_deref(), Some("7"));
        let long = format!("7\n\"{}\"\n", "x".repeat(3 << 20));
        assert_eq!(result(&long).await.as_deref(), Some("7"));
    }

    #[tokio::test]
    async fn the_end_of_the_errors_is_kept() {
        assert_eq!(errors(&b"one\ntwo\n"[..]).await, "one\ntwo");
    }
}
