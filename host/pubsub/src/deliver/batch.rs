//! Several deliveries at a time: gathering them, and carrying them through one spine, each to its own end
//! (pubsub-behaviour, section 6.3). Called by `deliver` and its feed.
//!
//! What is not fit for a subscriber leaves the batch before anything is sent. The others go to the app by route, one request
//! for each; after it every event has an outcome of its own, and only what failed goes into the next request. Nobody waits
//! for the others of a batch but for that: what is done with is settled meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use whimbrel_resources::Bulk;

use super::feed::{all, meanwhile};
use super::live::Rules;
use super::{Context, Course, Failure, is_done, not_taken, within};
use crate::delivery::{Delivery, Disposition, Reason};
use crate::environment::Random;
use crate::error::HandlerError;
use crate::event::Event;
use crate::events;
use crate::handler::{BatchEntry, BatchInfo, DeliveryInfo, Outcome, Outcomes};
use crate::metrics::Status;
use crate::policy::{Attempts, Policed, Refused};
use crate::spans::{Recording, Tracer};
use crate::steps::step;
use crate::topology::Topology;
use crate::trace::TraceParent;

/// Messages of one batch together, bytes: once there are so many, it goes. Apps bound their bodies (4 MiB in Dapr's SDKs), and
/// as a body they are larger, raw ones by a third.
const BATCH_BYTES_MAX: usize = 2 << 20;

/// Deliveries of one feed that wait for others to go with them.
pub(super) struct Gathering {
    messages_max: usize,
    max_wait: Duration,
    deliveries: Vec<Delivery>,
    bytes: usize,
    /// When they go, full or not; `None`: there are none.
    due: Option<Instant>,
    /// Nobody waits any more.
    hurries: bool,
}

/// Returns when what is gathered is due: never if there is nothing.
pub(super) async fn due(gathering: Option<&Gathering>) {
    match gathering.and_then(|gathering| gathering.due) {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Gathering {
    /// Nothing is gathered yet. `None`: the subscription wants its events one by one.
    pub(super) fn of(context: &Context) -> Option<Self> {
        let Bulk { max_messages, max_wait } = context.bulk?;
        // More never come together: nobody is to wait for them.
        let messages_max = max_messages.min(context.concurrency.running).max(1) as usize;
        Some(Self { messages_max, max_wait, deliveries: Vec::new(), bytes: 0, due: None, hurries: false })
    }

    /// One more; a batch, if that makes it full.
    pub(super) fn add(&mut self, delivery: Delivery) -> Option<Vec<Delivery>> {
        self.due.get_or_insert_with(|| Instant::now() + self.max_wait);
        self.bytes += delivery.message.data.len();
        self.deliveries.push(delivery);
        let full = self.deliveries.len() >= self.messages_max || self.bytes >= BATCH_BYTES_MAX;
        full.then(|| self.take())
    }

    /// What has waited long enough.
    pub(super) fn take_due(&mut self) -> Option<Vec<Delivery>> {
        let due = self.due.is_some_and(|due| self.hurries || due <= Instant::now());
        due.then(|| self.take())
    }

    /// What waits, and from now on nothing does.
    pub(super) fn hurry(&mut self) -> Option<Vec<Delivery>> {
        self.hurries = true;
        self.take_due()
    }

    /// What waits, and will not go.
    pub(super) fn rest(self) -> Vec<Delivery> {
        self.deliveries
    }

    fn take(&mut self) -> Vec<Delivery> {
        (self.due, self.bytes) = (None, 0);
        std::mem::take(&mut self.deliveries)
    }
}

/// One delivery among those that go to one route.
struct Entry<'a> {
    /// Names it in every request of its batch.
    id: Uuid,
    course: Course<'a>,
    event: Arc<Event>,
}

impl Entry<'_> {
    fn told(&self) -> BatchEntry {
        let (event, metadata) = (Arc::clone(&self.event), Arc::clone(&self.course.metadata));
        BatchEntry { id: self.id, event, attempt: self.course.attempt, metadata }
    }
}

