//! A topic under load: publishers that try again until they are answered with success, as real ones do, consumers that
//! subscribe again when a feed ends, as the host does, and the ledger of both. Called by the fault checks.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use whimbrel_pubsub::{Arrived, BrokerError, Verdict};

use crate::check::Wrong;
use crate::ledger::{Account, Ledger, Seen, Sheet};
use crate::rig::{Inbox, Instance, Payload, Rig};
use crate::wait::until_within;

/// Publishers at once.
const PUBLISHERS: u64 = 4;

/// Messages in one publish of a publisher.
const BATCH: usize = 2;

/// How long a publisher waits before it publishes the next ones: a bound on the messages of a run.
const PACE: Duration = Duration::from_millis(10);

/// How long a publish that failed waits for its next try.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How long one publish may take.
const PUBLISH_WAIT: Duration = Duration::from_secs(3);

/// Bytes of a message.
pub(super) const MESSAGE_BYTES: usize = 300;

/// Deliveries that a consumer has in hand before it settles them together: so there are always some in flight.
pub(super) const IN_HAND: usize = 16;

/// How long a consumer waits for that many.
const GATHER_WAIT: Duration = Duration::from_millis(50);

/// Unsettled messages of one subscription.
pub(super) const CREDIT: u32 = 64;

/// How long all may take to come back after a fault, besides the broker's lease.
pub(super) const RECOVER_WAIT: Duration = Duration::from_secs(30);

/// The least that must be in flight at a fault, and how long it is waited for.
pub(super) const IN_FLIGHT_MIN: u64 = 5;
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// After so long without a move, besides two leases, nothing more is coming.
const STILL_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether anything moves.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Publishing goes on; it ends with what is under way; consuming ends, too.
const RUNNING: u8 = 0;
const CLOSING: u8 = 1;
const OVER: u8 = 2;

/// One topic, one group, and their ledger.
pub(super) struct Load<'a> {
    pub(super) rig: &'a Rig,
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) ledger: Ledger,
    /// The verdict on a delivery.
    says: Box<dyn Fn(&Seen) -> Verdict + Send + Sync>,
    /// How many keys the publishers use, each its own; 0: none.
    keys: u64,
    phase: AtomicU8,
    publishers: AtomicU64,
}

impl<'a> Load<'a> {
    /// A fresh topic, everything on it acknowledged.
    pub(super) async fn new(rig: &'a Rig) -> Result<Self, Wrong> {
        Ok(Self {
            rig,
            topic: rig.topic("load").await?,
            group: rig.group("load"),
            ledger: Ledger::new(rig.check(), rig.seed()),
            says: Box::new(|_| Verdict::Ack),
            keys: 0,
            phase: AtomicU8::new(RUNNING),
            publishers: AtomicU64::new(0),
        })
    }

    /// With other verdicts.
    pub(super) fn answering(mut self, says: impl Fn(&Seen) -> Verdict + Send + Sync + 'static) -> Self {
        self.says = Box::new(says);
        self
    }

    /// With so many keys for each publisher.
    pub(super) fn keyed(mut self, keys: u64) -> Self {
        self.keys = keys;
        self
    }

    /// With CloudEvents for messages.
    pub(super) fn of_events(mut self) -> Self {
        self.ledger = self.ledger.of_events();
        self
    }

    /// Subscribes.
    pub(super) async fn subscribe(&self, instance: &Instance) -> Result<Inbox, Wrong> {
        self.subscribe_with(instance, CREDIT).await
    }

    /// Subscribes with another credit.
    pub(super) async fn subscribe_with(&self, instance: &Instance, credit: u32) -> Result<Inbox, Wrong> {
        let feed = instance.subscribe(&self.topic, &self.group, credit).await;
        feed.map_err(|error| Wrong::of("D3", format!("subscribing to {} failed: {error}", self.topic)))
    }

    /// Publishes so many messages, and returns when all are confirmed.
    pub(super) async fn fill(&self, instance: &Instance, messages: u64) -> Result<(), Wrong> {
        let mut left = messages;
        while left > 0 {
            let batch = left.min(FILL_BATCH);
            let sheets = (0..batch).map(|_| self.ledger.write("", MESSAGE_BYTES)).collect();
            self.insist(instance, sheets).await?;
            left -= batch;
        }
        Ok(())
    }

    /// Publishes one message that nobody consumes, and returns when it is confirmed.
    pub(super) async fn fill_elsewhere(&self, instance: &Instance) -> Result<(), Wrong> {
        let topic = self.rig.topic("elsewhere").await?;
        let mut last = String::new();
        let confirmed = until_within(RECOVER_WAIT, "", async || {
            let answers = instance.publish_within(&topic, vec![Payload::of("here")], PUBLISH_WAIT).await;
            last = format!("{answers:?}");
            answers.iter().all(Result::is_ok).then_some(())
        });
        let late = confirmed.await.is_err();
        let what = || format!("{} s after a fault no publish is answered with success: {last}", RECOVER_WAIT.as_secs());
        if late { Err(Wrong::of("S3", what())) } else { Ok(()) }
    }

