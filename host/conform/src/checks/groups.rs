//! Groups: their members share the messages, and every group gets all of them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{deposit, read, subscribe};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{ARRIVE_WAIT, Inbox, Payload, Rig, number};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "B4",
        title: "two instances of one group share the messages",
        expects: "of 1000 messages each goes to one of two instances, and each of those gets at least a tenth",
        cause: "a name that both instances use where the broker wants one for each, or a fetch that takes everything ahead",
        read: read::SUBSCRIBING,
        needs: &[Need::Shared, Need::Groups, Need::Queue],
        bound: None,
        run: |rig| Box::pin(share(rig)),
    },
    Check {
        id: "B5",
        title: "every group gets every message",
        expects: "two groups on one topic each get all of 50 messages",
        cause: "a queue or a cursor that is named after the topic alone",
        read: read::SUBSCRIBING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(each(rig)),
    },
];

const MESSAGES: usize = 1000;

/// Messages in one publish call.
const LIST: usize = 50;

/// Unsettled messages of a member.
const CREDIT: u32 = 10;

/// How long a member waits for more before it is done.
const QUIET: Duration = Duration::from_secs(2);

/// What a member gets, by id, with its number; each is acknowledged.
async fn member(mut inbox: Inbox) -> Result<HashMap<String, usize>, Wrong> {
    let mut got = HashMap::new();
    let first = Instant::now() + ARRIVE_WAIT;
    let mut next = inbox.next_until(first).await;
    while let Some(arrived) = next {
        inbox.ack(&arrived).await?;
        got.insert(arrived.id.clone(), number(&arrived)?);
        next = inbox.next(QUIET).await;
    }
    Ok(got)
}

async fn share(rig: &Rig) -> Tested {
    let (topic, group) = (rig.topic("t").await?, rig.group("g"));
    let (one, two) = tokio::try_join!(rig.instance("one"), rig.instance("two"))?;
    let inboxes = (subscribe(&one, &topic, &group, CREDIT).await?, subscribe(&two, &topic, &group, CREDIT).await?);
    let publishing = async {
        for begin in (0..MESSAGES).step_by(LIST) {
            // Keys spread them where the broker goes by keys.
            let keyed = Payload::numbered(begin..begin + LIST).into_iter().enumerate();
            let keyed = keyed.map(|(index, payload)| payload.keyed(&format!("key-{}", begin + index)));
            deposit(&one, &topic, keyed.collect()).await?;
        }
        Ok(())
    };
    let ((), first, second) = tokio::try_join!(publishing, member(inboxes.0), member(inboxes.1))?;
    let both = first.keys().filter(|id| second.contains_key(*id)).count();
    if both > 0 {
        return Err(Wrong::new(format!("{both} of {MESSAGES} messages went to both members of the group")));
    }
    let came: HashSet<usize> = first.values().chain(second.values()).copied().collect();
    let missing = MESSAGES - came.len();
    if missing > 0 {
        return Err(Wrong::of("D6", format!("{missing} of {MESSAGES} messages went to neither member of the group")));
    }
    if first.len().min(second.len()) * 10 < MESSAGES {
        return Err(Wrong::new(format!("the members got {} and {} of {MESSAGES} messages", first.len(), second.len())));
    }
    Ok(Finding::Passed)
}

async fn each(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut one = subscribe(&instance, &topic, &rig.group("one"), CREDIT).await?;
    let mut two = subscribe(&instance, &topic, &rig.group("two"), CREDIT).await?;
    let publishing = deposit(&instance, &topic, Payload::numbered(0..LIST));
    let (published, first, second) =
        tokio::join!(publishing, one.ack_numbers(0..LIST, ARRIVE_WAIT), two.ack_numbers(0..LIST, ARRIVE_WAIT));
    published?;
    match (first, second) {
        (Ok(_), Ok(_)) => Ok(Finding::Passed),
        (Err(wrong), _) | (_, Err(wrong)) => Err(Wrong::new(format!("one of two groups: {wrong}"))),
    }
}