impl Context {
    /// A batch, from its arrival until each of its deliveries has come to its end. The rules are those of the moment it
    /// began.
    pub(super) async fn carry_batch(&self, deliveries: Vec<Delivery>) {
        let topology = &*self.topology.load_full();
        let rules = self.live.rules();
        let mut groups: Vec<(Arc<str>, Vec<Entry<'_>>)> = Vec::new();
        let mut unfit = FuturesUnordered::new();
        let count = deliveries.len();
        for delivery in deliveries {
            let mut course = self.begin(topology, Arc::clone(&rules), delivery);
            let (event, path) = match self.examine(topology, &mut course) {
                Ok(fit) => fit,
                Err(disposition) => {
                    unfit.push(self.conclude(topology, course, disposition));
                    continue;
                }
            };
            let entry = Entry { id: topology.environment.random.uuid(), course, event };
            match groups.iter_mut().find(|(known, _)| *known == path) {
                Some((_, entries)) => entries.push(entry),
                None => {
                    let mut entries = Vec::with_capacity(count);
                    entries.push(entry);
                    groups.push((path, entries));
                }
            }
        }
        let mut groups: FuturesUnordered<_> =
            groups.into_iter().map(|(path, entries)| self.carry_group(topology, &rules, path, entries)).collect();
        join(all(&mut unfit), all(&mut groups)).await;
    }

    /// The deliveries that go to one route: as many requests as the inbound policy allows, each with what failed before.
    async fn carry_group<'a>(
        &'a self,
        topology: &Topology,
        rules: &Rules,
        path: Arc<str>,
        mut entries: Vec<Entry<'a>>,
    ) {
        let policed = self.policed(topology);
        let mut attempts = Attempts::new(policed.policy, &topology.environment.random);
        let mut ends = FuturesUnordered::new();
        loop {
            let overspent = entries.extract_if(.., |entry| entry.course.is_overspent());
            ends.extend(overspent.map(|Entry { course, .. }| {
                let disposition = self.overspent(&course);
                self.conclude(topology, course, disposition)
            }));
            if entries.is_empty() {
                break;
            }
            let is_last = attempts.is_last() || entries.iter().all(|entry| entry.course.is_spent());
            let info = self.batch_info(&topology.environment.random, &path, is_last);
            let request = self.request(topology, rules, &policed, &entries, info);
            let answered = tokio::select! {
                biased;
                answered = meanwhile(&mut ends, request) => answered,
                () = self.stopping.abandoned.cancelled() => {
                    ends.extend(entries.into_iter().map(|entry| self.conclude(topology, entry.course, Disposition::Hold)));
                    break;
                }
            };
            let mut failed = Vec::new();
            for (mut entry, result) in pair(entries, answered) {
                let decided = match result {
                    Err(refused) => Ok(self.kept_off(refused, &mut entry.course)),
                    Ok(result) => self.judge(result, &mut entry.course),
                };
                match decided {
                    Ok(disposition) => ends.push(self.conclude(topology, entry.course, disposition)),
                    Err(Failure { what, code })
                        if attempts.is_last() || entry.course.is_spent() || !attempts.retries(code) =>
                    {
                        let disposition = self.give_up(Reason::Exhausted(what), &entry.course);
                        ends.push(self.conclude(topology, entry.course, disposition));
                    }
                    Err(failure) => failed.push((entry, failure.what)),
                }
            }
            let wait = if failed.is_empty() { None } else { attempts.advance() };
            if wait.is_some() {
                policed.retried();
            }
            let again = meanwhile(&mut ends, self.wait_for_next_of(failed, wait.unwrap_or_default())).await;
            let numbered = again.into_iter().filter_map(|(mut entry, goes_on)| {
                if goes_on && self.number_next(&mut entry.course) {
                    return Some(entry);
                }
                ends.push(self.conclude(topology, entry.course, Disposition::Hold));
                None
            });
            entries = numbered.collect();
        }
        all(&mut ends).await;
    }