    /// Publishers and one consumer for each inbox work while the faults strike; then what is under way comes to rest.
    /// What follows from the books is judged by whoever called.
    pub(super) async fn run(
        &self,
        publisher: &Instance,
        consumers: Vec<(&Instance, Inbox)>,
        faults: impl Future<Output = Result<(), Wrong>>,
    ) -> Result<Account, Wrong> {
        let consuming = join_all(consumers.into_iter().map(|(instance, inbox)| self.consume(instance, inbox)));
        let publishing = async {
            let publishers = join_all((0..PUBLISHERS).map(|_| self.publish(publisher)));
            let striking = async {
                let struck = faults.await;
                self.phase.store(CLOSING, Ordering::Relaxed);
                struck
            };
            let (struck, published) = tokio::join!(striking, publishers);
            self.rest().await;
            self.phase.store(OVER, Ordering::Relaxed);
            struck.and(published.into_iter().collect())
        };
        let (struck, _) = tokio::join!(publishing, consuming);
        let account = self.account().await?;
        match struck {
            Ok(()) => Ok(account),
            Err(wrong) => Err(wrong.and(&account)),
        }
    }

    /// What follows from the books and from what the broker stores.
    pub(super) async fn account(&self) -> Result<Account, Wrong> {
        if self.rig.profile().conformance.read.is_empty() {
            return Ok(self.ledger.account(None));
        }
        Ok(self.ledger.account(Some(&self.rig.stored(&self.topic).await?)))
    }

    /// A message that the broker has more often than it was published.
    pub(super) async fn too_many_copies(&self) -> Result<Option<u64>, Wrong> {
        if self.rig.profile().conformance.read.is_empty() {
            return Ok(None);
        }
        let stored = self.rig.stored(&self.topic).await?;
        Ok(self.ledger.too_many(&self.ledger.copies(&stored)))
    }

    /// Returns when messages that are published from now on get through again, both ways. What was on its way already proves
    /// nothing: a consumer whose connection is dead has some of it in hand.
    pub(super) async fn recovers(&self, instance: &Instance) -> Result<(), Wrong> {
        let (confirmed, first) = (self.ledger.confirmed_count(), self.ledger.next());
        let bound = RECOVER_WAIT + self.rig.lease();
        let publishes = || self.ledger.confirmed_count() > confirmed;
        let delivers = || self.ledger.acked_since(first) > 0;
        let again = until_within(bound, "", async || (publishes() && delivers()).then_some(()));
        again.await.map_err(|_| {
            let stuck = |goes_on: bool| if goes_on { "go on" } else { "do not" };
            Wrong::new(format!(
                "{} s after the way was free again, publishes {} and deliveries {}; the adapter's state is {:?}",
                bound.as_secs(),
                stuck(publishes()),
                stuck(delivers()),
                instance.state(),
            ))
        })
    }

    /// Returns when so many more messages were confirmed.
    pub(super) async fn flows(&self, messages: u64) -> Result<(), Wrong> {
        let wanted = self.ledger.confirmed_count() + messages;
        let flowing = until_within(RECOVER_WAIT, "", async || (self.ledger.confirmed_count() >= wanted).then_some(()));
        let all = || format!("fewer than {messages} messages were confirmed within {} s", RECOVER_WAIT.as_secs());
        flowing.await.map_err(|_| Wrong::of("D4", all()))
    }

    /// Writes down a fault that strikes now, as soon as enough is in flight to be struck.
    pub(super) async fn strikes(&self, what: impl Into<String>) {
        let enough = || (self.ledger.in_flight() >= IN_FLIGHT_MIN).then_some(());
        // Too few all the time: the account says so.
        until_within(BUSY_WAIT, "", async || enough()).await.ok();
        self.ledger.fault(what);
    }

