//! Tests of batches on the real channels with paused time: when one goes, and what becomes of each of its deliveries.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use whimbrel_resources::{Backoff, Matching, Policies, Policy, Retry, Rule, Subscription as Declared, TopicScopes};

use super::super::live::Live;
use super::*;
use crate::{
    Arrived, BatchJob, Broker, BrokerJob, Feed, FeedJob, Handler, HandlerJob, Message, Verdict, deliver, fakes,
};

/// How long a batch waits to be filled.
const WAIT: Duration = Duration::from_millis(200);

/// The far ends of everything the spine touches, with one feed open.
struct Ends {
    broker: mpsc::Receiver<BrokerJob>,
    events: mpsc::Receiver<HandlerJob>,
    batches: mpsc::Receiver<BatchJob>,
    deliveries: mpsc::Sender<Vec<Arrived>>,
    jobs: mpsc::Receiver<FeedJob>,
    leave: CancellationToken,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn declared(max_messages: u32, dead_letter_topic: Option<&str>, metadata: &[(&str, &str)]) -> Declared {
    let bulk = Some(Bulk { max_messages, max_wait: WAIT });
    Declared { bulk, ..fakes::declared("t", dead_letter_topic, metadata) }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(120), future).await.expect("it takes too long")
}

async fn spine(policies: Policies, declared: Declared) -> Ends {
    let (bus, mut broker) = Broker::new(Arc::new(fakes::component(TopicScopes::default())));
    let (handler, events, batches) = Handler::with_batches();
    let topology = Arc::new(ArcSwap::from_pointee(fakes::topology(bus, policies, 1)));
    let subscription = Arc::new(Live::new(fakes::subscription(declared, "me", handler)));
    let stop = CancellationToken::new();
    let task = tokio::spawn(deliver(subscription, topology, oneshot::channel().0, stop.clone()));
    let Some(BrokerJob::Subscribe(job)) = soon(broker.recv()).await else { panic!("no subscription") };
    let (deliveries, near) = mpsc::channel(16);
    let (near_jobs, jobs) = mpsc::channel(64);
    let leave = CancellationToken::new();
    let feed = Feed { deliveries: near, jobs: near_jobs, ended: oneshot::channel().1, leave: leave.clone() };
    job.reply.send(Ok(feed)).expect("somebody waits");
    Ends { broker, events, batches, deliveries, jobs, leave, stop, task }
}

async fn plain(max_messages: u32) -> Ends {
    spine(Policies::default(), declared(max_messages, None, &[])).await
}

impl Ends {
    async fn deliver(&self, arrived: impl IntoIterator<Item = Arrived>) {
        self.deliveries.send(arrived.into_iter().collect()).await.expect("the spine takes it");
    }

    /// The next batch, which has these tokens.
    #[track_caller]
    fn batch(&mut self, expect: &[u64]) -> impl Future<Output = BatchJob> {
        let (place, expect) = (std::panic::Location::caller(), expect.to_vec());
        async move {
            let job = soon(self.batches.recv()).await.expect("a batch");
            let found: Vec<u64> = job.entries.iter().map(|entry| token(&entry.event)).collect();
            assert_eq!(found, expect, "{place}");
            job
        }
    }

    /// What the broker is told next, and in which order it does not matter.
    async fn verdicts(&mut self, count: usize) -> Vec<(u64, Verdict)> {
        let mut verdicts = Vec::new();
        while verdicts.len() < count {
            match soon(self.jobs.recv()).await {
                Some(FeedJob::Settle { token, verdict, reply }) => {
                    reply.send(Ok(())).expect("somebody waits");
                    verdicts.push((token, verdict));
                }
                other => panic!("{other:?}"),
            }
        }
        verdicts.sort_by_key(|(token, _)| *token);
        verdicts
    }

