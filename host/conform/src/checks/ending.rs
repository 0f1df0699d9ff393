//! Ending: pause, stop, close; and what was not settled stays with the broker.

use std::time::Duration;

use super::{LEASE_SPARE, deposit, exchange, hold, read, subscribe};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{ARRIVE_WAIT, Payload, Rig, number};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "D11",
        title: "subscriptions come and go",
        expects: "three times two topics are subscribed; after one has stopped, the other still gets everything",
        cause: "a stop that ends what it shares with others, or leaves something behind that takes messages",
        read: read::ENDING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(rounds(rig)),
    },
    Check {
        id: "D12",
        title: "closes",
        expects: "`close` returns within the profile's `drain` and 2 s more when everything is settled",
        cause: "a task that is waited for and never told to end",
        read: read::ENDING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(closes(rig)),
    },
    Check {
        id: "B9",
        title: "a stopped subscription is over, and keeps nothing",
        expects: "`stop` returns within 5 s and the stream ends; what was not settled goes to the next subscription of the group",
        cause: "deliveries acknowledged early, a stop that acknowledges or rejects what is in hand, a stream that nobody ends",
        read: read::ENDING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(stops(rig)),
    },
    Check {
        id: "B14",
        title: "pauses, and resumes",
        expects: "what is published after `pause` has returned is not delivered for 2 s, and within 1 s after `resume`",
        cause: "a fetch that was on its way when `pause` returned, or a resume that nobody hears",
        read: read::ENDING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(pauses(rig)),
    },
    Check {
        id: "B15",
        title: "closes with messages in hand, and loses none",
        expects: "`close` with 100 unsettled messages returns within the profile's `drain` and 2 s more, and all 100 come to the next instance",
        cause: "a close that waits for settlements, or acknowledges or rejects what is in hand",
        read: read::ENDING,
        needs: &[Need::Shared, Need::Queue],
        bound: None,
        run: |rig| Box::pin(closes_full(rig)),
    },
];

/// How long closing may take besides the profile's `drain`.
const CLOSE_SPARE: Duration = Duration::from_secs(2);

/// How long the stream may take to end after `stop` has returned.
const END_WAIT: Duration = Duration::from_secs(1);

/// How long nothing may come after `pause` has returned.
const PAUSE: Duration = Duration::from_secs(2);

/// How long the first message may take after `resume`.
const RESUME_WAIT: Duration = Duration::from_secs(1);

async fn rounds(rig: &Rig) -> Tested {
    let (instance, group) = (rig.instance("one").await?, rig.group("g"));
    let (one, two) = (rig.topic("one").await?, rig.topic("two").await?);
    for round in 0..3 {
        let begin = round * 10;
        let mut first = subscribe(&instance, &one, &group, 10).await?;
        let mut second = subscribe(&instance, &two, &group, 10).await?;
        exchange(&instance, &one, &mut first, begin..begin + 5).await?;
        exchange(&instance, &two, &mut second, begin..begin + 5).await?;
        first.stop().await?;
        let after = exchange(&instance, &two, &mut second, begin + 5..begin + 10).await;
        after.map_err(|wrong| Wrong::new(format!("round {}, after the other had stopped: {wrong}", round + 1)))?;
        second.stop().await?;
    }
    Ok(Finding::Passed)
}

async fn closes(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    exchange(&instance, &topic, &mut inbox, 0..5).await?;
    in_time(rig, instance.close().await)?;
    Ok(Finding::Passed)
}

fn in_time(rig: &Rig, took: Duration) -> Result<(), Wrong> {
    let bound = rig.profile().conformance.drain + CLOSE_SPARE;
    if took <= bound {
        return Ok(());
    }
    Err(Wrong::new(format!("`close` took {:.1} s, at most {} s are allowed", took.as_secs_f64(), bound.as_secs())))
}

async fn stops(rig: &Rig) -> Tested {
    let (instance, topic, group) = (rig.instance("one").await?, rig.topic("t").await?, rig.group("g"));
    let mut inbox = subscribe(&instance, &topic, &group, 10).await?;
    deposit(&instance, &topic, Payload::numbered(0..20)).await?;
    hold(&mut inbox, 10).await?;
    inbox.stop().await?;
    if !inbox.has_ended(END_WAIT).await {
        return Err(Wrong::new("the stream of deliveries had not ended 1 s after `stop` returned"));
    }
    let mut next = subscribe(&instance, &topic, &group, 20).await?;
    next.ack_numbers(0..20, rig.lease() + LEASE_SPARE + ARRIVE_WAIT).await.map_err(Wrong::own)?;
    Ok(Finding::Passed)
}

async fn pauses(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    exchange(&instance, &topic, &mut inbox, 0..5).await?;
    inbox.pause().await?;
    deposit(&instance, &topic, Payload::numbered(5..10)).await?;
    for arrived in inbox.watch(PAUSE).await {
        // Another copy of an old one is for another check to say.
        if number(&arrived)? >= 5 {
            return Err(Wrong::new("a message was delivered that was published after `pause` had returned"));
        }
    }
    inbox.resume().await?;
    let first = inbox.next(RESUME_WAIT).await;
    let first = first.ok_or_else(|| Wrong::new("nothing was delivered within 1 s after `resume` had returned"))?;
    inbox.ack(&first).await?;
    let first = number(&first)?;
    inbox.ack_numbers((5..10).filter(|number| *number != first), ARRIVE_WAIT).await?;
    Ok(Finding::Passed)
}

async fn closes_full(rig: &Rig) -> Tested {
    let (instance, topic, group) = (rig.instance("one").await?, rig.topic("t").await?, rig.group("g"));
    let mut inbox = subscribe(&instance, &topic, &group, 200).await?;
    for begin in (0..100).step_by(50) {
        deposit(&instance, &topic, Payload::numbered(begin..begin + 50)).await?;
    }
    hold(&mut inbox, 100).await?;
    let took = instance.close().await;
    drop(inbox);
    let next = rig.instance("two").await?;
    let mut inbox = subscribe(&next, &topic, &group, 200).await?;
    let back = inbox.ack_numbers(0..100, rig.lease() + LEASE_SPARE + ARRIVE_WAIT).await;
    back.map_err(|wrong| wrong.own().or_of("B9"))?;
    in_time(rig, took).map_err(|wrong| wrong.or_of("D12"))?;
    Ok(Finding::Passed)
}
