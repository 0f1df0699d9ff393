//! What fails again and again costs little: a message that nobody can handle, and a broker that is away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use whimbrel_pubsub::Verdict;

use super::behind::behind;
use super::load::Load;
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::ledger::Seen;
use crate::proxy::Mode;
use crate::rig::{Instance, Proxies, Rig};
use crate::scale::{scaled, scaled_time};
use crate::wait::until_within;

/// Messages beside the poisonous ones.
const MESSAGES: u64 = 300;

/// One of so many messages is poisonous.
const POISON_EVERY: u64 = 100;

/// How often a poisonous message fails.
const FAILURES: u32 = 2;

/// How long its retry is to wait.
const RETRY_WAIT: Duration = Duration::from_millis(1500);

/// How far a gap between two deliveries may be from that, as a part of it.
const GAP_PART: f64 = 0.2;

/// What a busy machine may add to a gap.
const GAP_SPARE: Duration = Duration::from_millis(500);

/// How many times the time of a clean run the other messages may take, and what a busy machine may add.
const SLOWER_MAX: f64 = 2.0;
const SLOWER_SPARE: Duration = Duration::from_secs(1);

/// Requests a second that waiting may cost beyond what the idle connection costs.
const WAITING_REQUESTS_MAX: f64 = 20.0;

/// How long the idle connection is looked at.
const IDLE: Duration = Duration::from_secs(1);

/// How long the broker refuses connections.
const REFUSED: Duration = Duration::from_secs(3);

/// Connections a second that are tried for each that was open before. With a first wait of 100 ms that doubles there are far fewer.
const TRIES_PER_SECOND_MAX: f64 = 20.0;

/// The part of a processor that reconnecting may use.
const RECONNECTING_CPU_MAX: f64 = 0.5;

/// How long anything here may take that should not take long.
const BOUND: Duration = Duration::from_secs(30);

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S9",
    title: "does not run hot over poison or a broker that is away",
    expects: "a few messages fail again and again: the others take at most twice their usual time, each redelivery comes when \
              its wait is over (within 20 %), and waiting costs at most 20 requests a second; while the broker refuses \
              connections they are tried again with a growing wait",
    cause: "a retry that polls or goes back to the broker at once, or a reconnect without a wait",
    read: "wit/README.md, \"Settling\" and \"The connection to the broker\"",
    needs: &[Need::Proxy, Need::Queue],
    bound: Some(Duration::from_secs(180)),
    run: |rig| Box::pin(hot(rig)),
}];

/// When each poisonous message came.
type Arrivals = Arc<Mutex<HashMap<u64, Vec<Instant>>>>;

async fn hot(rig: &Rig) -> Tested {
    let proxies = rig.proxies().await?;
    let instance = behind(rig, &proxies).await?;
    let clean = run_clean(&Load::new(rig).await?, &instance).await?;
    let arrivals = Arrivals::default();
    let poison = Load::new(rig).await?.answering(verdicts(&arrivals));
    let (others, cost) = run_poisoned(&poison, &instance, &proxies, &arrivals).await?;
    let slowest = clean.mul_f64(SLOWER_MAX) + SLOWER_SPARE;
    if rig.features().delay && others > slowest {
        let what = format!("the other messages took {others:?} beside poison, {clean:?} without (at most {slowest:?})");
        return Err(Wrong::new(what).and(&poison.account().await?));
    }
    judge_gaps(&arrivals)?;
    cost.judge()?;
    refused(&instance, &proxies).await?;
    poison.fill_elsewhere(&instance).await?;
    instance.kill().await;
    Ok(Finding::Passed)
}

fn is_poison(n: u64) -> bool {
    n % POISON_EVERY == POISON_EVERY / 2
}

fn verdicts(arrivals: &Arrivals) -> impl Fn(&Seen) -> Verdict + Send + Sync + 'static {
    let arrivals = Arc::clone(arrivals);
    move |seen| {
        if !is_poison(seen.n) {
            return Verdict::Ack;
        }
        let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.entry(seen.n).or_default().push(Instant::now());
        if seen.count <= FAILURES { Verdict::Retry(RETRY_WAIT) } else { Verdict::Ack }
    }
}

/// How long the messages take when none is poisonous.
async fn run_clean(load: &Load<'_>, instance: &Instance) -> Result<Duration, Wrong> {
    let inbox = load.subscribe(instance).await?;
    let since = Instant::now();
    let working = async {
        let filled = load.fill(instance, scaled(MESSAGES)).await;
        load.rest().await;
        let took = since.elapsed();
        load.end().await;
        filled.map(|()| took)
    };
    let (took, ()) = tokio::join!(working, load.consume(instance, inbox));
    took
}

