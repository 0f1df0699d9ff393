//! HTTP with nothing added: the bytes a test wrote, and the answer as it came. Called by the tests of the API, and by
//! whatever asks a host one question. For load there is `load`.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wait::WAIT_MAX;

/// The most header fields an answer may have.
const HEADERS_MAX: usize = 64;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Header fields, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The whole body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The first header of that (lower-case) name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// Sends a request built from its parts, path and header values exactly as given, and reads the answer.
pub(crate) async fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend_from_slice(body);
    raw(to, &request).await
}

/// `GET`.
pub(crate) async fn get(to: SocketAddr, path: &str) -> Result<Answer> {
    send(to, "GET", path, &[], b"").await
}

/// Publishes JSON to `<pubsub>/<topic>`, given as they stand in the path, query included.
pub(crate) async fn publish(to: SocketAddr, place: &str, body: &str) -> Result<Answer> {
    let headers = [("content-type", "application/json")];
    send(to, "POST", &format!("/v1.0/publish/{place}"), &headers, body.as_bytes()).await
}

/// Publishes JSON and insists on 204.
pub(crate) async fn publish_ok(to: SocketAddr, place: &str, body: &str) -> Result<()> {
    let answer = publish(to, place, body).await?;
    if answer.status != 204 {
        bail!("publishing to {place} was answered {}: {}", answer.status, answer.text());
    }
    Ok(())
}

/// Writes exactly these bytes on a new connection and reads the answer until the peer closes.
pub(crate) async fn raw(to: SocketAddr, request: &[u8]) -> Result<Answer> {
    let exchange = async {
        let stream = TcpStream::connect(to).await.with_context(|| format!("connecting to {to}"))?;
        let (mut from, mut into) = stream.into_split();
        // A server may answer and close before it has read all: then writing fails, and the answer counts.
        let (written, answer) = tokio::join!(into.write_all(request), read_to_the_end(&mut from));
        parse(&answer).with_context(|| format!("writing: {written:?}"))
    };
    tokio::time::timeout(WAIT_MAX, exchange).await.with_context(|| format!("no answer from {to} in {WAIT_MAX:?}"))?
}

async fn read_to_the_end(from: &mut tokio::net::tcp::OwnedReadHalf) -> Vec<u8> {
    let mut answer = Vec::new();
    // A connection that is reset after the answer has still answered; `parse` decides.
    from.read_to_end(&mut answer).await.ok();
    answer
}

fn parse(answer: &[u8]) -> Result<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(answer)? else {
        bail!("the connection ended within the answer's head: {:?}", String::from_utf8_lossy(answer));
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers: Vec<_> =
        head.headers.iter().map(|field| (field.name.to_ascii_lowercase(), text(field.value))).collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = answer.get(length..).unwrap_or_default();
    let body = if chunked { join_chunks(body)? } else { Bytes::copy_from_slice(body) };
    Ok(Answer { status: head.code.unwrap_or_default(), headers, body })
}

fn join_chunks(mut body: &[u8]) -> Result<Bytes> {
    let mut joined = Vec::new();
    while let Ok(httparse::Status::Complete((start, length))) = httparse::parse_chunk_size(body) {
        let end = start + usize::try_from(length)?;
        joined.extend_from_slice(body.get(start..end).context("a chunk was cut short")?);
        body = body.get(end + 2..).unwrap_or_default();
        if length == 0 {
            break;
        }
    }
    Ok(joined.into())
}

#[cfg(test)]
mod tests;
