//! The network between adapter and broker breaks: connections cut at any byte and in any way, confirms lost.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use whimbrel_pubsub::BrokerError;

use super::behind::behind;
use super::load::{IN_FLIGHT_MIN, Load, MESSAGE_BYTES, RECOVER_WAIT};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::ledger::Sheet;
use crate::proxy::{Cut, Mode, Toward};
use crate::rig::{Instance, Proxies, Rig};
use crate::scale::scaled;
use crate::wait::{until, until_within};

/// Cuts at a random byte.
const CUTS: u64 = 10;

/// The farthest byte a cut falls on, from the moment it is asked for.
const CUT_WITHIN_BYTES: u64 = 12_000;

/// How long a black hole lasts at scale 1: longer than an impatient client waits.
const BLACK_HOLE: Duration = Duration::from_secs(4);

/// The longest black hole.
const BLACK_HOLE_MAX: Duration = Duration::from_secs(60);

/// Messages that get through between two faults.
const MESSAGES_BETWEEN: u64 = 40;

/// Publishes whose confirm is lost.
const LOST_CONFIRMS: u64 = 4;

/// Messages in each of them.
const LOST_MESSAGES: u64 = 5;

/// How long it may take until what was published is in the broker, its confirm held back.
const STORED_WAIT: Duration = Duration::from_secs(2);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "S3",
        title: "lives through cut, silent and half-open connections",
        expects: "connections are reset and closed at random bytes, go silent, and are left half-open: everything the \
                  broker has is delivered, within 30 s after each fault all goes on, and no connection is left behind",
        cause: "a reader that treats a cut inside of a frame as a frame, a missing heartbeat or read timeout (a silent \
                connection looks alive), or an old connection that is not closed when a new one is made",
        read: "wit/README.md, \"The connection to the broker\"",
        needs: &[Need::Proxy],
        bound: Some(Duration::from_secs(360)),
        run: |rig| Box::pin(cuts(rig)),
    },
    Check {
        id: "S4",
        title: "never answers success for a confirm that was lost",
        expects: "the broker stores a publish, its answers are thrown away and it is out of reach: the publish answers \
                  `unknown`, never success, and not `transient` (the message is stored); published again it has \
                  as many copies as it was tried, at most, and one where the profile says `dedup: true`",
        cause: "success answered when the request was written, or a cut that is mistaken for an answer",
        read: "wit/README.md, \"What the failures mean\"",
        needs: &[Need::Proxy],
        bound: Some(Duration::from_secs(180)),
        run: |rig| Box::pin(lost_confirms(rig)),
    },
];

async fn cuts(rig: &Rig) -> Tested {
    let load = Load::new(rig).await?;
    let proxies = rig.proxies().await?;
    let instance = behind(rig, &proxies).await?;
    let inbox = load.subscribe(&instance).await?;
    let mut before = 0;
    let account = load
        .run(&instance, vec![(&instance, inbox)], async {
            load.flows(MESSAGES_BETWEEN).await?;
            before = proxies.counts().open;
            let mut random = fastrand::Rng::with_seed(rig.seed());
            for n in 0..scaled(CUTS) {
                strike(&load, &proxies, random_cut(&mut random, n)).await?;
                load.recovers(&instance).await?;
                load.flows(MESSAGES_BETWEEN).await?;
            }
            for n in 0..scaled(1) {
                fall_silent(&load, &proxies, n).await?;
                load.recovers(&instance).await?;
                load.strikes("half-open").await;
                proxies.cut_all(Cut::Strand);
                load.recovers(&instance).await?;
            }
            Ok(())
        })
        .await?;
    let left = until_within(RECOVER_WAIT, "", async || (proxies.counts().open <= before).then_some(())).await;
    let open = proxies.counts().open;
    instance.kill().await;
    account.judge()?;
    if left.is_err() || open == 0 {
        let what = format!("{open} connections are open after the cuts, {before} were before them; {account}");
        return Err(Wrong::new(what));
    }
    Ok(account.too_weak(1, IN_FLIGHT_MIN).map_or(Finding::Passed, Finding::Failed))
}

fn random_cut(random: &mut fastrand::Rng, n: u64) -> Mode {
    // Both ways and both ends in turn, whatever the seed.
    let toward = if n.is_multiple_of(2) { Toward::Server } else { Toward::Client };
    let how = if n % 4 < 2 { Cut::Reset } else { Cut::Close };
    Mode::CutAfter(toward, random.u64(1..CUT_WITHIN_BYTES), how)
}

async fn strike(load: &Load<'_>, proxies: &Proxies, mode: Mode) -> Result<(), Wrong> {
    let in_flight = load.ledger.in_flight();
    let struck = proxies.strike(mode).await.map_err(|error| Wrong::new(error.to_string()));
    load.ledger.fault_with(format!("{mode:?}"), in_flight.max(load.ledger.in_flight()));
    struck
}

