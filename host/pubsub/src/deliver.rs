//! The spine of a delivery, and the life of one subscription: subscribe, take what comes, and stop in good order. The
//! binary runs one task of this for each subscription.
//!
//! Everything that runs for a subscription runs within that one task: no spawns, no locks that are ever contended, and
//! the same order of events for the same seed.

mod feed;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Metadata;
use crate::delivery::{Delivery, Disposition, Reason};
use crate::error::HandlerError;
use crate::event::Event;
use crate::events::About;
use crate::group::{Concurrency, Keys};
use crate::handler::{DeliveryInfo, Outcome};
use crate::ledger::{self, Ledger};
use crate::metrics::{Ingress, Status};
use crate::policy::{self, Attempts, Code, Guard, Refused};
use crate::route::Routes;
use crate::settle::{Exit, RETRY_WAIT_MAX, RETRY_WAIT_MIN, Stopping, retry_wait, settle};
use crate::steps::step;
use crate::topology::{Subscription, Topology};
use crate::{envelope, events, scope};

/// Serves one subscription until it is told to stop: subscribes, again and again if it must, and carries each message
/// through to its end. `ready` is told once messages flow, or once it is certain that they are not meant to.
///
/// Stopping gives nothing back with a penalty: no more is fetched, what is in flight finishes and its acknowledgement
/// still goes, everything else stays with the broker. So it does while the handler is ill; once it is well, all begins
/// again.
pub async fn deliver(
    subscription: Arc<Subscription>,
    topology: Arc<ArcSwap<Topology>>,
    ready: oneshot::Sender<()>,
    stop: CancellationToken,
) {
    let mut context = Context::new(subscription, topology);
    let mut ready = Some(ready);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = context.subscription.handler.well() => {}
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
    let mut ill = pin!(context.subscription.handler.ill());
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
    subscription: Arc<Subscription>,
    topology: Arc<ArcSwap<Topology>>,
    stopping: Stopping,
    concurrency: Concurrency,
    keys: Keys,
    ledger: Ledger,
    counts_redeliveries: bool,
    counts: Arc<Ingress>,
    /// Numbers the deliveries of this subscription.
    courses: AtomicU64,
    routes: Routes,
    raw: Result<bool, String>,
    pubsub: Arc<str>,
    dead_letter_topic: Option<Arc<str>>,
}

/// What is known about a delivery on its way.
struct Course {
    /// Which delivery of this subscription it is.
    number: u64,
    /// The number of its attempt: the one that is made, or would be.
    attempt: u32,
    /// The event, once it is read.
    event: Option<Arc<Event>>,
    /// Attempts that it may have in all its deliveries. None: each delivery has the policy's, whatever was before it.
    budget: Option<u32>,
}

impl Context {
    fn new(subscription: Arc<Subscription>, topology: Arc<ArcSwap<Topology>>) -> Self {
        let declared = &subscription.declared;
        let dead_letter_topic = declared.dead_letter_topic.as_deref().filter(|topic| !topic.is_empty()).map(Arc::from);
        let metrics = &topology.load().environment.metrics;
        let counts = metrics.ingress(&subscription.caller.app_id, &declared.pubsub, &declared.topic);
        Self {
            topology,
            counts,
            stopping: Stopping::within(&CancellationToken::new()),
            concurrency: Concurrency::of(declared),
            keys: Keys::default(),
            ledger: Ledger::default(),
            counts_redeliveries: ledger::counts_redeliveries(declared),
            courses: AtomicU64::new(0),
            routes: Routes::new(declared),
            raw: envelope::raw_subscription(&declared.metadata),
            pubsub: Arc::from(declared.pubsub.as_str()),
            dead_letter_topic,
            subscription,
        }
    }

    /// One delivery, from its arrival to its end. The rules are those of the moment it began.
    async fn carry(&self, mut delivery: Delivery) {
        step("deliver.arrived");
        let _under_way = self.counts.begin();
        let topology = self.topology.load_full();
        let broker = topology.broker(&self.pubsub, &self.subscription.caller);
        if let Some(plain) = broker.and_then(|broker| broker.plain(&delivery.message.topic)) {
            delivery.message.topic = plain;
        }
        let metadata = Arc::new(std::mem::take(&mut delivery.message.metadata));
        let number = self.courses.fetch_add(1, Ordering::Relaxed);
        let attempt = self.ledger.begin(&delivery.id, delivery.count, number);
        let budget = policy::budget(topology.policies.inbound(&self.pubsub)).filter(|_| self.counts_redeliveries);
        let mut course = Course { number, attempt, event: None, budget };
        let disposition = tokio::select! {
            biased;
            disposition = self.decide_in_turn(&topology, &delivery, &metadata, &mut course) => disposition,
            () = self.stopping.abandoned.cancelled() => Disposition::Hold,
        };
        if let Disposition::DeadLetter(_) = disposition {
            delivery.message.metadata = Arc::unwrap_or_clone(metadata);
        }
        let exit = Exit {
            topology: &topology,
            subscription: &self.subscription,
            counts: &self.counts,
            dead_letter_topic: self.dead_letter_topic.as_ref(),
            event_id: course.event.as_deref().map(Event::id).unwrap_or_default(),
            attempt: course.attempt,
            stopping: &self.stopping,
        };
        let settled = settle(exit, delivery, disposition).await;
        if settled.comes_back {
            self.ledger.note(&settled.message_id, course.number, course.attempt);
        } else {
            self.ledger.done(&settled.message_id);
        }
    }

