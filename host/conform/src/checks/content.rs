//! What arrives is what was published: bytes, metadata, lifetimes.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use whimbrel_pubsub::{Arrived, Metadata};

use super::{deposit, read, subscribe};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{ARRIVE_WAIT, Inbox, Instance, Payload, Rig, number};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "B6",
        title: "metadata comes back",
        expects: "ten pairs, one with 4 KiB, one with UTF-8, one empty, names in mixed case, arrive as they were published",
        cause: "a protocol whose header names have no case, a value cut at a limit, or metadata that is not stored at all",
        read: read::MESSAGE,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(metadata(rig)),
    },
    Check {
        id: "B7",
        title: "the content type comes back",
        expects: "the pair `content-type` arrives as it was published",
        cause: "a property of the protocol that takes the pair in and is not given back under its name",
        read: read::MESSAGE,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(content_type(rig)),
    },
    Check {
        id: "C4",
        title: "bytes come back as they are",
        expects: "no byte, one, all 256 values, invalid UTF-8, around 64 KiB and 1 MiB arrive as they were published",
        cause: "data that was taken for text, or a length that counts something else than bytes",
        read: read::MESSAGE,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(bytes(rig)),
    },
    Check {
        id: "C11",
        title: "what has expired is not delivered",
        expects: "of two messages that wait, the one whose `ttlInSeconds` has passed is not delivered, the other is",
        cause: "`ttl` declared, and the pair not handed to the broker",
        read: "wit/broker.wit, flags feature",
        needs: &[Need::Ttl, Need::Queue],
        bound: None,
        run: |rig| Box::pin(expires(rig)),
    },
];

/// Sizes around which encodings change, bytes.
const SIZES: [usize; 6] = [(1 << 16) - 1, 1 << 16, (1 << 16) + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1];

/// What metadata and the protocol may add to a message, bytes.
const OVERHEAD_BYTES_MAX: usize = 4096;

/// How long the short-lived message lives.
const LIFETIME: Duration = Duration::from_secs(1);

/// One message there and back.
async fn echo(instance: &Instance, topic: &str, inbox: &mut Inbox, payload: Payload) -> Result<Arrived, Wrong> {
    let mut seen = HashSet::new();
    echo_unlike(instance, topic, inbox, payload, &mut seen).await
}

/// The same, and what was seen before is passed over.
async fn echo_unlike(
    instance: &Instance,
    topic: &str,
    inbox: &mut Inbox,
    payload: Payload,
    seen: &mut HashSet<String>,
) -> Result<Arrived, Wrong> {
    let taking = async {
        let until = Instant::now() + ARRIVE_WAIT;
        while let Some(arrived) = inbox.next_until(until).await {
            inbox.ack(&arrived).await?;
            if seen.insert(arrived.id.clone()) {
                return Ok(arrived);
            }
        }
        Err(Wrong::of("D6", "a message did not arrive"))
    };
    let ((), arrived) = tokio::try_join!(deposit(instance, topic, vec![payload]), taking)?;
    Ok(arrived)
}

async fn metadata(rig: &Rig) -> Tested {
    let long = "v".repeat(4096);
    let pairs: [(&str, &str); 10] = [
        ("plain", "value"),
        ("X-Mixed-Case", "Value"),
        ("long", &long),
        ("utf8", "šířka ≠ délka, 鳥"),
        ("empty", ""),
        ("number", "0042"),
        ("json", r#"{"a": [1, "2"]}"#),
        ("with.dots_and-dashes", "x"),
        ("spaces", "a  b"),
        ("percent", "100%"),
    ];
    arrive(rig, &pairs).await
}

async fn content_type(rig: &Rig) -> Tested {
    arrive(rig, &[("content-type", "application/vnd.example+json; charset=utf-8")]).await
}

/// Each of the pairs arrives; what the broker adds does not matter.
async fn arrive(rig: &Rig, pairs: &[(&str, &str)]) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    let payload = pairs.iter().fold(Payload::of("x"), |payload, (name, value)| payload.with(name, value));
    let arrived = echo(&instance, &topic, &mut inbox, payload).await?;
    for (name, value) in pairs {
        let found = last(&arrived.message.metadata, name);
        if found != Some(value) {
            let found = found.map_or("nothing".to_owned(), |found| format!("{} bytes", found.len()));
            return Err(Wrong::new(format!("{name:?} had {} bytes, and came back as {found}", value.len())));
        }
    }
    Ok(Finding::Passed)
}

/// The last one of a name wins.
fn last<'a>(metadata: &'a Metadata, wanted: &str) -> Option<&'a str> {
    metadata.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

async fn bytes(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    let limit = rig.profile().message_bytes_max(&rig.features());
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let every: Vec<u8> = (0..=255).collect();
    let mut bodies = vec![
        Vec::new(),
        vec![0],
        every.clone(),
        vec![0xff, 0xfe, 0xc3, 0x28, 0x00],
        b"{\"n\": 9007199254740993}".to_vec(),
    ];
    let sizes = SIZES.iter().filter(|size| **size + OVERHEAD_BYTES_MAX <= limit);
    bodies.extend(sizes.map(|size| every.iter().copied().cycle().take(*size).collect()));
    let mut seen = HashSet::new();
    for body in bodies {
        let arrived = echo_unlike(&instance, &topic, &mut inbox, Payload::of(body.clone()), &mut seen).await?;
        let found = &arrived.message.data;
        if found[..] != body[..] {
            let differs =
                body.iter().zip(found).position(|(ours, theirs)| ours != theirs).unwrap_or(body.len().min(found.len()));
            let what = format!("{} bytes came back as {}; they differ from byte {differs} on", body.len(), found.len());
            return Err(Wrong::new(what));
        }
    }
    Ok(Finding::Passed)
}

async fn expires(rig: &Rig) -> Tested {
    let (instance, topic, group) = (rig.instance("one").await?, rig.topic("t").await?, rig.group("g"));
    let join = async || subscribe(&instance, &topic, &group, 10).await;
    // The group is there, and nobody of it is.
    join().await?.stop().await?;
    let mut payloads = Payload::numbered(0..2);
    let lifetimes = [LIFETIME.as_secs().to_string(), "60".to_owned()];
    for (payload, lifetime) in payloads.iter_mut().zip(lifetimes) {
        payload.metadata.push(("ttlInSeconds".to_owned(), lifetime));
    }
    deposit(&instance, &topic, payloads).await?;
    tokio::time::sleep(LIFETIME * 2 + LIFETIME / 2).await;
    let mut inbox = join().await?;
    let mut numbers = Vec::new();
    for arrived in inbox.take(1, ARRIVE_WAIT).await.into_iter().chain(inbox.watch(LIFETIME).await) {
        numbers.push(number(&arrived)?);
    }
    if numbers.contains(&0) {
        return Err(Wrong::new("a message was delivered whose lifetime had passed"));
    }
    if !numbers.contains(&1) {
        return Err(Wrong::new("a message was not delivered that had 58 s to live"));
    }
    Ok(Finding::Passed)
}