async fn fall_silent(load: &Load<'_>, proxies: &Proxies, n: u64) -> Result<(), Wrong> {
    let silence = BLACK_HOLE.mul_f64(1.0 + n as f64).min(BLACK_HOLE_MAX);
    load.strikes(format!("black hole of {silence:?}")).await;
    proxies.set(Mode::BlackHole);
    sleep_until(Instant::now() + silence).await;
    proxies.set(Mode::Pass);
    Ok(())
}

async fn lost_confirms(rig: &Rig) -> Tested {
    let dedup = rig.profile().conformance.dedup;
    let load = Load::new(rig).await?;
    let load = if dedup { load.of_events() } else { load };
    let proxies = rig.proxies().await?;
    let instance = behind(rig, &proxies).await?;
    let reader = !rig.profile().conformance.read.is_empty();
    load.fill(&instance, LOST_MESSAGES).await?;
    let mut lost = 0;
    for _ in 0..scaled(LOST_CONFIRMS) {
        let sheets: Vec<_> = (0..LOST_MESSAGES).map(|_| load.ledger.write("", MESSAGE_BYTES)).collect();
        lost += lose_confirm(&load, &instance, &proxies, &sheets).await?;
        publish_again(&load, &instance, &sheets).await?;
    }
    instance.kill().await;
    if reader && lost == 0 {
        let what = "the broker stored none of the messages whose confirm was held back: the fault has struck nothing";
        return Err(Wrong::new(what));
    }
    let account = load.account().await?;
    if let Some(n) = load.too_many_copies().await? {
        let what = format!("the broker has more copies of message {n} than publishes were tried; {account}");
        return Err(Wrong::new(what));
    }
    account.judge_store()?;
    if let (true, [n, ..]) = (dedup, account.stored_twice.as_slice()) {
        let what = format!("the broker has more than one copy of message {n}, which the profile (dedup) rules out");
        return Err(Wrong::new(what).and(&account));
    }
    Ok(Finding::Passed)
}

/// Publishes with every answer thrown away, cuts once the messages are stored and lets nobody connect, and judges what the
/// publisher is told. How many were stored.
async fn lose_confirm(load: &Load<'_>, instance: &Instance, proxies: &Proxies, sheets: &[Sheet]) -> Result<u64, Wrong> {
    let requests = proxies.counts().requests;
    proxies.set(Mode::Mute);
    let cutting = async {
        let stored = stored(load, proxies, requests, sheets).await;
        load.ledger.fault("confirm lost");
        // Until the publisher has its answer: who numbers its messages may ask again over a new connection, and be told in
        // truth that they are stored.
        proxies.set(Mode::Refuse);
        stored
    };
    let (stored, answers) = tokio::join!(cutting, load.publish_once(instance, sheets));
    proxies.set(Mode::Pass);
    let stored = stored?;
    let of = |sheet: &Sheet| stored.as_ref().map(|stored| stored.contains(&sheet.n));
    for (sheet, answer) in sheets.iter().zip(answers) {
        let what = match (answer, of(sheet)) {
            (Ok(()), _) => "was answered with success",
            (Err(BrokerError::Transient(_)), Some(true)) => "was answered `transient` (not stored), and is stored",
            _ => continue,
        };
        let n = sheet.n;
        return Err(Wrong::new(format!(
            "message {n} of run {} {what}, although no answer of the broker got through: {}",
            load.ledger.run(),
            load.account().await?
        )));
    }
    Ok(stored.map_or(0, |stored| stored.len() as u64))
}

/// The numbers of those that are in the broker, once all are or the time is over; none where nobody can read it.
async fn stored(
    load: &Load<'_>,
    proxies: &Proxies,
    requests: u64,
    sheets: &[Sheet],
) -> Result<Option<Vec<u64>>, Wrong> {
    if load.rig.profile().conformance.read.is_empty() {
        until("the publish to be sent", async || (proxies.counts().requests > requests).then_some(())).await?;
        return Ok(None);
    }
    let give_up = Instant::now() + STORED_WAIT;
    loop {
        let copies = load.ledger.copies(&load.rig.stored(&load.topic).await?);
        let there: Vec<_> = sheets.iter().map(|sheet| sheet.n).filter(|n| copies.contains_key(n)).collect();
        if there.len() == sheets.len() || Instant::now() > give_up {
            return Ok(Some(there));
        }
    }
}

/// As every caller does after an answer that leaves it open.
async fn publish_again(load: &Load<'_>, instance: &Instance, sheets: &[Sheet]) -> Result<(), Wrong> {
    let mut last = String::new();
    let mut left = sheets.to_vec();
    let again = until_within(RECOVER_WAIT, "", async || {
        let answers = load.publish_once(instance, &left).await;
        last = format!("{answers:?}");
        left = left.drain(..).zip(answers).filter(|(_, answer)| answer.is_err()).map(|(sheet, _)| sheet).collect();
        left.is_empty().then_some(())
    });
    let late = again.await.is_err();
    let what = || format!("{} s after a cut a publish finds no success: {last}", RECOVER_WAIT.as_secs());
    if late { Err(Wrong::of("S3", what())) } else { Ok(()) }
}
