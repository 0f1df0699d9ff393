//! What a server says.

use std::fmt;

use serde::Deserialize;

/// The longest line a server may send, bytes: an `INFO` that lists a large cluster is the longest there is.
const LINE_MAX_BYTES: usize = 256 * 1024;

/// The largest message a server may send, bytes. Servers refuse to be configured beyond 64 MiB.
const MESSAGE_MAX_BYTES: usize = 64 << 20;

/// Room kept after what was read is used up, bytes.
const KEPT_BYTES: usize = 256 * 1024;

/// One thing the server said.
#[derive(Debug, PartialEq)]
pub(crate) enum Op<'a> {
    /// About itself; also later, when something about it changes.
    Info(Box<Info>),
    /// A message.
    Msg(Msg<'a>),
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// The last line was fine; only said if asked for.
    Ok,
    /// The text of an error. After most of them the server hangs up.
    Err(&'a str),
}

/// A message, or an answer of the server that looks like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Msg<'a> {
    pub(crate) subject: &'a str,
    /// Which subscription it is for.
    pub(crate) sid: u64,
    pub(crate) reply: Option<&'a str>,
    /// The header block. Empty: none.
    pub(crate) head: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// What a server tells about itself, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Info {
    pub(crate) server_id: String,
    pub(crate) version: String,
    pub(crate) max_payload: usize,
    pub(crate) headers: bool,
    pub(crate) auth_required: bool,
    pub(crate) tls_required: bool,
    pub(crate) tls_available: bool,
    pub(crate) jetstream: bool,
    pub(crate) nonce: Option<String>,
    /// Other servers of the cluster, `host:port`.
    pub(crate) connect_urls: Vec<String>,
    /// It is about to shut down ("lame duck").
    pub(crate) ldm: bool,
}

/// The peer does not speak NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is not NATS: {}", self.0)
    }
}

/// Takes bytes, gives what they mean.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// What was decoded already.
    used: usize,
}

impl Decoder {
    /// Where to append what was read.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.used);
        self.used = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
        &mut self.buffer
    }

    /// The next thing said; none until more was read.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub(crate) fn next(&mut self) -> Result<Option<Op<'_>>, Malformed> {
        let bytes = self.buffer.get(self.used..).unwrap_or_default();
        let Some((op, length)) = decode(bytes)? else { return Ok(None) };
        self.used += length;
        Ok(Some(op))
    }
}

/// The first op and its length.
fn decode(bytes: &[u8]) -> Result<Option<(Op<'_>, usize)>, Malformed> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > LINE_MAX_BYTES { Err(Malformed("a line has no end")) } else { Ok(None) };
    };
    let line = bytes.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| Malformed("a line is no text"))?;
    let rest = bytes.get(end + 1..).unwrap_or_default();
    let (verb, arguments) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let op = match verb {
        "MSG" => return message(arguments, false, rest, end + 1),
        "HMSG" => return message(arguments, true, rest, end + 1),
        "PING" => Op::Ping,
        "PONG" => Op::Pong,
        "+OK" => Op::Ok,
        "-ERR" => Op::Err(arguments.trim().trim_matches('\'')),
        "INFO" => Op::Info(serde_json::from_str(arguments).map_err(|_| Malformed("INFO is not understood"))?),
        _ => return Err(Malformed("an unknown verb")),
    };
    Ok(Some((op, end + 1)))
}

/// `[H]MSG subject sid [reply] [head-length] length`, and the bytes that follow.
fn message<'a>(
    arguments: &'a str,
    has_head: bool,
    rest: &'a [u8],
    line: usize,
) -> Result<Option<(Op<'a>, usize)>, Malformed> {
    const WRONG: Malformed = Malformed("a message has wrong arguments");
    let mut words = arguments.split_ascii_whitespace();
    let (Some(subject), Some(sid)) = (words.next(), words.next()) else { return Err(WRONG) };
    let sid = sid.parse().map_err(|_| WRONG)?;
    let mut backwards = words.rev();
    let length: usize = backwards.next().and_then(|word| word.parse().ok()).ok_or(WRONG)?;
    let head: usize = if has_head { backwards.next().and_then(|word| word.parse().ok()).ok_or(WRONG)? } else { 0 };
    let reply = backwards.next();
    if length > MESSAGE_MAX_BYTES || head > length || backwards.next().is_some() {
        return Err(WRONG);
    }
    if rest.len() < length + 2 {
        return Ok(None);
    }
    let (body, end) = rest.split_at(length);
    if !end.starts_with(b"\r\n") {
        return Err(Malformed("a message has another length than it says"));
    }
    let (head, payload) = body.split_at(head);
    Ok(Some((Op::Msg(Msg { subject, sid, reply, head, payload }), line + length + 2)))
}