    /// The next dead letter's token; it is confirmed.
    async fn dead_letter(&mut self) -> u64 {
        let Some(BrokerJob::Publish(job)) = soon(self.broker.recv()).await else { panic!("no dead letter") };
        let [message] = &*job.messages else { panic!("{} dead letters", job.messages.len()) };
        assert_eq!(&*message.topic, "dead");
        let text = String::from_utf8_lossy(&message.data).into_owned();
        job.reply.send(vec![Ok(())]).expect("somebody waits");
        let digits = text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit);
        digits.collect::<String>().parse().expect("a token")
    }

    async fn order(&mut self) -> (&'static str, oneshot::Sender<()>) {
        match soon(self.jobs.recv()).await {
            Some(FeedJob::Pause(done)) => ("pause", done),
            Some(FeedJob::Stop(done)) => ("stop", done),
            other => panic!("{other:?}"),
        }
    }
}

/// A message that is told apart by its token.
fn arrived(token: u64) -> Arrived {
    let plain = fakes::arrived(token, &token.to_string(), None);
    let data = format!("{{\"data\":{token}}}").into();
    Arrived { message: Message { data, ..plain.message }, ..plain }
}

fn with_key(token: u64, key: &str) -> Arrived {
    let plain = arrived(token);
    Arrived { message: Message { key: Some(key.to_owned()), ..plain.message }, ..plain }
}

fn with_data(token: u64, data: &'static str) -> Arrived {
    let plain = arrived(token);
    Arrived { message: Message { data: data.into(), ..plain.message }, ..plain }
}

fn token(event: &Event) -> u64 {
    String::from_utf8_lossy(&event.data()).parse().expect("a token")
}

fn answer(job: BatchJob, outcomes: &[Result<Outcome, HandlerError>]) {
    job.reply.send(Ok(outcomes.to_vec())).expect("somebody waits");
}

fn retrying(max_retries: u32, timeout: Option<Duration>) -> Policies {
    let backoff = Backoff::Constant(Duration::from_secs(1));
    let retry = Retry { backoff, max_retries: Some(max_retries), matching: Matching::default() };
    fakes::policies(Policy { timeout, retry: Some(retry), ..Policy::default() })
}

const SUCCESS: Result<Outcome, HandlerError> = Ok(Outcome::Success);
const RETRY: Result<Outcome, HandlerError> = Ok(Outcome::Retry);
const DROP: Result<Outcome, HandlerError> = Ok(Outcome::Drop);

