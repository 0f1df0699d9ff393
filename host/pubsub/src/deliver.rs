//! The spine of a delivery, and the life of one subscription: subscribe, take what comes, and stop in good order. The
//! binary runs one task of this for each subscription.
//!
//! Everything that runs for a subscription runs within that one task: no spawns, no locks that are ever contended, and
//! the same order of events for the same seed.

mod batch;
mod feed;
mod live;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use whimbrel_resources::Bulk;

use crate::broker::{Features, Metadata};
use crate::delivery::{Delivery, Disposition, Reason};
use crate::error::HandlerError;
use crate::event::Event;
use crate::events::About;
use crate::group::{Concurrency, Keys, Places};
use crate::handler::{DeliveryInfo, Outcome};
use crate::ledger::{self, Ledger};
use crate::metrics::{Flow, InFlight, Ingress, Status};
use crate::policy::{self, Attempts, Code, Policed, Refused};
use crate::settle::{Exit, RETRY_WAIT_MAX, RETRY_WAIT_MIN, Stopping, retry_wait, settle};
use crate::statuses::Statuses;
use crate::steps::step;
use crate::topology::{Subscription, Topology};
use crate::{envelope, events, scope};
use feed::Load;

pub use live::Live;
use live::Rules;

/// What the subscriber said that wants an event again.
const ANOTHER_ATTEMPT: &str = "the subscriber asked for another attempt";

/// Serves one subscription until it is told to stop: subscribes, again and again if it must, and carries each message
/// through to its end. `ready` is told once messages flow, or once it is certain that they are not meant to.
///
/// Stopping gives nothing back with a penalty: no more is fetched, what is in flight finishes and its acknowledgement
/// still goes, everything else stays with the broker. So it does while the handler is ill; once it is well, all begins
/// again.
pub async fn deliver(
    live: Arc<Live>,
    topology: Arc<ArcSwap<Topology>>,
    ready: oneshot::Sender<()>,
    stop: CancellationToken,
) {
    let mut context = Context::new(live, topology);
    let mut ready = Some(ready);
    loop {
        let well = context.subscription().handler.well();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = well => {}
        }
        context.stopping = Stopping::within(&stop);
        while_well(&context, &mut ready).await;
        // Nothing flows, and that is meant to be so.
        feed::tell(&mut ready);
    }
}

/// Serves the subscription until it is to stop or its handler falls ill.
async fn while_well(context: &Context, ready: &mut Option<oneshot::Sender<()>>) {
    let mut running = FuturesUnordered::new();
    let serving = async {
        let last = feed::serve_all(context, &mut running, ready, Context::carry).await;
        feed::drain(context, &mut running, last).await;
    };
    let mut ill = pin!(context.subscription().handler.ill());
    let mut serving = pin!(serving);
    tokio::select! {
        biased;
        () = &mut ill => context.stopping.stop.cancel(),
        () = &mut serving => return,
    }
    serving.await;
}

/// What all deliveries of a subscription share.
struct Context {
    live: Arc<Live>,
    topology: Arc<ArcSwap<Topology>>,
    stopping: Stopping,
    concurrency: Concurrency,
    keys: Keys,
    places: Places,
    /// Set where events go several at a time.
    bulk: Option<Bulk>,
    ledger: Ledger,
    counts_redeliveries: bool,
    statuses: Statuses,
    counts: Arc<Ingress>,
    /// Numbers the deliveries of this subscription.
    courses: AtomicU64,
    raw: Result<bool, String>,
    pubsub: Arc<str>,
    topic: Arc<str>,
}

/// A delivery on its way, and what is known about it.
struct Course<'a> {
    /// The delivery. Its message has no metadata meanwhile.
    delivery: Delivery,
    /// The message's metadata, shared with who receives the event.
    metadata: Arc<Metadata>,
    /// Which delivery of this subscription it is.
    number: u64,
    /// The number of its attempt: the one that is made, or would be.
    attempt: u32,
    /// The event, once it is read.
    event: Option<Arc<Event>>,
    /// Attempts that it may have in all its deliveries. None: each delivery has the policy's, whatever was before it.
    budget: Option<u32>,
    /// Whether it comes again if it is given back.
    comes_again: bool,
    /// Those of the moment it began.
    rules: Arc<Rules>,
    under_way: InFlight<'a>,
}

