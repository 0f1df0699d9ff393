//! Taking over what was delivered before and not acknowledged: by this consumer in an earlier life, by a consumer that
//! died, or by us with a retry.
//!
//! `XPENDING` tells what there is and how often it was delivered, `XCLAIM` takes it over unless somebody was faster.
//! (`XAUTOCLAIM` does both at once, but does not tell the counts.)

use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::{Failure, Message};

use crate::commands::{self, Pending};
use crate::entries::{self, Unacked};
use crate::failure::sound;
use crate::hub::{Hub, PATIENCE};
use crate::protocol::{EntryId, Reply};
use crate::subscription::Sub;

/// Entries asked for at once.
const PAGE: usize = 256;

/// An entry to take over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) id: EntryId,
    /// How often it was delivered.
    pub(crate) count: u32,
    /// Its token in the ledger, where it waits for this.
    pub(crate) waiting: Option<u64>,
}

/// Takes over what is pending for this consumer, as far as there is credit.
///
/// # Errors
/// What the broker says.
pub(crate) async fn recover(hub: &Hub, sub: &Sub) -> Result<(), Failure> {
    let epoch = sub.epoch.get();
    while let Some(from) = sub.recover.get().filter(|_| sub.is_open()) {
        let next = page(hub, sub, Pending::Own, Duration::ZERO, from).await?;
        // Begun anew meanwhile.
        if sub.epoch.get() != epoch {
            return Ok(());
        }
        sub.recover.set(next);
    }
    Ok(())
}

/// Claims what any consumer has left alone for as long as a lease, as far as there is credit.
///
/// # Errors
/// What the broker says.
pub(crate) async fn claim(hub: &Hub, sub: &Sub, lease: Duration) -> Result<(), Failure> {
    let mut from = Some(EntryId::default());
    while let Some(at) = from.filter(|_| sub.is_open()) {
        let whose = if hub.is_old.get() { Pending::Any } else { Pending::Idle(lease) };
        from = match page(hub, sub, whose, lease, at).await {
            // The server is older than Redis 6.2: all that is pending must be looked at.
            Err(Failure::Permanent(text)) if text.contains("syntax") && !hub.is_old.replace(true) => Some(at),
            other => other?,
        };
    }
    Ok(())
}

/// Takes over one page, and tells where to go on.
async fn page(hub: &Hub, sub: &Sub, whose: Pending, idle: Duration, from: EntryId) -> Result<Option<EntryId>, Failure> {
    let mut bytes = Vec::new();
    commands::pending(&mut bytes, sub.place(), whose, from, PAGE);
    let topic = sub.topic.clone();
    let listed = hub.pipe.call(bytes, PATIENCE, move |reply| sound(reply, &topic).map(entries::unacked)).await;
    let listed: Vec<Unacked> = listed.map_err(|lost| lost.failure())??;
    let want = sub.want();
    let wanted: Vec<Wanted> = {
        let ledger = sub.ledger.borrow();
        let left = listed.iter().filter(|entry| entry.idle >= idle && !ledger.holds(entry.id));
        left.take(want).map(|entry| Wanted { id: entry.id, count: entry.count, waiting: None }).collect()
    };
    take(hub, sub, &wanted, idle).await?;
    Ok(match (wanted.last(), listed.last()) {
        // More of this page may be wanted when there is credit again.
        (Some(last), _) if wanted.len() == want => Some(last.id.next()),
        // All credit went to others while the page was on its way.
        (None, Some(_)) if want == 0 => Some(from),
        (_, Some(last)) if listed.len() == PAGE => Some(last.id.next()),
        _ => None,
    })
}

/// Takes entries over, and hands them to the host. What is not there any more is let go; if it was deleted from the
/// stream, the host is told.
///
/// # Errors
/// What the broker says; some may have been handed over.
pub(crate) async fn take(hub: &Hub, sub: &Sub, wanted: &[Wanted], idle: Duration) -> Result<(), Failure> {
    let mut rest = wanted;
    let mut gone = Vec::new();
    while !rest.is_empty() {
        let (some, others) = rest.split_at(rest.len().min(sub.batch()));
        rest = others;
        let epoch = sub.epoch.get();
        let taken = take_some(hub, sub, some, idle).await?;
        if sub.epoch.get() != epoch && some.iter().any(|wanted| wanted.waiting.is_none()) {
            return Ok(());
        }
        let mut taken = taken.into_iter().peekable();
        for wanted in some {
            match taken.next_if(|taken| taken.id == wanted.id) {
                Some(taken) => hand(hub, sub, wanted, taken),
                None => gone.push(*wanted),
            }
        }
    }
    if gone.is_empty() { Ok(()) } else { let_go(hub, sub, &gone).await }
}

/// An entry that is ours now.
struct Taken {
    id: EntryId,
    text: String,
    message: Message,
}