fn acks(tokens: impl IntoIterator<Item = u64>) -> Vec<(u64, Verdict)> {
    tokens.into_iter().map(|token| (token, Verdict::Ack)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_goes_at_once_and_another_in_time() {
    let mut ends = plain(3).await;
    let begun = Instant::now();
    ends.deliver((1..=4).map(arrived)).await;
    let full = ends.batch(&[1, 2, 3]).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let info = &full.info;
    assert_eq!(
        (&*info.pubsub, &*info.topic, &*info.path, info.last_attempt, info.raw),
        ("bus", "t", "/in", true, false)
    );
    tokio::time::sleep(WAIT / 2).await;
    ends.deliver([arrived(5)]).await;
    let late = ends.batch(&[4, 5]).await;
    assert_eq!(begun.elapsed(), WAIT, "the first of a batch begins its time");
    answer(late, &[SUCCESS, SUCCESS]);
    assert_eq!(ends.verdicts(2).await, acks([4, 5]), "batches do not wait for one another");
    answer(full, &[SUCCESS, SUCCESS, SUCCESS]);
    assert_eq!(ends.verdicts(3).await, acks([1, 2, 3]));
    assert!(ends.events.try_recv().is_err());
}

/// Nobody waits for what cannot come.
#[tokio::test(start_paused = true)]
async fn a_batch_is_no_larger_than_the_subscriptions_concurrency() {
    for metadata in [("maxUnsettled", "2"), ("maxConcurrency", "2")] {
        let mut ends = spine(Policies::default(), declared(9, None, &[metadata])).await;
        let begun = Instant::now();
        ends.deliver((1..=3).map(arrived)).await;
        let first = ends.batch(&[1, 2]).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tokio::time::sleep(10 * WAIT).await;
        assert!(ends.batches.try_recv().is_err(), "a third one runs");
        // One is done with, the other is not: there is a place again.
        answer(first, &[SUCCESS, SUCCESS]);
        let Some(FeedJob::Settle { reply, .. }) = soon(ends.jobs.recv()).await else { panic!("no verdict") };
        reply.send(Ok(())).expect("somebody waits");
        ends.batch(&[3]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_a_bound_in_bytes() {
    let mut ends = plain(100).await;
    let large = format!("{{\"data\":1,\"more\":\"{}\"}}", "x".repeat(BATCH_BYTES_MAX / 2));
    let large = || Arrived { message: Message { data: large.clone().into(), ..arrived(1).message }, ..arrived(1) };
    let begun = Instant::now();
    ends.deliver([large(), large(), arrived(2)]).await;
    ends.batch(&[1, 1]).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    ends.batch(&[2]).await;
}

#[tokio::test(start_paused = true)]
async fn only_what_failed_is_sent_again() {
    let mut ends = spine(retrying(2, None), declared(4, Some("dead"), &[])).await;
    ends.deliver((1..=4).map(arrived)).await;
    let first = ends.batch(&[1, 2, 3, 4]).await;
    let ids: Vec<Uuid> = first.entries.iter().map(|entry| entry.id).collect();
    assert_eq!((first.info.last_attempt, first.entries[1].attempt), (false, 1));
    let failed = || Err(HandlerError::Failed("x".into()));
    answer(first, &[SUCCESS, RETRY, DROP, failed()]);
    assert_eq!(ends.dead_letter().await, 3, "dropped entries do not wait for the others");
    assert_eq!(ends.verdicts(2).await, acks([1, 3]));
    let begun = Instant::now();
    let second = ends.batch(&[2, 4]).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    let told: Vec<_> = second.entries.iter().map(|entry| (entry.id, entry.attempt)).collect();
    assert_eq!(told, [(ids[1], 2), (ids[3], 2)], "an entry keeps its id");
    answer(second, &[SUCCESS, RETRY]);
    assert_eq!(ends.verdicts(1).await, acks([2]));
    let third = ends.batch(&[4]).await;
    assert!(third.info.last_attempt);
    answer(third, &[RETRY]);
    assert_eq!(ends.dead_letter().await, 4);
    assert_eq!(ends.verdicts(1).await, acks([4]));
}

/// One batch of two without a policy: what the broker is told of them.
async fn check(reply: Option<Result<Outcomes, HandlerError>>, expect: [Verdict; 2]) {
    let mut ends = plain(2).await;
    ends.deliver([arrived(1), arrived(2)]).await;
    let job = ends.batch(&[1, 2]).await;
    match reply.clone() {
        Some(reply) => job.reply.send(reply).expect("somebody waits"),
        None => drop(job),
    }
    let verdicts = ends.verdicts(2).await.into_iter().map(|(_, verdict)| verdict).collect::<Vec<_>>();
    assert_eq!(verdicts, expect, "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn outcomes_become_verdicts() {
    let retry = Verdict::Retry(Duration::from_secs(1));
    check(Some(Ok(vec![SUCCESS, RETRY])), [Verdict::Ack, retry]).await;
    check(Some(Ok(vec![DROP, SUCCESS])), [Verdict::Ack, Verdict::Ack]).await;
    check(Some(Ok(vec![SUCCESS])), [Verdict::Ack, retry]).await;
    check(Some(Ok(vec![])), [retry, retry]).await;
    check(Some(Ok(vec![SUCCESS; 3])), [Verdict::Ack, Verdict::Ack]).await;
    check(Some(Err(HandlerError::Status(500))), [retry, retry]).await;
    check(None, [retry, retry]).await;
}

/// As Dapr has it: no dead letter, unlike a single event.
#[tokio::test(start_paused = true)]
async fn what_no_route_takes_batches_for_is_dropped_without_a_dead_letter() {
    let mut ends = spine(retrying(2, None), declared(2, Some("dead"), &[])).await;
    ends.deliver([arrived(1), arrived(2)]).await;
    let refuse = |job: BatchJob| job.reply.send(Err(HandlerError::Status(404))).expect("somebody waits");
    refuse(ends.batch(&[1, 2]).await);
    assert_eq!(ends.verdicts(2).await, acks([1, 2]));
    assert!(ends.broker.try_recv().is_err(), "a dead letter");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_does_not_answer_is_bounded_as_with_a_single_event() {
    let mut ends = spine(retrying(1, Some(Duration::from_secs(3))), declared(2, None, &[])).await;
    ends.deliver([arrived(1), arrived(2)]).await;
    let first = ends.batch(&[1, 2]).await;
    let begun = Instant::now();
    let second = ends.batch(&[1, 2]).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(3 + 1));
    assert!(first.reply.is_closed(), "nobody waits for the first any more");
    answer(second, &[SUCCESS, SUCCESS]);
    assert_eq!(ends.verdicts(2).await, acks([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn events_of_one_batch_go_to_their_routes() {
    let rule = Rule::new("event.data > 2", "/large").expect("a rule");
    let mut ends = spine(Policies::default(), Declared { rules: vec![rule], ..declared(4, None, &[]) }).await;
    ends.deliver([3, 1, 4, 2].map(arrived)).await;
    let large = ends.batch(&[3, 4]).await;
    let others = ends.batch(&[1, 2]).await;
    assert_eq!((&*large.info.path, &*others.info.path), ("/large", "/in"));
    answer(others, &[SUCCESS, SUCCESS]);
    assert_eq!(ends.verdicts(2).await, acks([1, 2]), "no route waits for another");
    answer(large, &[SUCCESS, SUCCESS]);
    assert_eq!(ends.verdicts(2).await, acks([3, 4]));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_fit_leaves_the_batch_alone() {
    let rule = Rule::new("event.data != 9", "/in").expect("a rule");
    let declared = Declared { rules: vec![rule], default_route: None, ..declared(5, Some("dead"), &[]) };
    let mut ends = spine(Policies::default(), declared).await;
    let expired = r#"{"data":3,"expiration":"1999-09-09T00:00:00Z"}"#;
    ends.deliver([arrived(1), with_data(2, "poison 2"), with_data(3, expired), arrived(9), arrived(5)]).await;
    let job = ends.batch(&[1, 5]).await;
    let mut dead = vec![ends.dead_letter().await, ends.dead_letter().await, ends.dead_letter().await];
    dead.sort_unstable();
    assert_eq!(dead, [2, 3, 9], "each alone");
    assert_eq!(ends.verdicts(3).await, acks([2, 3, 9]), "before the app has answered");
    answer(job, &[SUCCESS, SUCCESS]);
    assert_eq!(ends.verdicts(2).await, acks([1, 5]));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_what_waits_go_at_once() {
    let mut ends = plain(9).await;
    ends.deliver([arrived(1), arrived(2)]).await;
    tokio::time::sleep(WAIT / 2).await;
    let begun = Instant::now();
    ends.stop.cancel();
    let (pause, paused) = ends.order().await;
    paused.send(()).expect("somebody waits");
    let job = ends.batch(&[1, 2]).await;
    assert_eq!((pause, begun.elapsed()), ("pause", Duration::ZERO));
    // What fails now stays with the broker: nothing is given back with a penalty.
    answer(job, &[SUCCESS, RETRY]);
    assert_eq!(ends.verdicts(1).await, acks([1]));
    let (stop, stopped) = ends.order().await;
    assert_eq!(stop, "stop");
    stopped.send(()).expect("somebody waits");
    soon(ends.task).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_is_left_lets_what_waits_go_at_once() {
    let mut ends = plain(9).await;
    ends.deliver([arrived(1)]).await;
    tokio::time::sleep(WAIT / 2).await;
    let begun = Instant::now();
    ends.leave.cancel();
    let first = ends.batch(&[1]).await;
    let (_, paused) = ends.order().await;
    ends.deliver([arrived(2), arrived(3)]).await;
    let second = ends.batch(&[2, 3]).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "nor does what still comes wait");
    answer(first, &[SUCCESS]);
    answer(second, &[SUCCESS, SUCCESS]);
    assert_eq!(ends.verdicts(3).await, acks([1, 2, 3]));
    paused.send(()).expect("somebody waits");
    assert_eq!(ends.order().await.0, "stop");
}

#[tokio::test(start_paused = true)]
async fn what_waits_on_a_feed_that_is_lost_is_left_with_the_broker() {
    let Ends { mut broker, mut batches, deliveries, jobs, .. } = plain(9).await;
    deliveries.send(vec![arrived(1)]).await.expect("the spine takes it");
    tokio::time::sleep(WAIT / 2).await;
    drop((deliveries, jobs));
    assert!(matches!(soon(broker.recv()).await, Some(BrokerJob::Subscribe(_))), "another feed");
    tokio::time::sleep(WAIT).await;
    assert!(batches.try_recv().is_err());
}

/// A request is one attempt to the breaker, and it has failed only if nothing in it went well.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_gives_the_whole_batch_back() {
    let mut policies = Policies::default();
    policies.inbound_default.breaker = Some(fakes::breaker("consecutiveFailures > 1"));
    let mut ends = spine(policies, declared(2, Some("dead"), &[])).await;
    for answers in [[SUCCESS, RETRY], [RETRY, RETRY], [DROP, RETRY], [RETRY, RETRY], [RETRY, RETRY]] {
        ends.deliver([arrived(1), arrived(2)]).await;
        answer(ends.batch(&[1, 2]).await, &answers);
        for _ in answers.iter().filter(|answer| **answer != SUCCESS) {
            ends.dead_letter().await;
        }
        ends.verdicts(2).await;
    }
    ends.deliver([arrived(3), arrived(4)]).await;
    let back = Verdict::Retry(Duration::from_secs(60));
    assert_eq!(ends.verdicts(2).await, [(3, back), (4, back)]);
    assert!(ends.batches.try_recv().is_err(), "the app was called");
    assert!(ends.broker.try_recv().is_err(), "a dead letter");
}

/// A batch has one message of a key. One that fails keeps its key's turn and goes on alone, in a batch of one.
#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_order() {
    let mut ends = spine(Policies::default(), declared(9, None, &[("orderPerKey", "true")])).await;
    ends.deliver([with_key(1, "a"), with_key(2, "a"), with_key(3, "b")]).await;
    answer(ends.batch(&[1, 3]).await, &[RETRY, SUCCESS]);
    assert_eq!(ends.verdicts(1).await, acks([3]));
    ends.deliver([with_key(4, "b")]).await;
    answer(ends.batch(&[4]).await, &[SUCCESS]);
    assert_eq!(ends.verdicts(1).await, acks([4]), "other keys go on");
    let again = ends.batch(&[1]).await;
    assert_eq!(again.entries[0].attempt, 2);
    answer(again, &[SUCCESS]);
    assert_eq!(ends.verdicts(1).await, acks([1]));
    answer(ends.batch(&[2]).await, &[SUCCESS]);
    assert_eq!(ends.verdicts(1).await, acks([2]));
}

/// A component takes one event at a time, whatever the subscription says.
#[tokio::test(start_paused = true)]
async fn a_handler_without_batches_gets_events_one_by_one() {
    let (bus, mut broker) = Broker::new(Arc::new(fakes::component(TopicScopes::default())));
    let (handler, mut events) = Handler::new();
    let topology = Arc::new(ArcSwap::from_pointee(fakes::topology(bus, Policies::default(), 1)));
    let subscription = Arc::new(Live::new(fakes::subscription(declared(9, None, &[]), "me", handler)));
    tokio::spawn(deliver(subscription, topology, oneshot::channel().0, CancellationToken::new()));
    let Some(BrokerJob::Subscribe(job)) = soon(broker.recv()).await else { panic!("no subscription") };
    let (deliveries, near) = mpsc::channel(16);
    let (jobs, _verdicts) = mpsc::channel(16);
    let feed = Feed { deliveries: near, jobs, ended: oneshot::channel().1, leave: CancellationToken::new() };
    job.reply.send(Ok(feed)).expect("somebody waits");
    let begun = Instant::now();
    deliveries.send(vec![arrived(1), arrived(2)]).await.expect("the spine takes it");
    for number in [1, 2] {
        assert_eq!(token(&soon(events.recv()).await.expect("an event").event), number);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "nor do they wait");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_by_event_and_by_request() {
    let (bus, mut broker) = Broker::new(Arc::new(fakes::component(TopicScopes::default())));
    let (handler, _events, mut batches) = Handler::with_batches();
    let topology = Arc::new(ArcSwap::from_pointee(fakes::topology(bus, retrying(1, None), 1)));
    let metrics = topology.load().environment.metrics.clone();
    let subscription = Arc::new(Live::new(fakes::subscription(declared(3, None, &[]), "me", handler)));
    tokio::spawn(deliver(subscription, topology, oneshot::channel().0, CancellationToken::new()));
    let Some(BrokerJob::Subscribe(job)) = soon(broker.recv()).await else { panic!("no subscription") };
    let (deliveries, near) = mpsc::channel(16);
    let (jobs, mut verdicts) = mpsc::channel(16);
    let feed = Feed { deliveries: near, jobs, ended: oneshot::channel().1, leave: CancellationToken::new() };
    job.reply.send(Ok(feed)).expect("somebody waits");
    deliveries.send((1..=3).map(arrived).collect()).await.expect("the spine takes it");
    answer(soon(batches.recv()).await.expect("a batch"), &[SUCCESS, RETRY, DROP]);
    answer(soon(batches.recv()).await.expect("another"), &[SUCCESS]);
    for _ in 0..3 {
        let Some(FeedJob::Settle { reply, .. }) = soon(verdicts.recv()).await else { panic!("no verdict") };
        reply.send(Ok(())).expect("somebody waits");
    }
    let common = r#"app_id="me",component="bus""#;
    let event = |word: &str| format!(r#"{{{common},namespace="",process_status="{word}",topic="t"}}"#);
    for line in [
        format!("dapr_component_pubsub_ingress_bulk_count{} 2", event("")),
        format!("dapr_component_pubsub_ingress_bulk_event_count{} 2", event("success")),
        format!("dapr_component_pubsub_ingress_bulk_event_count{} 1", event("retry")),
        format!("dapr_component_pubsub_ingress_bulk_event_count{} 1", event("drop")),
        format!(r#"whimbrel_delivery_attempts_total{{{common},topic="t"}} 4"#),
        format!(r#"whimbrel_delivery_further_attempts_total{{{common},topic="t"}} 1"#),
    ] {
        assert!(metrics.text().lines().any(|found| found == line), "no {line} in\n{}", metrics.text());
    }
}

/// An app that is ill was not asked: no attempt is charged, whatever the policy, and no breaker hears of it.
#[tokio::test(start_paused = true)]
async fn who_was_not_asked_has_not_failed() {
    let mut policies = retrying(0, None);
    policies.inbound_default.breaker = Some(fakes::breaker("consecutiveFailures > 0"));
    let mut ends = spine(policies, declared(2, Some("dead"), &[])).await;
    for _ in 0..2 {
        ends.deliver([arrived(1), arrived(2)]).await;
        let job = ends.batch(&[1, 2]).await;
        assert!(job.entries.iter().all(|entry| entry.attempt == 1));
        job.reply.send(Err(HandlerError::Unwell)).expect("somebody waits");
        let verdicts = ends.verdicts(2).await;
        assert!(verdicts.iter().all(|(_, verdict)| matches!(verdict, Verdict::Retry(_))), "{verdicts:?}");
    }
    assert!(ends.broker.try_recv().is_err(), "a dead letter");
}

/// `countRedeliveries`: the events of a batch have each a number of attempts, of which other deliveries have had some.
#[tokio::test(start_paused = true)]
async fn each_event_has_attempts_of_its_own() {
    let counted = declared(3, None, &[("countRedeliveries", "true")]);
    let mut ends = spine(retrying(2, None), counted).await;
    let delivered = |token, count| Arrived { count: Some(count), ..arrived(token) };
    ends.deliver([delivered(1, 1), delivered(2, 3), delivered(3, 4)]).await;
    let job = ends.batch(&[1, 2]).await;
    assert!(!job.info.last_attempt);
    answer(job, &[RETRY, RETRY]);
    assert_eq!(ends.verdicts(2).await, acks([2, 3]), "one before the request, one after it");
    let job = ends.batch(&[1]).await;
    answer(job, &[RETRY]);
    let job = ends.batch(&[1]).await;
    assert!(job.info.last_attempt);
    answer(job, &[RETRY]);
    assert_eq!(ends.verdicts(1).await, acks([1]));
}
