//! Tests of the delivery spine on the real channels with paused time: what becomes of each outcome, subscribing, and
//! stopping in good order. Everything at once is in `simulation`.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use whimbrel_resources::{Backoff, Codes, Matching, Policies, Policy, Retry, TopicScopes};

mod breaker;
mod health;
mod redeliveries;

use super::*;
use crate::{
    Arrived, Broker, BrokerError, BrokerJob, Feed, FeedJob, Handler, HandlerJob, Message, SubscribeJob, Verdict, fakes,
};

/// The far ends of everything the spine touches.
struct Ends {
    broker: mpsc::Receiver<BrokerJob>,
    handler: mpsc::Receiver<HandlerJob>,
    ready: oneshot::Receiver<()>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    live: Arc<Live>,
    metrics: crate::Metrics,
}

/// A live feed's far ends.
struct FarFeed {
    deliveries: mpsc::Sender<Vec<Arrived>>,
    jobs: mpsc::Receiver<FeedJob>,
    leave: CancellationToken,
}

fn spine(scopes: TopicScopes, policies: Policies, declared: whimbrel_resources::Subscription) -> Ends {
    watched(scopes, policies, declared, None)
}

/// The same with a handler that may fall ill.
fn watched(
    scopes: TopicScopes,
    policies: Policies,
    declared: whimbrel_resources::Subscription,
    well: Option<watch::Receiver<bool>>,
) -> Ends {
    on(Broker::new(Arc::new(fakes::component(scopes))), policies, declared, well)
}

/// The same with a broker that can do this.
fn featured(features: crate::Features, policies: Policies, declared: whimbrel_resources::Subscription) -> Ends {
    let (bus, jobs) = Broker::new(Arc::new(fakes::component(TopicScopes::default())));
    bus.features.set(features).expect("the first");
    on((bus, jobs), policies, declared, None)
}

fn on(
    (bus, broker): (Broker, mpsc::Receiver<BrokerJob>),
    policies: Policies,
    declared: whimbrel_resources::Subscription,
    well: Option<watch::Receiver<bool>>,
) -> Ends {
    let (handle, handler) = Handler::new();
    let topology = fakes::topology(bus, policies, 1);
    let metrics = topology.environment.metrics.clone();
    let topology = Arc::new(ArcSwap::from_pointee(topology));
    let live = Arc::new(Live::new(fakes::subscription(declared, "me", handle.watched(well))));
    let (tell, ready) = oneshot::channel();
    let stop = CancellationToken::new();
    let task = tokio::spawn(deliver(Arc::clone(&live), topology, tell, stop.clone()));
    Ends { broker, handler, ready, stop, task, live, metrics }
}

fn plain() -> Ends {
    spine(TopicScopes::default(), Policies::default(), fakes::declared("t", None, &[]))
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(120), future).await.expect("it takes too long")
}

impl Ends {
    async fn subscribed(&mut self) -> SubscribeJob {
        match soon(self.broker.recv()).await {
            Some(BrokerJob::Subscribe(job)) => job,
            other => panic!("{other:?}"),
        }
    }

    async fn feed(&mut self) -> FarFeed {
        let job = self.subscribed().await;
        let (deliveries, near) = mpsc::channel(16);
        let (near_jobs, jobs) = mpsc::channel(16);
        let (_, ended) = oneshot::channel();
        let leave = CancellationToken::new();
        let feed = Feed { deliveries: near, jobs: near_jobs, ended, leave: leave.clone() };
        job.reply.send(Ok(feed)).expect("somebody waits");
        FarFeed { deliveries, jobs, leave }
    }

    async fn attempt(&mut self) -> HandlerJob {
        soon(self.handler.recv()).await.expect("an attempt")
    }

    /// Answers attempts in turn, and gives what the handler was told: attempt, and whether it is the last.
    async fn answer(&mut self, answers: &[Result<Outcome, HandlerError>]) -> Vec<(u32, bool)> {
        let mut told = Vec::new();
        for answer in answers {
            let job = self.attempt().await;
            told.push((job.info.attempt, job.info.last_attempt));
            job.reply.send(answer.clone()).expect("somebody waits");
        }
        told
    }
}