impl Course<'_> {
    /// Whether the attempt that is made is the last of its budget, or beyond it.
    fn is_spent(&self) -> bool {
        self.budget.is_some_and(|budget| self.attempt >= budget)
    }

    /// Whether the attempt that would be made is beyond its budget.
    fn is_overspent(&self) -> bool {
        self.budget.is_some_and(|budget| self.attempt > budget)
    }
}

/// An attempt that brought nothing.
struct Failure {
    /// What happened.
    what: String,
    /// What a policy matches it by.
    code: Option<Code>,
}

impl Context {
    fn new(live: Arc<Live>, topology: Arc<ArcSwap<Topology>>) -> Self {
        let rules = live.rules();
        let Subscription { declared, caller, .. } = &*rules.subscription;
        let metrics = &topology.load().environment.metrics;
        let counts = metrics.ingress(&caller.app_id, &declared.pubsub, &declared.topic);
        Self {
            topology,
            counts,
            stopping: Stopping::within(&CancellationToken::new()),
            concurrency: Concurrency::of(declared),
            keys: Keys::default(),
            places: Places::default(),
            bulk: declared.bulk.filter(|_| rules.subscription.handler.takes_batches()),
            ledger: Ledger::default(),
            counts_redeliveries: ledger::counts_redeliveries(declared),
            statuses: Statuses::of(declared),
            courses: AtomicU64::new(0),
            raw: envelope::raw_subscription(&declared.metadata),
            pubsub: Arc::from(declared.pubsub.as_str()),
            topic: Arc::from(declared.topic.as_str()),
            live,
        }
    }

    /// What the feed has for us, from its arrival to its end.
    async fn carry(&self, load: Load) {
        match load {
            Load::One(delivery) => self.carry_one(delivery).await,
            // Boxed, so that those who carry one each are not as large as those who carry many.
            Load::Batch(deliveries) => Box::pin(self.carry_batch(deliveries)).await,
        }
    }

    /// One delivery, from its arrival to its end. The rules are those of the moment it began.
    async fn carry_one(&self, delivery: Delivery) {
        let topology = self.topology.load_full();
        let mut course = self.begin(&topology, self.live.rules(), delivery);
        let decided = async {
            let disposition = self.decide(&topology, &mut course).await;
            self.in_turn(&topology, &mut course, disposition).await
        };
        let disposition = tokio::select! {
            biased;
            disposition = decided => disposition,
            () = self.stopping.abandoned.cancelled() => Disposition::Hold,
        };
        self.end(&topology, course, disposition).await;
    }

