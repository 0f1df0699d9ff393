//! Messages to `XADD` commands, and their replies to results.
//!
//! A message is an entry with the fields `data` (the bytes) and, if there is any, `metadata` (a JSON object), as Dapr's
//! component writes it: either reads what the other wrote.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::channel::oneshot;
use serde::Serializer;
use whimbrel_sdk::{Failure, Message};

use crate::commands::millis;
use crate::config::{Settings, Trim};
use crate::failure::of_error;
use crate::pipe::{Answer, Pipe, Request};
use crate::protocol::{MESSAGE_MAX_BYTES, Reply, array, bulk, number};

/// Bytes of a command besides its topic, data and metadata: room to be made at once.
const COMMAND_BYTES: usize = 128;

/// `WAIT` gives up after this part of `readTimeout`, or the connection would be taken for dead.
const WAIT_PART: u32 = 2;

/// One result for each message.
type Results = Vec<Result<(), Failure>>;

/// Publishes in one write, and returns when Redis has confirmed each.
pub(crate) async fn publish(
    pipe: &Pipe,
    settings: &Rc<Settings>,
    messages: Vec<Message>,
    deadline: Duration,
) -> Results {
    let results: Results = messages.iter().map(check).collect();
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    if accepted == 0 {
        return results;
    }
    let bytes = encode(settings, &messages, &results);
    let (sender, answered) = oneshot::channel();
    let replicas = settings.replicas;
    let topics = messages.into_iter().map(|message| message.topic).collect();
    let mut tally = Tally { topics, results, next: 0, replicas };
    let mut sender = Some(sender);
    let replies = accepted + usize::from(replicas > 0);
    let mut left = replies;
    let taker = Box::new(move |answer: Answer<'_>| {
        left -= 1;
        if tally.take(answer) || left == 0 {
            let results = std::mem::take(&mut tally.results);
            // The host may have stopped waiting.
            sender.take().map(|sender| sender.send(results));
        }
    });
    let count = accepted;
    let request = Request { bytes, replies, taker, deadline: Instant::now() + deadline };
    pipe.ask(request, answered).await.unwrap_or_else(|| {
        let why = || Failure::Unknown("the connection to Redis was closed".to_owned());
        (0..count).map(|_| Err(why())).collect()
    })
}

fn check(message: &Message) -> Result<(), Failure> {
    let metadata: usize = message.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    let size = message.data.len() + metadata;
    match message.topic.as_str() {
        "" => Err(Failure::Invalid("the topic is empty".to_owned())),
        _ if size > MESSAGE_MAX_BYTES => {
            Err(Failure::Invalid(format!("the message has {size} bytes, more than {MESSAGE_MAX_BYTES}")))
        }
        _ => Ok(()),
    }
}

/// Writes the commands for all messages that passed the check.
fn encode(settings: &Settings, messages: &[Message], results: &[Result<(), Failure>]) -> Vec<u8> {
    let size = |message: &Message| message.data.len() + message.topic.len() + COMMAND_BYTES;
    let mut out = Vec::with_capacity(messages.iter().map(size).sum());
    let limit = Limit::of(settings.trim);
    for (message, result) in messages.iter().zip(results) {
        if result.is_ok() {
            add(&mut out, message, limit);
        }
    }
    if settings.replicas > 0 {
        array(&mut out, 3);
        bulk(&mut out, b"WAIT");
        number(&mut out, settings.replicas.into());
        number(&mut out, millis(settings.read_wait / WAIT_PART).max(1));
    }
    out
}

/// How the stream is trimmed on this occasion.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<(&'static [u8], u64)>);

impl Limit {
    fn of(trim: Trim) -> Self {
        Self(match trim {
            Trim::Never => None,
            Trim::Length(length) => Some((b"MAXLEN", length)),
            Trim::Age(age) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Some((b"MINID", millis(now.saturating_sub(age))))
            }
        })
    }
}

fn add(out: &mut Vec<u8>, message: &Message, limit: Limit) {
    let metadata = !message.metadata.is_empty();
    array(out, 5 + 3 * usize::from(limit.0.is_some()) + 2 * usize::from(metadata));
    bulk(out, b"XADD");
    bulk(out, message.topic.as_bytes());
    if let Some((kind, value)) = limit.0 {
        bulk(out, kind);
        bulk(out, b"~");
        number(out, value);
    }
    bulk(out, b"*");
    bulk(out, b"data");
    bulk(out, &message.data);
    if metadata {
        bulk(out, b"metadata");
        bulk(out, &object(&message.metadata));
    }
}

/// Metadata as a JSON object; of a name that stands twice, the last value.
fn object(metadata: &[(String, String)]) -> Vec<u8> {
    let mut json = Vec::new();
    let is_last =
        |(index, (name, _)): &(usize, &(String, String))| !metadata[index + 1..].iter().any(|(later, _)| later == name);
    let pairs = metadata.iter().enumerate().filter(is_last).map(|(_, (name, value))| (name, value));
    // Writing strings into memory cannot fail.
    serde_json::Serializer::new(&mut json).collect_map(pairs).ok();
    json
}

/// Matches replies with messages, in order.
struct Tally {
    topics: Vec<String>,
    /// What is `Ok` from `next` on is not answered yet.
    results: Results,
    next: usize,
    replicas: u32,
}

impl Tally {
    /// Whether no more answers will come.
    fn take(&mut self, answer: Answer<'_>) -> bool {
        match answer {
            Answer::Reply(reply) => {
                match self.unanswered() {
                    Some(index) => {
                        let error = reply.error().map(|error| of_error(error, &self.topics[index]));
                        self.results[index] = error.map_or(Ok(()), Err);
                        self.next = index + 1;
                    }
                    None => self.take_wait(reply),
                }
                false
            }
            Answer::Lost(lost) => {
                let failure = lost.failure();
                // With replicas to wait for, nothing is confirmed before the last reply.
                if self.replicas > 0 {
                    self.next = 0;
                }
                while let Some(index) = self.unanswered() {
                    self.results[index] = Err(failure.clone());
                    self.next = index + 1;
                }
                true
            }
        }
    }

    fn unanswered(&self) -> Option<usize> {
        (self.next..self.results.len()).find(|index| self.results[*index].is_ok())
    }

    fn take_wait(&mut self, reply: Reply<'_>) {
        let reached = reply.integer().unwrap_or(0);
        if reached >= i64::from(self.replicas) {
            return;
        }
        let what =
            reply.error().map_or_else(|| format!("{reached} of {} replicas have it", self.replicas), str::to_owned);
        let failure = Failure::Unknown(format!("stored by Redis, but metadata publishWaitReplicas is not met: {what}"));
        for result in self.results.iter_mut().filter(|result| result.is_ok()) {
            *result = Err(failure.clone());
        }
    }
}

#[cfg(test)]
mod tests;