impl FarFeed {
    async fn deliver(&self, arrived: Arrived) {
        self.deliveries.send(vec![arrived]).await.expect("the spine takes it");
    }

    async fn verdict(&mut self) -> (u64, Verdict) {
        match soon(self.jobs.recv()).await {
            Some(FeedJob::Settle { token, verdict, reply }) => {
                reply.send(Ok(())).expect("somebody waits");
                (token, verdict)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn constant(max_retries: u32, timeout: Option<Duration>) -> Policies {
    let retry = Retry {
        backoff: Backoff::Constant(Duration::from_secs(1)),
        max_retries: Some(max_retries),
        matching: Matching::default(),
    };
    fakes::policies(Policy { timeout, retry: Some(retry), ..Policy::default() })
}

fn retry(seconds: u64) -> Verdict {
    Verdict::Retry(Duration::from_secs(seconds))
}

/// One delivery without a dead-letter topic: the verdict after these answers.
async fn check(policies: Policies, answers: &[Result<Outcome, HandlerError>], expect: Verdict, told: &[(u32, bool)]) {
    let mut ends = spine(TopicScopes::default(), policies, fakes::declared("t", None, &[]));
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", Some(1))).await;
    assert_eq!(ends.answer(answers).await, told, "{answers:?}");
    assert_eq!(feed.verdict().await, (1, expect), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_becomes_a_verdict() {
    let none = Policies::default;
    check(none(), &[Ok(Outcome::Success)], Verdict::Ack, &[(1, true)]).await;
    check(none(), &[Ok(Outcome::Drop)], Verdict::Ack, &[(1, true)]).await;
    check(none(), &[Err(HandlerError::Status(404))], Verdict::Ack, &[(1, true)]).await;
    check(none(), &[Ok(Outcome::Retry)], retry(1), &[(1, true)]).await;
    check(none(), &[Err(HandlerError::Status(500))], retry(1), &[(1, true)]).await;
    check(none(), &[Err(HandlerError::Lost("trap".into()))], retry(1), &[(1, true)]).await;
    let failed = || Err(HandlerError::Failed("x".into()));
    check(constant(2, None), &[failed(), Ok(Outcome::Success)], Verdict::Ack, &[(1, false), (2, false)]).await;
    check(constant(2, None), &[failed(), Ok(Outcome::Drop)], Verdict::Ack, &[(1, false), (2, false)]).await;
    let three = [(1, false), (2, false), (3, true)];
    check(constant(2, None), &[failed(), Ok(Outcome::Retry), failed()], retry(4), &three).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_has_failed() {
    let mut ends =
        spine(TopicScopes::default(), constant(1, Some(Duration::from_secs(3))), fakes::declared("t", None, &[]));
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    let first = ends.attempt().await;
    let begun = Instant::now();
    let second = ends.attempt().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(3 + 1));
    assert!(first.reply.is_closed(), "nobody waits for the first any more");
    second.reply.send(Ok(Outcome::Success)).expect("somebody waits");
    assert_eq!(feed.verdict().await, (1, Verdict::Ack));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_across_redeliveries() {
    let mut ends = spine(TopicScopes::default(), constant(1, None), fakes::declared("t", None, &[]));
    let mut feed = ends.feed().await;
    let failed = || Err(HandlerError::Failed("x".into()));
    feed.deliver(fakes::arrived(1, "m", None)).await;
    assert_eq!(ends.answer(&[failed(), failed()]).await, [(1, false), (2, true)]);
    assert_eq!(feed.verdict().await, (1, retry(2)));
    feed.deliver(fakes::arrived(2, "m", None)).await;
    assert_eq!(ends.answer(&[failed(), Ok(Outcome::Success)]).await, [(3, false), (4, true)]);
    assert_eq!(feed.verdict().await, (2, Verdict::Ack));
    feed.deliver(fakes::arrived(3, "from another process", Some(5))).await;
    assert_eq!(ends.answer(&[Ok(Outcome::Success)]).await, [(5, false)]);
    assert_eq!(feed.verdict().await, (3, Verdict::Ack));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ended_is_nobodys_fault() {
    let declared = fakes::declared("t", Some("dead"), &[]);
    let mut ends = spine(TopicScopes::default(), Policies::default(), declared);
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    drop(ends.attempt().await);
    assert_eq!(feed.verdict().await, (1, retry(1)), "not dead-lettered");
    feed.deliver(fakes::arrived(2, "m", None)).await;
    assert_eq!(ends.answer(&[Ok(Outcome::Success)]).await, [(1, true)], "not charged");
}

/// One delivery with a dead-letter topic that takes it.
async fn check_dead_letter(arrived: Arrived, answers: &[Result<Outcome, HandlerError>]) {
    let mut ends = spine(TopicScopes::default(), Policies::default(), fakes::declared("t", Some("dead"), &[]));
    let mut feed = ends.feed().await;
    feed.deliver(arrived.clone()).await;
    ends.answer(answers).await;
    let Some(BrokerJob::Publish(job)) = soon(ends.broker.recv()).await else { panic!("no dead letter") };
    let mut expect = arrived.message.clone();
    expect.topic = Arc::from("dead");
    expect.metadata.push(("pubsubName".into(), "bus".into()));
    assert_eq!(job.messages, [expect]);
    assert!(feed.jobs.try_recv().is_err(), "not acknowledged before it is confirmed");
    job.reply.send(vec![Ok(())]).expect("somebody waits");
    assert_eq!(feed.verdict().await, (arrived.token, Verdict::Ack));
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_dead_lettered_as_it_came() {
    let arrived = || fakes::arrived(1, "m", None);
    let with =
        |data: &'static str| Arrived { message: Message { data: data.into(), ..arrived().message }, ..arrived() };
    check_dead_letter(arrived(), &[Ok(Outcome::Drop)]).await;
    check_dead_letter(arrived(), &[Ok(Outcome::Retry)]).await;
    check_dead_letter(arrived(), &[Err(HandlerError::Timeout)]).await;
    check_dead_letter(arrived(), &[Err(HandlerError::Lost("trap".into()))]).await;
    check_dead_letter(with("no event"), &[]).await;
    check_dead_letter(with(r#"{"expiration":"2001-01-01T00:00:00Z"}"#), &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_says_what_statuses_mean() {
    let meanings = [("onStatus", "404=retry, 409=success, 410=drop, 400-499=deadLetter")];
    let policy = || constant(1, None);
    let mut ends = spine(TopicScopes::default(), policy(), fakes::declared("t", Some("dead"), &meanings));
    let mut feed = ends.feed().await;
    let mut next = 0;
    for (statuses, is_dead) in
        [(&[409][..], false), (&[410], false), (&[422], true), (&[404, 409], false), (&[500, 400], true)]
    {
        next += 1;
        feed.deliver(fakes::arrived(next, "m", Some(1))).await;
        let answers: Vec<_> = statuses.iter().map(|status| Err(HandlerError::Status(*status))).collect();
        ends.answer(&answers).await;
        if is_dead {
            let Some(BrokerJob::Publish(job)) = soon(ends.broker.recv()).await else { panic!("no dead letter") };
            job.reply.send(vec![Ok(())]).expect("somebody waits");
        }
        assert_eq!(feed.verdict().await, (next, Verdict::Ack), "{statuses:?}");
        assert!(ends.broker.try_recv().is_err(), "{statuses:?}");
    }
}

/// One delivery that reaches no handler.
async fn check_unseen(declared: whimbrel_resources::Subscription, data: &'static str, topic: &str, expect: Verdict) {
    let scopes = TopicScopes { protected: vec!["secret".into()], ..TopicScopes::default() };
    let mut ends = spine(scopes, Policies::default(), declared);
    let mut feed = ends.feed().await;
    let mut arrived = fakes::arrived(1, "m", None);
    arrived.message = Message { data: data.into(), topic: Arc::from(topic), ..arrived.message };
    feed.deliver(arrived).await;
    assert_eq!(feed.verdict().await, (1, expect), "{data} {topic}");
    assert!(ends.handler.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn what_no_handler_may_or_can_have_reaches_none() {
    let declared = || fakes::declared("t", None, &[]);
    let unrouted = || whimbrel_resources::Subscription { default_route: None, ..declared() };
    check_unseen(declared(), "no event", "t", retry(1)).await;
    check_unseen(declared(), r#"{"expiration":"2001-01-01T00:00:00Z"}"#, "t", Verdict::Ack).await;
    check_unseen(unrouted(), "{}", "t", Verdict::Ack).await;
    check_unseen(declared(), "{}", "secret", Verdict::Ack).await;
    check_unseen(fakes::declared("t", Some("dead"), &[]), "{}", "secret", Verdict::Ack).await;
    check_unseen(fakes::declared("t", None, &[("rawPayload", "maybe")]), "{}", "t", retry(1)).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_may_be_unsettled() {
    let declared = fakes::declared("t", None, &[("maxUnsettled", "2")]);
    let mut ends = spine(TopicScopes::default(), Policies::default(), declared);
    let job = ends.subscribed().await;
    assert_eq!((job.max_unsettled, job.group.as_str(), &*job.topic), (2, "me", "t"));
    let (deliveries, near) = mpsc::channel(16);
    let (jobs, mut verdicts) = mpsc::channel(16);
    let feed = Feed { deliveries: near, jobs, ended: oneshot::channel().1, leave: CancellationToken::new() };
    job.reply.send(Ok(feed)).expect("somebody waits");
    let batch = (1..=5).map(|token| fakes::arrived(token, &token.to_string(), None)).collect();
    deliveries.send(batch).await.expect("room");
    let mut running = VecDeque::from([ends.attempt().await, ends.attempt().await]);
    for token in 1..=5 {
        tokio::task::yield_now().await;
        assert!(ends.handler.try_recv().is_err(), "a third one runs");
        running.pop_front().expect("one").reply.send(Ok(Outcome::Success)).expect("somebody waits");
        let Some(FeedJob::Settle { token: settled, reply, .. }) = soon(verdicts.recv()).await else { panic!() };
        assert_eq!(settled, token);
        reply.send(Ok(())).expect("somebody waits");
        if token <= 3 {
            running.push_back(ends.attempt().await);
        }
    }
}

/// A message that fails is not given back, for the broker would send the next one of its key first.
#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_order_and_holds_up_no_other() {
    let declared = fakes::declared("t", None, &[("orderPerKey", "true")]);
    let mut ends = spine(TopicScopes::default(), Policies::default(), declared);
    let mut feed = ends.feed().await;
    for (token, key) in [(1, "a"), (2, "a"), (3, "b")] {
        let mut arrived = fakes::arrived(token, &token.to_string(), Some(1));
        arrived.message.key = Some(key.to_owned());
        feed.deliver(arrived).await;
    }
    let (first, other) = (ends.attempt().await, ends.attempt().await);
    assert_eq!((first.event.id(), other.event.id()), ("event-1", "event-3"));
    other.reply.send(Ok(Outcome::Success)).expect("somebody waits");
    assert_eq!(feed.verdict().await, (3, Verdict::Ack));
    first.reply.send(Ok(Outcome::Retry)).expect("somebody waits");
    let again = ends.attempt().await;
    assert_eq!((again.event.id(), again.info.attempt), ("event-1", 2));
    again.reply.send(Ok(Outcome::Success)).expect("somebody waits");
    assert_eq!(feed.verdict().await, (1, Verdict::Ack));
    let next = ends.attempt().await;
    assert_eq!((next.event.id(), next.info.attempt), ("event-2", 1));
    next.reply.send(Ok(Outcome::Success)).expect("somebody waits");
    assert_eq!(feed.verdict().await, (2, Verdict::Ack));
}

#[tokio::test(start_paused = true)]
async fn it_subscribes_until_it_succeeds_and_is_ready_then() {
    let mut ends = plain();
    let begun = Instant::now();
    for _ in 0..12 {
        let job = ends.subscribed().await;
        assert!(ends.ready.try_recv().is_err());
        job.reply.send(Err(BrokerError::Transient("x".into()))).expect("somebody waits");
    }
    let waited = begun.elapsed();
    // Between half and all of 0.5 + 1 + 2 + 4 + 8 + 16 + 32 + 4 * 60 s.
    assert!(waited > Duration::from_secs(150) && waited < Duration::from_secs(304), "{waited:?}");
    let _feed = ends.feed().await;
    soon(&mut ends.ready).await.expect("ready");
}

#[tokio::test(start_paused = true)]
async fn a_lost_feed_is_opened_again_and_what_ran_goes_on() {
    let mut ends = plain();
    let feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    let job = ends.attempt().await;
    drop(feed);
    let mut feed = ends.feed().await;
    job.reply.send(Ok(Outcome::Success)).expect("the attempt goes on");
    feed.deliver(fakes::arrived(1, "n", None)).await;
    ends.answer(&[Ok(Outcome::Success)]).await;
    assert_eq!(feed.verdict().await, (1, Verdict::Ack));
}

/// Losing a feed now and then, over weeks, does not make the waits grow; losing one after the other does.
#[tokio::test(start_paused = true)]
async fn waits_begin_again_after_a_sound_feed() {
    for (lives, longest) in [(6, Duration::from_secs(1)), (1, Duration::from_secs(61))] {
        let mut ends = plain();
        let mut waited = Duration::ZERO;
        for _ in 0..12 {
            let lost = tokio::time::Instant::now();
            let feed = ends.feed().await;
            waited = lost.elapsed();
            tokio::time::sleep(Duration::from_secs(lives)).await;
            drop(feed);
        }
        assert!(waited <= longest, "feeds of {lives} s: {waited:?}");
        assert!(lives == 6 || waited > Duration::from_secs(20), "feeds of {lives} s: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_next_attempt_is_left_alone_when_its_feed_is_lost() {
    let mut ends = spine(TopicScopes::default(), constant(5, None), fakes::declared("t", None, &[]));
    let feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    ends.answer(&[Ok(Outcome::Retry)]).await;
    drop(feed);
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", Some(2))).await;
    assert_eq!(ends.answer(&[Ok(Outcome::Success)]).await, [(2, false)]);
    assert_eq!(feed.verdict().await, (1, Verdict::Ack));
}

#[tokio::test(start_paused = true)]
async fn a_denied_subscription_is_idle_and_counts_as_ready() {
    let scopes = TopicScopes { protected: vec!["t".into()], ..TopicScopes::default() };
    let mut ends = spine(scopes, Policies::default(), fakes::declared("t", None, &[]));
    soon(&mut ends.ready).await.expect("ready");
    assert!(ends.broker.try_recv().is_err());
    assert!(!ends.task.is_finished());
    ends.stop.cancel();
    soon(ends.task).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_stop_pauses_drains_and_then_ends_the_subscription() {
    let mut ends = plain();
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    let job = ends.attempt().await;
    ends.stop.cancel();
    let Some(FeedJob::Pause(paused)) = soon(feed.jobs.recv()).await else { panic!("no pause first") };
    feed.deliver(fakes::arrived(2, "late", None)).await;
    paused.send(()).expect("somebody waits");
    feed.deliver(fakes::arrived(3, "later", None)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(feed.jobs.try_recv().is_err(), "it does not stop while something is in flight");
    job.reply.send(Ok(Outcome::Success)).expect("somebody waits");
    let Some(FeedJob::Settle { token: 1, verdict: Verdict::Ack, reply }) = soon(feed.jobs.recv()).await else {
        panic!()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(feed.jobs.try_recv().is_err(), "it does not stop before the acknowledgement is confirmed");
    reply.send(Ok(())).expect("somebody waits");
    let Some(FeedJob::Stop(stopped)) = soon(feed.jobs.recv()).await else { panic!("no stop last") };
    assert!(!ends.task.is_finished());
    stopped.send(()).expect("somebody waits");
    soon(ends.task).await.expect("no panic");
    assert!(ends.handler.try_recv().is_err(), "what came late is held");
    assert!(feed.jobs.recv().await.is_none(), "and never settled");
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_stopping_is_held() {
    for answer in [Ok(Outcome::Retry), Err(HandlerError::Status(500)), Err(HandlerError::Lost("trap".into()))] {
        let mut ends = spine(TopicScopes::default(), constant(3, None), fakes::declared("t", Some("dead"), &[]));
        let mut feed = ends.feed().await;
        feed.deliver(fakes::arrived(1, "m", None)).await;
        let job = ends.attempt().await;
        ends.stop.cancel();
        let Some(FeedJob::Pause(paused)) = soon(feed.jobs.recv()).await else { panic!("no pause") };
        paused.send(()).expect("somebody waits");
        job.reply.send(answer).expect("somebody waits");
        assert!(matches!(soon(feed.jobs.recv()).await, Some(FeedJob::Stop(_))), "neither settled nor dead-lettered");
        assert!(ends.broker.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_next_attempt_ends_with_the_stop() {
    let mut ends = spine(TopicScopes::default(), constant(3, None), fakes::declared("t", None, &[]));
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    ends.answer(&[Ok(Outcome::Retry)]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begun = Instant::now();
    ends.stop.cancel();
    let Some(FeedJob::Pause(paused)) = soon(feed.jobs.recv()).await else { panic!("no pause") };
    paused.send(()).expect("somebody waits");
    let Some(FeedJob::Stop(stopped)) = soon(feed.jobs.recv()).await else { panic!("no stop") };
    stopped.send(()).expect("somebody waits");
    soon(ends.task).await.expect("no panic");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(ends.handler.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_in_time_whatever_hangs() {
    let mut ends = plain();
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "hangs", None)).await;
    let _never_answered = ends.attempt().await;
    let begun = Instant::now();
    ends.stop.cancel();
    soon(ends.task).await.expect("no panic");
    assert_eq!(begun.elapsed(), Duration::from_secs(5 + 30 + 5), "pause, drain, stop");
    assert!(matches!(feed.jobs.recv().await, Some(FeedJob::Pause(_))));
    assert!(matches!(feed.jobs.recv().await, Some(FeedJob::Stop(_))));
    assert!(feed.jobs.recv().await.is_none());
}

/// What is in hand is finished and settled on the feed it came from, what it still brings too; then the next is opened.
#[tokio::test(start_paused = true)]
async fn a_feed_that_is_left_is_emptied_first() {
    let mut ends = plain();
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    let job = ends.attempt().await;
    feed.leave.cancel();
    let Some(FeedJob::Pause(paused)) = soon(feed.jobs.recv()).await else { panic!("no pause first") };
    feed.deliver(fakes::arrived(2, "fetched before", None)).await;
    paused.send(()).expect("somebody waits");
    assert_eq!(ends.answer(&[Ok(Outcome::Success)]).await, [(1, true)]);
    assert_eq!(feed.verdict().await, (2, Verdict::Ack));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(ends.broker.try_recv().is_err(), "no other feed while something is in hand");
    assert!(feed.jobs.try_recv().is_err(), "no stop either");
    job.reply.send(Ok(Outcome::Success)).expect("somebody waits");
    assert_eq!(feed.verdict().await, (1, Verdict::Ack));
    let Some(FeedJob::Stop(stopped)) = soon(feed.jobs.recv()).await else { panic!("no stop last") };
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ends.broker.try_recv().is_err(), "no other feed before this one has ended");
    stopped.send(()).expect("somebody waits");
    let begun = Instant::now();
    let mut feed = ends.feed().await;
    assert!(begun.elapsed() < Duration::from_millis(10), "at once");
    feed.deliver(fakes::arrived(1, "n", None)).await;
    ends.answer(&[Ok(Outcome::Success)]).await;
    assert_eq!(feed.verdict().await, (1, Verdict::Ack));
}

#[tokio::test(start_paused = true)]
async fn a_feed_is_left_in_time_whatever_hangs() {
    let mut ends = plain();
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "hangs", None)).await;
    let hanging = ends.attempt().await;
    let begun = Instant::now();
    feed.leave.cancel();
    let mut next = ends.feed().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(30 + 5), "empty, stop");
    assert!(matches!(feed.jobs.recv().await, Some(FeedJob::Pause(_))));
    assert!(matches!(feed.jobs.recv().await, Some(FeedJob::Stop(_))));
    drop(feed);
    hanging.reply.send(Ok(Outcome::Success)).expect("it goes on");
    next.deliver(fakes::arrived(1, "hangs", Some(2))).await;
    ends.answer(&[Ok(Outcome::Success)]).await;
    assert_eq!(next.verdict().await, (1, Verdict::Ack), "on the next feed");
}

/// The next feed brings it again: nobody waits an hour for it.
#[tokio::test(start_paused = true)]
async fn what_waits_for_its_next_attempt_does_not_keep_a_feed() {
    let mut ends = spine(TopicScopes::default(), constant(3, None), fakes::declared("t", None, &[]));
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    ends.answer(&[Ok(Outcome::Retry)]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    feed.leave.cancel();
    let Some(FeedJob::Pause(paused)) = soon(feed.jobs.recv()).await else { panic!("no pause") };
    paused.send(()).expect("somebody waits");
    let Some(FeedJob::Stop(stopped)) = soon(feed.jobs.recv()).await else { panic!("it is not settled") };
    stopped.send(()).expect("somebody waits");
    let mut next = ends.feed().await;
    next.deliver(fakes::arrived(1, "m", Some(2))).await;
    assert_eq!(ends.answer(&[Ok(Outcome::Success)]).await, [(2, false)], "attempts are counted on");
    assert_eq!(next.verdict().await, (1, Verdict::Ack));
}

#[tokio::test(start_paused = true)]
async fn a_stop_goes_before_leaving() {
    let mut ends = plain();
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    let job = ends.attempt().await;
    feed.leave.cancel();
    let Some(FeedJob::Pause(_)) = soon(feed.jobs.recv()).await else { panic!("no pause") };
    ends.stop.cancel();
    let Some(FeedJob::Pause(paused)) = soon(feed.jobs.recv()).await else { panic!("no pause of the stop's") };
    paused.send(()).expect("somebody waits");
    job.reply.send(Ok(Outcome::Success)).expect("somebody waits");
    assert_eq!(feed.verdict().await, (1, Verdict::Ack));
    let Some(FeedJob::Stop(stopped)) = soon(feed.jobs.recv()).await else { panic!("no stop") };
    stopped.send(()).expect("somebody waits");
    soon(ends.task).await.expect("no panic");
    assert!(ends.broker.try_recv().is_err(), "no other feed");
}

#[tokio::test(start_paused = true)]
async fn only_listed_codes_of_the_app_are_retried() {
    let listed = || {
        let mut policies = constant(1, None);
        let retry = policies.inbound_default.retry.as_mut().expect("a retry");
        retry.matching = Matching { http: Some(Codes(vec![500..=599])), grpc: None };
        policies
    };
    let status = |status| Err(HandlerError::Status(status));
    check(listed(), &[status(400)], retry(1), &[(1, false)]).await;
    check(listed(), &[status(503), status(503)], retry(2), &[(1, false), (2, true)]).await;
    check(listed(), &[Ok(Outcome::Retry), Ok(Outcome::Success)], Verdict::Ack, &[(1, false), (2, true)]).await;
}

/// What is in flight finishes under the rules it started with; what comes after goes by the new ones, on the same feed.
#[tokio::test(start_paused = true)]
async fn other_rules_hold_for_what_begins_after() {
    let mut ends = spine(TopicScopes::default(), constant(1, None), fakes::declared("t", None, &[]));
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "before", Some(1))).await;
    let before = ends.attempt().await;
    let (other, mut handler) = Handler::new();
    let mut declared = fakes::declared("t", Some("dead"), &[]);
    declared.default_route = Some("/other".to_owned());
    ends.live.change(fakes::subscription(declared, "me", other));
    feed.deliver(fakes::arrived(2, "after", Some(1))).await;
    let after = soon(handler.recv()).await.expect("the new handler has it");
    assert_eq!((&*after.info.path == "/other", &*before.info.path == "/other"), (true, false));
    before.reply.send(Ok(Outcome::Retry)).expect("somebody waits");
    let again = ends.attempt().await;
    assert_eq!(again.info.path, before.info.path, "its second attempt is where its first was");
    again.reply.send(Ok(Outcome::Retry)).expect("somebody waits");
    assert_eq!(feed.verdict().await.0, 1, "given back, for it began without a dead-letter topic");
    after.reply.send(Ok(Outcome::Success)).expect("somebody waits");
    assert_eq!(feed.verdict().await, (2, Verdict::Ack));
    assert!(soon(ends.handler.recv()).await.is_none(), "somebody keeps the old handler");
}
