//! `pubsub.liar`: the redis adapter, wrapped so that it breaks exactly one promise of the contract: the one that its
//! setting `lie` names. Called by the tests of the conformance kit, which must catch each lie with the check meant for it.
//! Without a lie it is an honest adapter, and the kit must find nothing.

mod lie;
mod pump;
mod spin;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use lie::Lie;
use pump::Hand;
use whimbrel_redis::{Redis, RedisSubscription};
use whimbrel_sdk::{
    Adapter, Config, DeliverySink, Failure, Feature, FeatureSet, Message, Property, SettleFailure, Settlement,
    StartPosition, Status, StatusSink, SubscribeOptions, Subscription, Verdict, log, task, timer,
};

/// How many times its credit the liar takes that ignores it.
const GREED: u32 = 4;

/// How often the stopping liar looks whether its pump still settles something.
const BORROW_WAIT: Duration = Duration::from_millis(1);

/// The setting that the redis adapter names when its password is refused.
const PASSWORD: &str = "redisPassword";

/// What the redis adapter cannot do without.
const ESSENTIAL: [&str; 3] = ["redisHost", "processingTimeout", "redeliverInterval"];

/// The redis adapter, and its lie.
#[derive(Debug)]
pub struct Liar {
    inner: Rc<Redis>,
    shared: Rc<Shared>,
}

/// What connection and subscriptions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) lie: Lie,
    /// Connections to the broker that were lost so far.
    pub(crate) losses: Cell<u64>,
    /// The broker refused the password once, and this adapter took it to heart.
    pub(crate) has_given_up: Cell<bool>,
    /// Ids of what was in hand when a connection was lost.
    pub(crate) forgotten: RefCell<HashSet<String>>,
    hands: RefCell<Vec<Rc<Hand>>>,
}

/// A subscription of the redis adapter, and its lie.
#[derive(Debug)]
pub struct LiarSubscription {
    inner: Rc<RedisSubscription>,
    hand: Rc<Hand>,
    shared: Rc<Shared>,
    publisher: Rc<Redis>,
    topic: String,
    ended: futures::channel::oneshot::Receiver<()>,
}

impl Shared {
    fn new(lie: Lie) -> Self {
        Self {
            lie,
            losses: Cell::new(0),
            has_given_up: Cell::new(false),
            forgotten: RefCell::default(),
            hands: RefCell::default(),
        }
    }
}

impl Adapter for Liar {
    type Subscription = LiarSubscription;

    async fn open(config: Config, status: StatusSink) -> Result<Self, Failure> {
        let lie = Lie::of(&config)?;
        let shared = Rc::new(Shared::new(lie));
        let (sink, news) = StatusSink::channel();
        task::spawn(relay(news, status, Rc::clone(&shared), config.clone()));
        let opened = Redis::open(config.clone(), sink.clone()).await;
        let inner = match opened {
            Err(Failure::Invalid(_)) if lie == Lie::AcceptsBadSettings => Redis::open(essential(config), sink).await?,
            opened => opened?,
        };
        Ok(Self { inner: Rc::new(inner), shared })
    }

    fn features(&self) -> FeatureSet {
        let honest = self.inner.features();
        let claimed = if self.shared.lie == Lie::Reorders { Feature::ORDERING } else { Feature::empty() };
        FeatureSet { abilities: honest.abilities | claimed, ..honest }
    }

    async fn publish(&self, messages: Vec<Message>, deadline: Duration) -> Vec<Result<(), Failure>> {
        let count = messages.len();
        if self.shared.has_given_up.get() {
            return vec![Err(Failure::Transient("the password was refused once".to_owned())); count];
        }
        if self.shared.lie == Lie::ConfirmsFirst {
            let inner = Rc::clone(&self.inner);
            task::spawn(async move { drop(inner.publish(messages, deadline).await) });
            return vec![Ok(()); count];
        }
        let mut results = self.inner.publish(messages, deadline).await;
        match self.shared.lie {
            Lie::UnknownIsOk => {
                results
                    .iter_mut()
                    .filter(|result| matches!(result, Err(Failure::Unknown(_))))
                    .for_each(|result| *result = Ok(()));
            }
            Lie::FailsTogether => {
                if let Some(failure) = results.iter().find_map(|result| result.clone().err()) {
                    results.fill(Err(failure));
                }
            }
            Lie::AnswersShort if count > 1 => drop(results.pop()),
            _ => {}
        }
        results
    }

    async fn subscribe(
        &self,
        topic: String,
        group: String,
        mut options: SubscribeOptions,
        deliveries: DeliverySink,
    ) -> Result<LiarSubscription, Failure> {
        let lie = self.shared.lie;
        if lie == Lie::IgnoresCredit {
            options.max_unsettled = options.max_unsettled.saturating_mul(GREED);
        }
        if lie == Lie::IgnoresStart && options.start.is_some() {
            options.start = Some(StartPosition::Earliest);
        }
        let group = if lie == Lie::SharesGroups { "everybody".to_owned() } else { group };
        let (sink, lists, _) = DeliverySink::channel();
        let inner = self.inner.subscribe(topic.clone(), group, options, sink).await?;
        let inner = Rc::new(inner);
        let hand = Rc::new(Hand::default());
        self.shared.hands.borrow_mut().push(Rc::clone(&hand));
        let (end, ended) = futures::channel::oneshot::channel();
        let pump = pump::run(Rc::downgrade(&inner), Rc::clone(&hand), Rc::clone(&self.shared), lists, deliveries);
        task::spawn(async move {
            pump.await;
            // Who stops may have stopped waiting.
            end.send(()).ok();
        });
        let (shared, publisher) = (Rc::clone(&self.shared), Rc::clone(&self.inner));
        Ok(LiarSubscription { inner, hand, shared, publisher, topic, ended })
    }