    /// Decides what becomes of a delivery. Where others wait for it, it is not given back to the broker, which would send
    /// them first: it waits here, its lease kept, and is tried again.
    async fn decide_in_turn(
        &self,
        topology: &Topology,
        delivery: &Delivery,
        metadata: &Arc<Metadata>,
        course: &mut Course,
    ) -> Disposition {
        loop {
            let disposition = self.decide(topology, delivery, metadata, course).await;
            let Disposition::RetryAfter(wait, reason) = &disposition else { return disposition };
            if !delivery.has_turn() {
                return disposition;
            }
            let event_id = course.event.as_deref().map(Event::id).unwrap_or_default();
            let about = self.about(delivery, event_id, course.attempt);
            events::attempt_failed(about, &reason.to_string(), *wait);
            if !self.wait_for_next(delivery, course, *wait).await {
                return Disposition::Hold;
            }
        }
    }

    /// Waits for the next attempt and numbers it; false: there is none within this delivery.
    async fn wait_for_next(&self, delivery: &Delivery, course: &mut Course, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stopping.stop.cancelled() => return false,
            () = delivery.over() => return false,
            () = tokio::time::sleep(wait) => {}
        }
        let next = self.ledger.next(&delivery.id, course.number, course.attempt);
        course.attempt = next.unwrap_or(course.attempt);
        next.is_some()
    }

    /// Decides what becomes of a delivery: scope, envelope, expiry, route, attempts.
    async fn decide(
        &self,
        topology: &Topology,
        delivery: &Delivery,
        metadata: &Arc<Metadata>,
        course: &mut Course,
    ) -> Disposition {
        let Subscription { declared, caller, .. } = &*self.subscription;
        // Gone with a reload: whoever is to decide, it is not this snapshot.
        let Some(broker) = topology.broker(&declared.pubsub, caller) else { return Disposition::Hold };
        let (scopes, actual) = (&broker.declared.topic_scopes, &*delivery.message.topic);
        let wildcards = broker.features.get().is_some_and(|features| features.wildcards);
        if !scope::allow_delivery(scopes, &caller.app_id, &declared.topic, actual, wildcards) {
            return self.give_up(Reason::Forbidden, course);
        }
        let environment = &topology.environment;
        let event = match envelope::unwrap(&delivery.message, metadata, &self.raw, &self.pubsub, &environment.random) {
            Ok(event) => Arc::new(event),
            Err(reason) => return self.give_up(reason, course),
        };
        course.event = Some(Arc::clone(&event));
        if event.expiration().is_some() && envelope::expired(&event, environment.clock.now()) {
            return self.give_up(Reason::Expired, course);
        }
        let path = match self.routes.select(&event) {
            Ok(Some(path)) => path,
            Ok(None) => return self.give_up(Reason::Unrouted, course),
            Err(what) => return self.give_up(Reason::Unruled(what), course),
        };
        let info = DeliveryInfo {
            pubsub: Arc::clone(&self.pubsub),
            topic: Arc::clone(&delivery.message.topic),
            path,
            attempt: course.attempt,
            last_attempt: false,
            metadata: Arc::clone(metadata),
        };
        self.attempts(topology, delivery, &event, info, course).await
    }

    /// As many attempts as the inbound policy allows.
    async fn attempts(
        &self,
        topology: &Topology,
        delivery: &Delivery,
        event: &Arc<Event>,
        mut info: DeliveryInfo,
        course: &mut Course,
    ) -> Disposition {
        let policy = topology.policies.inbound(&self.subscription.declared.pubsub);
        let random = &topology.environment.random;
        let mut attempts = match course.budget {
            Some(budget) if course.attempt > budget => {
                return self.give_up(Reason::Exhausted("all were used before this delivery".to_owned()), course);
            }
            Some(_) => Attempts::from(policy, random, course.attempt),
            None => Attempts::new(policy, random),
        };
        let guard = topology.brokers.get(&self.subscription.declared.pubsub).and_then(|broker| broker.guard(policy));
        loop {
            let pass = match guard.map(Guard::enter).transpose() {
                Ok(pass) => pass,
                Err(refused) => return self.kept_off(refused, delivery, course),
            };
            info.attempt = course.attempt;
            info.last_attempt = attempts.is_last();
            let begun = Instant::now();
            let attempt = self.subscription.handler.deliver(Arc::clone(event), info.clone());
            let result = match policy.timeout {
                None => attempt.await,
                Some(wait) => tokio::time::timeout(wait, attempt).await.unwrap_or(Err(HandlerError::Timeout)),
            };
            step("deliver.handled");
            if result == Err(HandlerError::Unwell) {
                return self.uncharged(RETRY_WAIT_MIN, Reason::Unwell, delivery, course);
            }
            // A worker that is gone says nothing about the app: its pass is given back.
            if let Some(pass) = pass.filter(|_| result != Err(HandlerError::Gone)) {
                pass.end(matches!(result, Ok(Outcome::Success | Outcome::Drop)));
            }
            self.counts.attempted(course.attempt, Status::of(&result), begun.elapsed());
            let code = result.as_ref().err().and_then(Code::of_delivery);
            let failure = match result {
                Ok(Outcome::Success) => return Disposition::Ack,
                Ok(Outcome::Drop) => return self.give_up(Reason::Dropped, course),
                Ok(Outcome::Retry) => "the subscriber asked for another attempt".to_owned(),
                Err(HandlerError::Gone) => return self.handler_gone(delivery, course),
                Err(error) => error.to_string(),
            };
            if self.stopping.stop.is_cancelled() {
                return Disposition::Hold;
            }
            let wait = if attempts.retries(code) { attempts.advance() } else { None };
            let Some(wait) = wait else { return self.give_up(Reason::Exhausted(failure), course) };
            events::attempt_failed(self.about(delivery, event.id(), course.attempt), &failure, wait);
            if !self.wait_for_next(delivery, course, wait).await {
                return Disposition::Hold;
            }
        }
    }

    /// The worker ended and may have taken many events with it, so the attempt is not charged to any of them.
    fn handler_gone(&self, delivery: &Delivery, course: &mut Course) -> Disposition {
        let wait = retry_wait(course.attempt.max(delivery.count.unwrap_or(1)));
        self.uncharged(wait, Reason::HandlerGone, delivery, course)
    }

    /// The circuit breaker spares the app, and the message is no worse for it: it comes again when the breaker may let it
    /// pass, whatever attempts it has had. Dapr dead-letters it at once where there is a dead-letter topic.
    fn kept_off(&self, refused: Refused, delivery: &Delivery, course: &mut Course) -> Disposition {
        let wait = match refused {
            Refused::Open(wait) => wait.clamp(RETRY_WAIT_MIN, RETRY_WAIT_MAX),
            Refused::Probed => retry_wait(course.attempt),
        };
        self.uncharged(wait, Reason::BreakerOpen, delivery, course)
    }

    /// Gives it back as if this attempt had never been begun.
    fn uncharged(&self, wait: Duration, reason: Reason, delivery: &Delivery, course: &mut Course) -> Disposition {
        if self.stopping.stop.is_cancelled() {
            return Disposition::Hold;
        }
        self.ledger.take_back(&delivery.id, course.attempt);
        course.attempt = course.attempt.saturating_sub(1);
        Disposition::RetryAfter(wait, reason)
    }

    /// What a reason means: the dead-letter topic where there is one, save for what the app may not have. Without one,
    /// what nobody will ever want is dropped, and what failed comes again, unless its attempts are numbered.
    fn give_up(&self, reason: Reason, course: &Course) -> Disposition {
        match reason {
            Reason::Forbidden => Disposition::Drop(reason),
            Reason::HandlerGone | Reason::BreakerOpen | Reason::Unwell => {
                Disposition::RetryAfter(retry_wait(course.attempt), reason)
            }
            _ if self.dead_letter_topic.is_some() => Disposition::DeadLetter(reason),
            Reason::Dropped | Reason::Expired | Reason::Unrouted => Disposition::Drop(reason),
            // This one was the last, and the operator wants an end.
            _ if course.budget.is_some_and(|budget| course.attempt >= budget) => Disposition::Drop(reason),
            Reason::Exhausted(_) | Reason::Unparsable(_) | Reason::Unruled(_) => {
                Disposition::RetryAfter(retry_wait(course.attempt), reason)
            }
        }
    }

    fn about<'a>(&'a self, delivery: &'a Delivery, event_id: &'a str, attempt: u32) -> About<'a> {
        let Delivery { id, message, .. } = delivery;
        let (subscription, counts) = (&*self.subscription, &*self.counts);
        About { subscription, counts, topic: &message.topic, message_id: id, event_id, attempt }
    }
}

#[cfg(test)]
mod tests;