/// What the broker was asked while nothing happened, and while nothing but retries waited.
#[derive(Debug)]
struct Cost {
    idle: f64,
    waiting: f64,
}

impl Cost {
    fn judge(&self) -> Result<(), Wrong> {
        let Self { idle, waiting } = self;
        if *waiting <= idle + WAITING_REQUESTS_MAX {
            return Ok(());
        }
        Err(Wrong::new(format!(
            "while nothing but retries of {RETRY_WAIT:?} waited, the adapter made {waiting:.0} requests a second ({idle:.0} when idle; at most \
             {WAITING_REQUESTS_MAX} more are allowed)"
        )))
    }
}

/// How long the others took, and what waiting cost.
async fn run_poisoned(
    load: &Load<'_>,
    instance: &Instance,
    proxies: &Proxies,
    arrivals: &Arrivals,
) -> Result<(Duration, Cost), Wrong> {
    let inbox = load.subscribe(instance).await?;
    let idle = requests_per_second(proxies, IDLE).await;
    let others = scaled(MESSAGES) - (0..scaled(MESSAGES)).filter(|n| is_poison(*n)).count() as u64;
    let since = Instant::now();
    let working = async {
        load.fill(instance, scaled(MESSAGES)).await?;
        let done = until_within(BOUND, "", async || (load.ledger.acked_count() >= others).then_some(())).await;
        let took = since.elapsed();
        let counting = arrivals.lock().unwrap_or_else(PoisonError::into_inner).len();
        // A part of one wait: nothing is due yet in the first half, and nothing is published any more.
        let waiting = requests_per_second(proxies, RETRY_WAIT / 2).await;
        match done {
            Ok(()) => Ok((took, Cost { idle, waiting })),
            Err(_) => {
                let (acked, bound) = (load.ledger.acked_count(), BOUND.as_secs());
                Err(Wrong::new(format!(
                    "{acked} of {others} messages were acknowledged within {bound} s beside {counting} that fail again and again"
                )))
            }
        }
    };
    let working = async {
        let worked = working.await;
        load.end().await;
        worked
    };
    let (worked, ()) = tokio::join!(working, load.consume(instance, inbox));
    let worked = worked?;
    load.account().await?.judge()?;
    Ok(worked)
}

async fn requests_per_second(proxies: &Proxies, window: Duration) -> f64 {
    let before = proxies.counts().requests;
    sleep_until(Instant::now() + window).await;
    #[allow(clippy::cast_precision_loss, reason = "requests of a second are far below 2^52")]
    let requests = (proxies.counts().requests - before) as f64;
    requests / window.as_secs_f64()
}

fn judge_gaps(arrivals: &Arrivals) -> Result<(), Wrong> {
    let (least, most) = (RETRY_WAIT.mul_f64(1.0 - GAP_PART), RETRY_WAIT.mul_f64(1.0 + GAP_PART) + GAP_SPARE);
    for (n, times) in arrivals.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let what = || format!("message {n} was to be retried after {RETRY_WAIT:?} each time, and came after {gaps:?}");
        if gaps.iter().any(|gap| *gap < least) {
            return Err(Wrong::of("C5", what()));
        }
        if gaps.iter().any(|gap| *gap > most) {
            return Err(Wrong::new(what()));
        }
    }
    Ok(())
}

/// The broker refuses connections for a while: how often it is asked.
async fn refused(instance: &Instance, proxies: &Proxies) -> Result<(), Wrong> {
    let (before, cpu) = (proxies.counts(), instance.cpu());
    let window = scaled_time(REFUSED).min(BOUND);
    proxies.set(Mode::Refuse);
    sleep_until(Instant::now() + window).await;
    let (after, burnt) = (proxies.counts(), instance.cpu());
    proxies.set(Mode::Pass);
    let tries = after.accepted - before.accepted;
    #[allow(clippy::cast_precision_loss, reason = "connections of an adapter are few")]
    let most = TRIES_PER_SECOND_MAX * window.as_secs_f64() * before.open.max(1) as f64;
    #[allow(clippy::cast_precision_loss, reason = "tries of some seconds are far below 2^52")]
    let too_many = tries as f64 > most;
    if too_many {
        return Err(Wrong::new(format!(
            "while the broker refused connections for {window:?}, {tries} were tried (at most {most:.0}, as {} were open before)",
            before.open
        )));
    }
    let burnt = burnt.zip(cpu).map_or(Duration::ZERO, |(after, before)| after.saturating_sub(before));
    if burnt > window.mul_f64(RECONNECTING_CPU_MAX) {
        return Err(Wrong::new(format!(
            "while the broker refused connections for {window:?}, the adapter used {burnt:?} of processor time"
        )));
    }
    Ok(())
}