    async fn ping(&self) -> Result<(), Failure> {
        if self.shared.lie == Lie::AnswersNoPing {
            return Err(Failure::Transient("no sign of life".to_owned()));
        }
        self.inner.ping().await
    }

    async fn close(self: Rc<Self>) {
        if self.shared.lie == Lie::HangsOnClose {
            pending::<()>().await;
        }
        Rc::clone(&self.inner).close().await;
    }
}

impl Subscription for LiarSubscription {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        let mut results = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            results.push(self.settle_one(settlement).await);
        }
        results
    }

    async fn pause(&self) {
        if self.shared.lie != Lie::IgnoresPause {
            self.inner.pause().await;
        }
    }

    async fn resume(&self) {
        self.inner.resume().await;
    }

    async fn stop(self) {
        if self.shared.lie == Lie::HangsOnStop {
            pending::<()>().await;
        }
        let mut inner = self.inner;
        // The pump borrows it for as long as a settlement takes.
        let inner = loop {
            match Rc::try_unwrap(inner) {
                Ok(inner) => break inner,
                Err(borrowed) => inner = borrowed,
            }
            timer::sleep(BORROW_WAIT).await;
        };
        inner.stop().await;
        // The host's stream ends with the pump.
        self.ended.await.ok();
    }
}

impl LiarSubscription {
    async fn settle_one(&self, settlement: Settlement) -> Result<(), SettleFailure> {
        let lie = self.shared.lie;
        let Some(held) = self.hand.let_go(settlement.token) else {
            let is_taken = self.hand.forget_made_up(settlement.token) || lie == Lie::TakesTokensTwice;
            return if is_taken { Ok(()) } else { Err(SettleFailure::Stale) };
        };
        let verdict = match settlement.verdict {
            Verdict::Retry(_) if lie == Lie::AcksOnRetry => Verdict::Ack,
            Verdict::Retry(_) if lie == Lie::RetriesAtOnce => Verdict::Retry(0),
            Verdict::Retry(_) if lie == Lie::ForgetsRetries => return Ok(()),
            Verdict::Retry(wait) if lie == Lie::DeadLetters && self.hand.failed_too_often(&held.id) => {
                let topic = format!("{}.dead", self.topic);
                let copy = Message { topic, ..held.message };
                let copied = self.publisher.publish(vec![copy], Duration::from_secs(5)).await;
                if copied.iter().all(Result::is_ok) { Verdict::Ack } else { Verdict::Retry(wait) }
            }
            verdict => verdict,
        };
        let settled = self.inner.settle(vec![Settlement { token: held.token, verdict }]).await;
        let result = settled.into_iter().next().unwrap_or(Err(SettleFailure::Stale));
        match result {
            Err(SettleFailure::Stale) if lie == Lie::TakesStaleTokens => Ok(()),
            result => result,
        }
    }
}

/// Only what the adapter cannot do without.
fn essential(config: Config) -> Config {
    let needed = |property: &Property| ESSENTIAL.iter().any(|name| name.eq_ignore_ascii_case(&property.name));
    let properties = config.properties.into_iter().filter(needed).collect();
    Config { properties, ..config }
}

/// Passes news on, and lies where the news is a lost connection.
async fn relay(
    mut news: futures::channel::mpsc::Receiver<Status>,
    host: StatusSink,
    shared: Rc<Shared>,
    config: Config,
) {
    let mut was_ready = false;
    while let Some(status) = news.next().await {
        let lost = was_ready && matches!(status, Status::Connecting(_));
        was_ready = matches!(status, Status::Ready) || (was_ready && !lost);
        if lost {
            shared.losses.set(shared.losses.get() + 1);
            match shared.lie {
                Lie::ForgetsOnReconnect => {
                    let hands = shared.hands.borrow();
                    shared.forgotten.borrow_mut().extend(hands.iter().flat_map(|hand| hand.ids()));
                }
                Lie::SpinsOnError => task::spawn(spin::run(config.clone(), Rc::clone(&shared))),
                Lie::TrapsOnError => trap(),
                _ => {}
            }
        }
        if shared.lie == Lie::GivesUpWhenRefused && matches!(&status, Status::Connecting(why) if why.contains(PASSWORD))
        {
            shared.has_given_up.set(true);
        }
        // Whoever has given up is never ready again.
        if !(shared.has_given_up.get() && matches!(status, Status::Ready)) {
            host.tell(status);
        }
    }
}

#[expect(clippy::panic, reason = "the lie is a trap")]
fn trap() {
    log::error("a lost connection was not thought of");
    panic!("a lost connection was not thought of");
}

whimbrel_sdk::export_adapter!(Liar);
