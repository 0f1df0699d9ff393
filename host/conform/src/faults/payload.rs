//! Bytes of every kind and size, up to the limit and one beyond.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use whimbrel_pubsub::BrokerError;

use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{Inbox, Instance, Payload, Rig};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A limit beyond this is not tried: the messages would take longer than they tell.
const LIMIT_TRIED_MAX: u64 = 64 << 20;

/// How long one message may take, there and back.
const MESSAGE_WAIT: Duration = Duration::from_secs(30);

/// JSON whose numbers do not fit into a double.
const NUMBERS: &[u8] = br#"{"u64":18446744073709551615,"i64":-9223372036854775808,"f":0.1,"e":1e400}"#;

/// No UTF-8: a lone continuation, an overlong form, a surrogate, a cut sequence, NUL.
const NO_TEXT: &[u8] = b"\x80\xc0\xaf\xed\xa0\x80\xf0\x9f\x92\0\xff\xfe\r\n\0";

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S13",
    title: "carries every payload, and refuses what is too large",
    expects: "payloads of any bytes, empty ones, and sizes around 64 KiB, 1 MiB and the limit come back as they were; one byte \
              beyond the limit is `invalid` or `permanent` (or carried whole), and the connection goes on",
    cause: "text where bytes are meant, a length that overflows, or a limit that only the broker enforces by closing the \
            connection",
    read: "wit/README.md, \"What the failures mean\"",
    needs: &[Need::Queue],
    bound: Some(Duration::from_secs(300)),
    run: |rig| Box::pin(payloads(rig)),
}];

async fn payloads(rig: &Rig) -> Tested {
    let topic = rig.topic("bytes").await?;
    let instance = rig.instance("one").await?;
    let inbox = instance.subscribe(&topic, &rig.group("bytes"), 10).await;
    let mut inbox = inbox.map_err(|error| Wrong::of("D3", format!("subscribing to {topic} failed: {error}")))?;
    let limit = rig.profile().message_bytes_max(&rig.features());
    let fits = |data: &Bytes| limit.is_none_or(|limit| data.len() as u64 <= limit);
    let mut last = Bytes::new();
    for data in kinds().into_iter().chain(sizes(limit)).filter(fits) {
        there_and_back(&instance, &topic, &mut inbox, &data, &last).await?;
        last = data;
    }
    if let Some(limit) = limit.filter(|limit| *limit <= LIMIT_TRIED_MAX) {
        let beyond = filled(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1));
        too_large(&instance, &topic, &mut inbox, beyond, &last).await?;
    }
    there_and_back(&instance, &topic, &mut inbox, &Bytes::from_static(b"still here"), &last).await?;
    Ok(Finding::Passed)
}

fn kinds() -> Vec<Bytes> {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    vec![Bytes::new(), Bytes::from_static(b"\0"), all.into(), Bytes::from_static(NO_TEXT), Bytes::from_static(NUMBERS)]
}

fn sizes(limit: Option<u64>) -> Vec<Bytes> {
    let mut sizes = vec![64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB, MIB + 1];
    sizes.extend(limit.filter(|limit| *limit <= LIMIT_TRIED_MAX).and_then(|limit| usize::try_from(limit).ok()));
    sizes.into_iter().map(filled).collect()
}

/// Bytes that no shift or cut leaves as they were.
fn filled(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(length as u64).fill(&mut bytes);
    bytes.into()
}

async fn there_and_back(
    instance: &Instance,
    topic: &str,
    inbox: &mut Inbox,
    data: &Bytes,
    last: &Bytes,
) -> Result<(), Wrong> {
    let answers = instance.publish_within(topic, vec![Payload::of(data.clone())], MESSAGE_WAIT).await;
    if let Some(error) = answers.into_iter().find_map(Result::err) {
        return Err(Wrong::new(format!("a message of {} was refused: {error}", told(data))));
    }
    comes_back(inbox, data, last).await
}

async fn comes_back(inbox: &mut Inbox, data: &Bytes, last: &Bytes) -> Result<(), Wrong> {
    let until = Instant::now() + MESSAGE_WAIT;
    while let Some(arrived) = inbox.next_until(until).await {
        inbox.ack(&arrived).await?;
        match &arrived.message.data {
            same if same == data => return Ok(()),
            // The one before once more, which is no matter of bytes.
            same if same == last => {}
            other => {
                let at =
                    other.iter().zip(data).position(|(came, went)| came != went).unwrap_or(other.len().min(data.len()));
                let what = format!(
                    "a message of {} came back with {} bytes, the first change at byte {at}",
                    told(data),
                    other.len()
                );
                return Err(Wrong::of("C4", what));
            }
        }
    }
    Err(Wrong::new(format!("a message of {} did not arrive within {} s", told(data), MESSAGE_WAIT.as_secs())))
}

/// One byte beyond the limit.
async fn too_large(
    instance: &Instance,
    topic: &str,
    inbox: &mut Inbox,
    data: Bytes,
    last: &Bytes,
) -> Result<(), Wrong> {
    let answers = instance.publish_within(topic, vec![Payload::of(data.clone())], MESSAGE_WAIT).await;
    match answers.into_iter().next() {
        // Confirmed and not stored is no matter of sizes.
        Some(Ok(())) => comes_back(inbox, &data, last).await.map_err(|wrong| wrong.or_of("S4")),
        Some(Err(BrokerError::Invalid(_) | BrokerError::Permanent(_))) => Ok(()),
        Some(Err(error)) => Err(Wrong::new(format!(
            "a message of {} is beyond the limit, so trying again is in vain, but it was answered: {error} ({error:?})",
            told(&data)
        ))),
        None => Err(Wrong::of("D9", "a publish was answered with no result")),
    }
}

fn told(data: &Bytes) -> String {
    let start: Vec<u8> = data.iter().copied().take(8).collect();
    format!("{} bytes ({start:02x?} ...)", data.len())
}