    async fn publish(&self, instance: &Instance) -> Result<(), Wrong> {
        let me = self.publishers.fetch_add(1, Ordering::Relaxed);
        let mut turn = 0;
        while self.phase.load(Ordering::Relaxed) == RUNNING {
            let key = if self.keys == 0 { String::new() } else { format!("key-{}", me * self.keys + turn % self.keys) };
            turn += 1;
            let sheets = (0..BATCH).map(|_| self.ledger.write(&key, MESSAGE_BYTES)).collect();
            self.insist(instance, sheets).await?;
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    /// Publishes these until each is answered with success, or refused for good.
    async fn insist(&self, instance: &Instance, mut sheets: Vec<Sheet>) -> Result<(), Wrong> {
        let mut give_up = None;
        let mut last = None;
        while !sheets.is_empty() {
            let answers = self.publish_once(instance, &sheets).await;
            last = answers.iter().find_map(|answer| answer.clone().err()).or(last);
            let open = |answer: &Result<(), BrokerError>| {
                !matches!(
                    answer,
                    Ok(()) | Err(BrokerError::Permanent(_) | BrokerError::Invalid(_) | BrokerError::Unauthorized(_))
                )
            };
            sheets =
                sheets.into_iter().zip(answers).filter(|(_, answer)| open(answer)).map(|(sheet, _)| sheet).collect();
            if sheets.is_empty() {
                return Ok(());
            }
            if self.phase.load(Ordering::Relaxed) != RUNNING {
                let until = *give_up.get_or_insert_with(|| Instant::now() + RECOVER_WAIT);
                if Instant::now() > until {
                    let why = last.map(|error| error.to_string()).unwrap_or_default();
                    return Err(Wrong::new(format!("a publish has found no success at last: {why}")));
                }
            }
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
        Ok(())
    }

    /// Publishes these in one go, and enters the answers.
    pub(super) async fn publish_once(&self, instance: &Instance, sheets: &[Sheet]) -> Vec<Result<(), BrokerError>> {
        let payloads = sheets.iter().map(|sheet| {
            let payload = Payload::of(sheet.data.clone());
            if sheet.key.is_empty() { payload } else { payload.keyed(&sheet.key) }
        });
        sheets.iter().for_each(|sheet| self.ledger.sent(sheet.n));
        let mut answers = instance.publish_within(&self.topic, payloads.collect(), PUBLISH_WAIT).await;
        // Whoever answers too few has answered nothing.
        answers.resize(sheets.len(), Err(BrokerError::Unknown("an answer is missing".to_owned())));
        sheets.iter().zip(&answers).for_each(|(sheet, answer)| self.ledger.answered(sheet.n, answer));
        answers
    }

    /// Takes and settles what comes, until the run is over.
    pub(super) async fn consume(&self, instance: &Instance, inbox: Inbox) {
        self.consume_until(instance, inbox, None).await;
    }

    /// The same until a time, too. Then nothing is in hand.
    pub(super) async fn consume_until(&self, instance: &Instance, mut inbox: Inbox, until: Option<Instant>) {
        while self.phase.load(Ordering::Relaxed) != OVER && until.is_none_or(|until| Instant::now() < until) {
            let batch = inbox.take(IN_HAND, GATHER_WAIT).await;
            if batch.is_empty() && inbox.is_gone() {
                match self.subscribe(instance).await {
                    Ok(again) => inbox = again,
                    // Its instance is on its way, or never will be: the ledger tells.
                    Err(_) => tokio::time::sleep(TRY_AGAIN_AFTER).await,
                }
                continue;
            }
            self.settle(&mut inbox, batch).await;
        }
    }

    /// Enters what has arrived, settles it as the run says, and enters that.
    pub(super) async fn settle(&self, inbox: &mut Inbox, batch: Vec<Arrived>) {
        let judged: Vec<_> = batch
            .into_iter()
            .map(|arrived| {
                let known = self.ledger.arrived(&arrived.message.data);
                let verdict = known.as_ref().map_or(Verdict::Ack, |seen| (self.says)(seen));
                (arrived.token, known.map(|seen| seen.n), verdict)
            })
            .collect();
        let answers = inbox.settle_all(judged.iter().map(|(token, _, verdict)| (*token, *verdict)).collect()).await;
        for ((_, known, verdict), answer) in judged.into_iter().zip(&answers) {
            if let Some(n) = known {
                self.ledger.settled(n, verdict, answer);
            }
        }
    }

    /// Returns when everything confirmed is acknowledged, or when nothing moves any more.
    pub(super) async fn rest(&self) {
        let still = STILL_WAIT + self.rig.lease() * 2;
        let mut moves = self.ledger.moves();
        let mut moved = Instant::now();
        while !self.ledger.quiet() && moved.elapsed() < still {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            let now = self.ledger.moves();
            if now != moves {
                (moves, moved) = (now, Instant::now());
            }
        }
    }

    /// Whether publishing goes on.
    pub(super) fn goes_on(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == RUNNING
    }

    /// Ends publishing, and consuming once all is at rest: for checks that run them by themselves.
    pub(super) async fn end(&self) {
        self.phase.store(CLOSING, Ordering::Relaxed);
        self.rest().await;
        self.phase.store(OVER, Ordering::Relaxed);
    }
}

/// Messages of one publish that fills a topic.
const FILL_BATCH: u64 = 50;