    /// A delivery is on its way.
    fn begin(&self, topology: &Topology, rules: Arc<Rules>, mut delivery: Delivery) -> Course<'_> {
        step("deliver.arrived");
        let under_way = self.counts.begin();
        let broker = topology.broker(&self.pubsub, &rules.subscription.caller);
        if let Some(plain) = broker.and_then(|broker| broker.plain(&delivery.message.topic)) {
            delivery.message.topic = plain;
        }
        let comes_again = broker.is_none_or(|broker| broker.features.get().is_none_or(Features::redelivers));
        let metadata = Arc::new(std::mem::take(&mut delivery.message.metadata));
        let number = self.courses.fetch_add(1, Ordering::Relaxed);
        let attempt = self.ledger.begin(&delivery.id, delivery.count, number);
        let budgeted = self.counts_redeliveries.then(|| topology.policies.inbound(&self.pubsub));
        let budget = budgeted.and_then(policy::budget);
        Course { delivery, metadata, number, attempt, event: None, budget, comes_again, rules, under_way }
    }

    /// Its end, whatever was decided.
    async fn end(&self, topology: &Topology, course: Course<'_>, disposition: Disposition) {
        let Course { mut delivery, metadata, number, attempt, event, rules, under_way: _under_way, .. } = course;
        if let Disposition::DeadLetter(_) = disposition {
            delivery.message.metadata = Arc::unwrap_or_clone(metadata);
        }
        let exit = Exit {
            topology,
            subscription: &rules.subscription,
            counts: &self.counts,
            dead_letter_topic: rules.dead_letter_topic.as_ref(),
            event_id: event.as_deref().map(Event::id).unwrap_or_default(),
            attempt,
            stopping: &self.stopping,
        };
        let settled = settle(exit, delivery, disposition).await;
        if settled.comes_back {
            self.ledger.note(&settled.message_id, number, attempt);
        } else {
            self.ledger.done(&settled.message_id);
        }
    }

    /// What was decided, or what is decided in the end: where others wait for it, it is not given back to the broker,
    /// which would send them first. It waits here, its lease kept, and is tried again.
    async fn in_turn(&self, topology: &Topology, course: &mut Course<'_>, mut decided: Disposition) -> Disposition {
        loop {
            let Disposition::RetryAfter(wait, reason) = &decided else { return decided };
            if !course.delivery.has_turn() {
                return decided;
            }
            events::attempt_failed(self.about(course), &reason.to_string(), *wait);
            if !self.wait_for_next(course, *wait).await {
                return Disposition::Hold;
            }
            decided = self.decide(topology, course).await;
        }
    }

    /// Waits for the next attempt and numbers it; false: there is none within this delivery.
    async fn wait_for_next(&self, course: &mut Course<'_>, wait: Duration) -> bool {
        self.wait_out(&course.delivery, wait).await && self.number_next(course)
    }

    /// Waits for the next attempt; false: there is none within this delivery.
    async fn wait_out(&self, delivery: &Delivery, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stopping.stop.cancelled() => false,
            () = delivery.over() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// Numbers the next attempt; false: a later delivery of the message is on its way.
    fn number_next(&self, course: &mut Course<'_>) -> bool {
        let next = self.ledger.next(&course.delivery.id, course.number, course.attempt);
        course.attempt = next.unwrap_or(course.attempt);
        next.is_some()
    }

    /// Decides what becomes of a delivery.
    async fn decide(&self, topology: &Topology, course: &mut Course<'_>) -> Disposition {
        match self.examine(topology, course) {
            Ok((event, path)) => self.attempts(topology, &event, path, course).await,
            Err(disposition) => disposition,
        }
    }

    /// What comes before any attempt: scope, envelope, expiry, route. The event and where it goes.
    ///
    /// # Errors
    /// It goes nowhere; what becomes of it.
    fn examine(&self, topology: &Topology, course: &mut Course<'_>) -> Result<(Arc<Event>, Arc<str>), Disposition> {
        let Subscription { declared, caller, .. } = &*course.rules.subscription;
        // Gone with a reload: whoever is to decide, it is not this snapshot.
        let broker = topology.broker(&declared.pubsub, caller).ok_or(Disposition::Hold)?;
        let message = &course.delivery.message;
        let (scopes, actual) = (&broker.declared.topic_scopes, &*message.topic);
        let wildcards = broker.features.get().is_some_and(|features| features.wildcards);
        if !scope::allow_delivery(scopes, &caller.app_id, &declared.topic, actual, wildcards) {
            return Err(self.give_up(Reason::Forbidden, course));
        }
        let environment = &topology.environment;
        let event = match envelope::unwrap(message, &course.metadata, &self.raw, &self.pubsub, &environment.random) {
            Ok(event) => Arc::new(event),
            Err(reason) => return Err(self.give_up(reason, course)),
        };
        course.event = Some(Arc::clone(&event));
        if event.expiration().is_some() && envelope::expired(&event, environment.clock.now()) {
            return Err(self.give_up(Reason::Expired, course));
        }
        match course.rules.routes.select(&event) {
            Ok(Some(path)) => Ok((event, path)),
            Ok(None) => Err(self.give_up(Reason::Unrouted, course)),
            Err(what) => Err(self.give_up(Reason::Unruled(what), course)),
        }
    }

    /// As many attempts as the inbound policy allows.
    async fn attempts(
        &self,
        topology: &Topology,
        event: &Arc<Event>,
        path: Arc<str>,
        course: &mut Course<'_>,
    ) -> Disposition {
        if course.is_overspent() {
            return self.overspent(course);
        }
        let policed = self.policed(topology);
        let first = course.budget.map_or(1, |_| course.attempt);
        let mut attempts = Attempts::from(policed.policy, &topology.environment.random, first);
        let mut info = DeliveryInfo {
            pubsub: Arc::clone(&self.pubsub),
            topic: Arc::clone(&course.delivery.message.topic),
            path,
            attempt: course.attempt,
            last_attempt: false,
            metadata: Arc::clone(&course.metadata),
            trace: None,
        };
        loop {
            let leave = match policed.enter() {
                Ok(leave) => leave,
                Err(refused) => return self.kept_off(refused, course),
            };
            info.attempt = course.attempt;
            info.last_attempt = attempts.is_last();
            let span;
            (info.trace, span) = topology.environment.tracer.begin_delivery(event, &info.topic, info.attempt);
            let begun = Instant::now();
            let answered = within(&policed, self.attempt(topology, &course.rules, event, &info)).await;
            let result = self.statuses.read(answered, self.bulk.is_some());
            span.end(|span| span.error = not_taken(&result));
            step("deliver.handled");
            if result == Err(HandlerError::Unwell) {
                return self.unasked(course);
            }
            // A worker that is gone says nothing about the app: its leave is given back.
            if result != Err(HandlerError::Gone) {
                leave.end(is_done(&result));
            }
            self.counts.attempted(course.attempt, Status::of(&result), begun.elapsed());
            let failure = match self.judge(result, course) {
                Ok(disposition) => return disposition,
                Err(failure) => failure,
            };
            let wait = if attempts.retries(failure.code) { attempts.advance() } else { None };
            let Some(wait) = wait else { return self.give_up(Reason::Exhausted(failure.what), course) };
            policed.retried();
            events::attempt_failed(self.about(course), &failure.what, wait);
            if !self.wait_for_next(course, wait).await {
                return Disposition::Hold;
            }
        }
    }

    /// One attempt: where batches are asked for, with a batch of one.
    async fn attempt(
        &self,
        topology: &Topology,
        rules: &Rules,
        event: &Arc<Event>,
        info: &DeliveryInfo,
    ) -> Result<Outcome, HandlerError> {
        match self.bulk {
            None => rules.subscription.handler.deliver(Arc::clone(event), info.clone()).await,
            Some(_) => self.attempt_alone(topology, rules, event, info).await,
        }
    }

    /// A delivery, or a batch of them, begins under the inbound policy.
    fn policed<'a>(&self, topology: &'a Topology) -> Policed<'a> {
        Policed::begin(topology, &self.pubsub, topology.brokers.get(&*self.pubsub), Flow::Inbound)
    }

    /// What an attempt comes to.
    ///
    /// # Errors
    /// It failed, and another may follow.
    fn judge(&self, result: Result<Outcome, HandlerError>, course: &mut Course<'_>) -> Result<Disposition, Failure> {
        let code = result.as_ref().err().and_then(Code::of_delivery);
        let what = match result {
            Ok(Outcome::Success) => return Ok(Disposition::Ack),
            Ok(Outcome::Drop) => return Ok(self.give_up(Reason::Dropped, course)),
            Ok(Outcome::Unserved) => return Ok(self.give_up(Reason::Unserved, course)),
            Ok(Outcome::Retry) => ANOTHER_ATTEMPT.to_owned(),
            Err(HandlerError::Gone) => return Ok(self.handler_gone(course)),
            Err(HandlerError::Unwell) => return Ok(self.unasked(course)),
            Err(error) => error.to_string(),
        };
        if self.stopping.stop.is_cancelled() { Ok(Disposition::Hold) } else { Err(Failure { what, code }) }
    }

    /// The worker ended and may have taken many events with it, so the attempt is not charged to any of them.
    fn handler_gone(&self, course: &mut Course<'_>) -> Disposition {
        let wait = retry_wait(course.attempt.max(course.delivery.count.unwrap_or(1)));
        self.uncharged(wait, Reason::HandlerGone, course)
    }

    /// The app is ill and was not asked.
    fn unasked(&self, course: &mut Course<'_>) -> Disposition {
        self.uncharged(RETRY_WAIT_MIN, Reason::Unwell, course)
    }

    /// What becomes of one that has no attempt left: see [`Course::is_overspent`].
    fn overspent(&self, course: &Course<'_>) -> Disposition {
        self.give_up(Reason::Exhausted("all were used before this delivery".to_owned()), course)
    }

    /// The circuit breaker spares the app, and the message is no worse for it: it comes again when the breaker may let it
    /// pass, whatever attempts it has had. Dapr dead-letters it at once where there is a dead-letter topic.
    fn kept_off(&self, refused: Refused, course: &mut Course<'_>) -> Disposition {
        let wait = match refused {
            Refused::Open(wait) => wait.clamp(RETRY_WAIT_MIN, RETRY_WAIT_MAX),
            Refused::Probed => retry_wait(course.attempt),
        };
        self.uncharged(wait, Reason::BreakerOpen, course)
    }

    /// Gives it back as if this attempt had never been begun. Where that would be its end the dead-letter topic has it.
    fn uncharged(&self, wait: Duration, reason: Reason, course: &mut Course<'_>) -> Disposition {
        self.ledger.take_back(&course.delivery.id, course.attempt);
        course.attempt = course.attempt.saturating_sub(1);
        if self.stopping.stop.is_cancelled() {
            return Disposition::Hold;
        }
        if !course.comes_again && course.rules.dead_letter_topic.is_some() {
            return Disposition::DeadLetter(reason);
        }
        Disposition::RetryAfter(wait, reason)
    }

    /// What a reason means: the dead-letter topic where there is one, save for what the app may not have. Without one,
    /// what nobody will ever want is dropped, and what failed comes again, unless its attempts are numbered.
    fn give_up(&self, reason: Reason, course: &Course<'_>) -> Disposition {
        match reason {
            Reason::Forbidden | Reason::Unserved => Disposition::Drop(reason),
            Reason::HandlerGone | Reason::BreakerOpen | Reason::Unwell => {
                Disposition::RetryAfter(retry_wait(course.attempt), reason)
            }
            _ if course.rules.dead_letter_topic.is_some() => Disposition::DeadLetter(reason),
            Reason::Dropped | Reason::Expired | Reason::Unrouted => Disposition::Drop(reason),
            // This one was the last, and the operator wants an end.
            _ if course.is_spent() => Disposition::Drop(reason),
            Reason::Exhausted(_) | Reason::Unparsable(_) | Reason::Unruled(_) => {
                Disposition::RetryAfter(retry_wait(course.attempt), reason)
            }
        }
    }

    fn about<'a>(&'a self, course: &'a Course<'_>) -> About<'a> {
        let Delivery { id, message, .. } = &course.delivery;
        let event_id = course.event.as_deref().map(Event::id).unwrap_or_default();
        let (subscription, counts) = (&*course.rules.subscription, &*self.counts);
        About { subscription, counts, topic: &message.topic, message_id: id, event_id, attempt: course.attempt }
    }

    /// As it is now. Nobody may keep it: its handler ends with its last handle.
    fn subscription(&self) -> Arc<Subscription> {
        Arc::clone(&self.live.rules().subscription)
    }
}

/// An attempt within the policy's time.
async fn within<T>(
    policed: &Policed<'_>,
    attempt: impl Future<Output = Result<T, HandlerError>>,
) -> Result<T, HandlerError> {
    let Some(wait) = policed.policy.timeout else { return attempt.await };
    tokio::time::timeout(wait, attempt).await.unwrap_or_else(|_| {
        policed.timed_out();
        Err(HandlerError::Timeout)
    })
}

/// Why an attempt failed, if it did: what a subscriber drops is done.
fn not_taken(result: &Result<Outcome, HandlerError>) -> Option<String> {
    match result {
        Ok(Outcome::Success | Outcome::Drop | Outcome::Unserved) => None,
        Ok(Outcome::Retry) => Some(ANOTHER_ATTEMPT.to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Whether the app has done with an event what it wanted to.
fn is_done(result: &Result<Outcome, HandlerError>) -> bool {
    matches!(result, Ok(Outcome::Success | Outcome::Drop | Outcome::Unserved))
}

#[cfg(test)]
mod tests;
