//! Each line a message: read on a thread of its own, sent in bulk as they come. Stops at the first lines that are refused.

use std::io::{BufRead as _, BufReader, Read};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use whimbrel_api::{Client, Place};

/// The longest line, bytes.
const LINE_BYTES_MAX: u64 = 3 << 20;

/// Messages of one request.
const BATCH_ENTRIES_MAX: usize = 100;

/// Bytes of the lines of one request, after which no more are added.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Lines that are read ahead.
const AHEAD_LINES_MAX: usize = 64;

/// How long a batch waits for another line.
const NEXT_WAIT: Duration = Duration::from_millis(10);

/// A line without its end, and its number from 1.
type Line = (usize, Vec<u8>);

/// Publishes every line that is not empty.
pub(super) async fn publish(
    client: &Client,
    place: &Place<'_>,
    from: Box<dyn Read + Send>,
    content_type: Option<&str>,
) -> Result<()> {
    let (lines, mut read) = mpsc::channel(AHEAD_LINES_MAX);
    // It ends with its source, or with the process.
    drop(std::thread::spawn(move || forward(from, &lines)));
    let mut published = 0;
    while let Some(batch) = batch(&mut read).await? {
        let entries: Vec<String> = batch.iter().map(|line| entry(line, content_type)).collect::<Result<_>>()?;
        let body = Bytes::from(format!("[{}]", entries.join(",")));
        let told = || format!("after {published} messages that were published");
        let answered = client.publish_bulk(place, body).await.map_err(super::with_hint).with_context(told)?;
        if answered.is_success() {
            published += batch.len();
            continue;
        }
        let failed = answered.failed_entries();
        let each: String = failed.iter().map(|(line, error)| format!("\nline {line}: {error}")).collect();
        if !failed.is_empty() {
            published += batch.len() - failed.len();
        }
        bail!("the host answered {}; {published} messages were published{each}", answered.told());
    }
    Ok(())
}

/// Sends on what is read, until nobody listens.
fn forward(from: Box<dyn Read + Send>, lines: &mpsc::Sender<Result<Line>>) {
    let mut from = BufReader::new(from);
    for number in 1.. {
        let mut line = Vec::new();
        let read = from.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        let next = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 > LINE_BYTES_MAX => {
                Err(anyhow::anyhow!("line {number} is longer than {LINE_BYTES_MAX} bytes"))
            }
            Ok(_) => {
                let end = line.len() - line.iter().rev().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
                line.truncate(end);
                Ok((number, line))
            }
            Err(error) => Err(anyhow::Error::from(error).context("reading the lines")),
        };
        let is_last = next.is_err();
        if matches!(&next, Ok((_, line)) if line.is_empty()) {
            continue;
        }
        if lines.blocking_send(next).is_err() || is_last {
            return;
        }
    }
}

/// The next lines: at least one, and those that come at once after it. `None`: there are no more.
async fn batch(read: &mut mpsc::Receiver<Result<Line>>) -> Result<Option<Vec<Line>>> {
    let Some(first) = read.recv().await.transpose()? else { return Ok(None) };
    let mut bytes = first.1.len();
    let mut batch = vec![first];
    while batch.len() < BATCH_ENTRIES_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(Some(next)) = timeout(NEXT_WAIT, read.recv()).await else { break };
        let next = next?;
        bytes += next.1.len();
        batch.push(next);
    }
    Ok(Some(batch))
}

/// One entry of a bulk request.
fn entry((number, line): &Line, content_type: Option<&str>) -> Result<String> {
    let content_type = content_type.unwrap_or_else(|| super::looks_like(line));
    let is = |media_type: &str| {
        let essence = content_type.split_once(';').map_or(content_type, |(essence, _)| essence);
        essence.trim().eq_ignore_ascii_case(media_type)
    };
    let text = || std::str::from_utf8(line).with_context(|| format!("line {number} is no UTF-8 text"));
    let event = if is("application/json") || is("application/cloudevents+json") {
        let json: &RawValue =
            serde_json::from_str(text()?).with_context(|| format!("line {number} is no {content_type}"))?;
        json.get().to_owned()
    } else if is("application/octet-stream") {
        Value::from(STANDARD.encode(line)).to_string()
    } else {
        Value::from(text()?).to_string()
    };
    let (id, content_type) = (Value::from(number.to_string()), json!(content_type));
    // Metadata of its own, if only an empty one: without it that of the request does not apply to it.
    Ok(format!(r#"{{"entryId":{id},"contentType":{content_type},"metadata":{{}},"event":{event}}}"#))
}

#[cfg(test)]
mod tests;