    /// Waits for the next request with those that failed. All came on one feed, so either all of them go on or none.
    async fn wait_for_next_of<'a>(&self, failed: Vec<(Entry<'a>, String)>, wait: Duration) -> Vec<(Entry<'a>, bool)> {
        for (entry, what) in &failed {
            events::attempt_failed(self.about(&entry.course), what, wait);
        }
        let goes_on = match failed.first() {
            Some((entry, _)) => self.wait_out(&entry.course.delivery, wait).await,
            None => false,
        };
        failed.into_iter().map(|(entry, _)| (entry, goes_on)).collect()
    }

    /// A delivery of a batch comes to its end, or goes on alone until it does: see [`Context::in_turn`].
    async fn conclude(&self, topology: &Topology, mut course: Course<'_>, decided: Disposition) {
        let disposition = tokio::select! {
            biased;
            disposition = self.in_turn(topology, &mut course, decided) => disposition,
            () = self.stopping.abandoned.cancelled() => Disposition::Hold,
        };
        self.end(topology, course, disposition).await;
    }

    /// One request. To the circuit breaker it is one attempt, which has failed if nothing in it went well: an app that has
    /// trouble with one event of many is not down.
    ///
    /// # Errors
    /// The breaker does not let it pass.
    async fn request(
        &self,
        topology: &Topology,
        rules: &Rules,
        policed: &Policed<'_>,
        entries: &[Entry<'_>],
        mut info: BatchInfo,
    ) -> Result<Result<Outcomes, HandlerError>, Refused> {
        let leave = policed.enter()?;
        let spans = begin_spans(&topology.environment.tracer, entries, &mut info);
        let begun = Instant::now();
        let told = entries.iter().map(Entry::told).collect();
        let mut answered = within(policed, rules.subscription.handler.deliver_batch(told, info)).await;
        if let Err(HandlerError::Status(status)) = answered
            && let Some(outcome) = self.statuses.meaning(status, true)
        {
            answered = Ok(vec![Ok(outcome); entries.len()]);
        }
        end_spans(spans, &answered);
        step("deliver.handled");
        if answered == Err(HandlerError::Unwell) {
            return Ok(answered);
        }
        // A worker that is gone says nothing about the app: its leave is given back.
        if answered != Err(HandlerError::Gone) {
            leave.end(answered.as_ref().is_ok_and(|outcomes| outcomes.iter().any(is_done)));
        }
        let took = begun.elapsed();
        self.counts.attempted_batch(took);
        for (number, entry) in entries.iter().enumerate() {
            let status = match &answered {
                Ok(outcomes) => outcomes.get(number).map_or(Status::Retry, Status::of),
                Err(_) => Status::Retry,
            };
            self.counts.attempted_in_batch(entry.course.attempt, status, took);
        }
        Ok(answered)
    }

    /// A batch of one, for what goes on alone.
    pub(super) async fn attempt_alone(
        &self,
        topology: &Topology,
        rules: &Rules,
        event: &Arc<Event>,
        info: &DeliveryInfo,
    ) -> Result<Outcome, HandlerError> {
        let random = &topology.environment.random;
        let (event, metadata) = (Arc::clone(event), Arc::clone(&info.metadata));
        let entry = BatchEntry { id: random.uuid(), event, attempt: info.attempt, metadata };
        let trace = if topology.environment.tracer.is_off() { None } else { info.trace.or(Some(TraceParent::NONE)) };
        let info = BatchInfo { trace, ..self.batch_info(random, &info.path, info.last_attempt) };
        let mut outcomes = rules.subscription.handler.deliver_batch(vec![entry], info).await?;
        outcomes.pop().unwrap_or_else(unanswered)
    }

    fn batch_info(&self, random: &Random, path: &Arc<str>, last_attempt: bool) -> BatchInfo {
        BatchInfo {
            id: random.uuid(),
            pubsub: Arc::clone(&self.pubsub),
            topic: Arc::clone(&self.topic),
            path: Arc::clone(path),
            last_attempt,
            raw: self.raw == Ok(true),
            trace: None,
        }
    }
}

/// Begins the attempts of a batch, each in the trace of its event, and says what the app is told of them. Those that are
/// sampled, with their places.
fn begin_spans(tracer: &Tracer, entries: &[Entry<'_>], info: &mut BatchInfo) -> Vec<(usize, Recording)> {
    let mut spans = Vec::new();
    info.trace = (!tracer.is_off()).then_some(TraceParent::NONE);
    for (place, Entry { course, event, .. }) in entries.iter().enumerate() {
        let (trace, span) = tracer.begin_delivery(event, &course.delivery.message.topic, course.attempt);
        if entries.len() == 1 {
            info.trace = trace.or(info.trace);
        }
        if span.is_sampled() {
            spans.push((place, span));
        }
    }
    spans
}

fn end_spans(spans: Vec<(usize, Recording)>, answered: &Result<Outcomes, HandlerError>) {
    for (place, span) in spans {
        span.end(|span| {
            span.error = match answered {
                Ok(outcomes) => not_taken(outcomes.get(place).unwrap_or(&unanswered())),
                Err(error) => Some(error.to_string()),
            };
        });
    }
}

/// Each entry with what became of it.
fn pair<'a>(
    entries: Vec<Entry<'a>>,
    answered: Result<Result<Outcomes, HandlerError>, Refused>,
) -> impl Iterator<Item = (Entry<'a>, Result<Result<Outcome, HandlerError>, Refused>)> {
    let (outcomes, instead) = match answered {
        Ok(Ok(outcomes)) => (outcomes, Ok(unanswered())),
        Ok(Err(error)) => (Outcomes::new(), Ok(Err(error))),
        Err(refused) => (Outcomes::new(), Err(refused)),
    };
    let outcomes = outcomes.into_iter().map(Ok).chain(std::iter::repeat(instead));
    entries.into_iter().zip(outcomes)
}

/// The handler said nothing of an event.
fn unanswered() -> Result<Outcome, HandlerError> {
    Err(HandlerError::Failed("the handler said nothing of this event".to_owned()))
}

#[cfg(test)]
mod tests;