async fn take_some(hub: &Hub, sub: &Sub, wanted: &[Wanted], idle: Duration) -> Result<Vec<Taken>, Failure> {
    let ids: Vec<EntryId> = wanted.iter().map(|wanted| wanted.id).collect();
    let mut bytes = Vec::new();
    commands::take_over(&mut bytes, sub.place(), idle, &ids);
    let topic = sub.topic.clone();
    let read = move |reply: Reply<'_>| {
        let mut largest = 0;
        let taken = entries::entries(sound(reply, &topic)?).filter(|entry| !entry.is_deleted()).map(|entry| {
            largest = largest.max(entry.size());
            Taken { id: entry.id, text: entry.text.to_owned(), message: entry.message(&topic) }
        });
        let taken: Vec<Taken> = taken.collect();
        Ok((taken, largest))
    };
    let (taken, largest) = hub.pipe.call(bytes, PATIENCE, read).await.map_err(|lost| lost.failure())??;
    if !taken.is_empty() {
        sub.learn(largest);
    }
    Ok(taken)
}

fn hand(hub: &Hub, sub: &Sub, wanted: &Wanted, taken: Taken) {
    let is_new = {
        let mut ledger = sub.ledger.borrow_mut();
        match wanted.waiting {
            Some(token) => ledger.close(token).is_some(),
            None => !ledger.holds(wanted.id),
        }
    };
    if is_new {
        sub.hand_message(hub, taken.id, taken.text, taken.message, wanted.count.saturating_add(1));
    }
}

/// Forgets entries that could not be taken over. Either somebody was faster, or they were deleted.
async fn let_go(hub: &Hub, sub: &Sub, gone: &[Wanted]) -> Result<(), Failure> {
    let lookups = gone.iter().map(|wanted| async {
        let mut bytes = Vec::new();
        commands::look_up(&mut bytes, &sub.topic, wanted.id);
        let answered =
            hub.pipe.call(bytes, PATIENCE, |reply| reply.items().is_some_and(|mut items| items.next().is_none()));
        answered.await.unwrap_or(false).then_some(wanted.id)
    });
    let deleted: Vec<EntryId> = futures::future::join_all(lookups).await.into_iter().flatten().collect();
    for token in gone.iter().filter_map(|wanted| wanted.waiting) {
        sub.ledger.borrow_mut().close(token);
    }
    sub.reader.wake_for(sub);
    if deleted.is_empty() {
        return Ok(());
    }
    hub.health.data_loss(format!(
        "{} messages of {:?} were deleted from the stream before group {:?} had acknowledged them",
        deleted.len(),
        sub.topic,
        sub.reader.group
    ));
    let mut bytes = Vec::new();
    commands::ack(&mut bytes, sub.place(), &deleted);
    let topic = sub.topic.clone();
    let acked = hub.pipe.call(bytes, PATIENCE, move |reply| sound(reply, &topic).map(|_| ())).await;
    acked.unwrap_or_else(|lost| Err(lost.failure()))
}

/// Creates the groups of subscriptions where they are missing: somebody deleted the stream or the group. They begin at
/// the oldest entry, for what was acknowledged is not known any more. A subscription that cannot be saved is ended.
pub(crate) async fn restore_groups(hub: &Hub, subs: &[Rc<Sub>]) {
    let restored = subs.iter().map(|sub| async move {
        let (stream, group) = (&sub.topic, &sub.reader.group);
        match create_group(hub, stream, group, commands::Start::Earliest).await {
            Ok(false) => {}
            Ok(true) => {
                // What was pending went with the group, too.
                sub.recover_anew();
                hub.health.data_loss(format!(
                    "the stream {stream:?} or its group {group:?} was deleted; it begins again at the oldest message there is"
                ));
            }
            Err(failure @ (Failure::Permanent(_) | Failure::Unauthorized(_) | Failure::Invalid(_))) => {
                sub.fail(failure);
                hub.remove(sub);
            }
            // The next read will tell again.
            Err(_) => {}
        }
    });
    futures::future::join_all(restored).await;
}

/// Creates a group, and the stream if need be. Whether it was not there.
///
/// # Errors
/// What the broker says.
pub(crate) async fn create_group(
    hub: &Hub,
    stream: &str,
    group: &str,
    start: commands::Start,
) -> Result<bool, Failure> {
    let mut bytes = Vec::new();
    commands::create_group(&mut bytes, stream, group, start);
    let topic = stream.to_owned();
    let created = hub.pipe.call(bytes, PATIENCE, move |reply| match reply.error() {
        Some(error) if error.starts_with("BUSYGROUP") => Ok(false),
        _ => sound(reply, &topic).map(|_| true),
    });
    created.await.unwrap_or_else(|lost| Err(lost.failure()))
}
