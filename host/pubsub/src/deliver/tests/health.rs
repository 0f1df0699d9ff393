//! What becomes of deliveries when the handler falls ill, and when it is well again.

use super::*;

/// A subscription, and the state of its handler.
fn ends(well: bool, policies: Policies, dead_letter_topic: Option<&str>) -> (Ends, watch::Sender<bool>) {
    let state = watch::Sender::new(well);
    let declared = fakes::declared("t", dead_letter_topic, &[("maxConcurrency", "2")]);
    (watched(TopicScopes::default(), policies, declared, Some(state.subscribe())), state)
}

impl FarFeed {
    /// Takes part in the end of the subscription: paused, then stopped, with nothing settled between.
    async fn end(&mut self) {
        let Some(FeedJob::Pause(paused)) = soon(self.jobs.recv()).await else { panic!("no pause first") };
        paused.send(()).expect("somebody waits");
        let Some(FeedJob::Stop(stopped)) = soon(self.jobs.recv()).await else { panic!("no stop last") };
        stopped.send(()).expect("somebody waits");
    }
}

/// What runs finishes and is acknowledged; what failed or was not begun is left to the broker, and is charged with no
/// attempt that was not made.
#[tokio::test(start_paused = true)]
async fn nothing_is_begun_while_it_is_ill() {
    let (mut ends, state) = ends(true, constant(5, None), Some("dead"));
    let mut feed = ends.feed().await;
    for (token, id) in [(1, "finishes"), (2, "fails"), (3, "waits")] {
        feed.deliver(fakes::arrived(token, id, Some(1))).await;
    }
    let (finishes, fails) = (ends.attempt().await, ends.attempt().await);
    state.send_replace(false);
    let Some(FeedJob::Pause(paused)) = soon(feed.jobs.recv()).await else { panic!("no pause first") };
    feed.deliver(fakes::arrived(4, "late", None)).await;
    paused.send(()).expect("somebody waits");
    fails.reply.send(Err(HandlerError::Status(500))).expect("somebody waits");
    finishes.reply.send(Ok(Outcome::Success)).expect("somebody waits");
    assert_eq!(feed.verdict().await, (1, Verdict::Ack));
    let Some(FeedJob::Stop(stopped)) = soon(feed.jobs.recv()).await else { panic!("no stop last") };
    stopped.send(()).expect("somebody waits");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(feed.jobs.recv().await.is_none(), "and nothing else is settled");
    assert!(ends.broker.try_recv().is_err(), "neither subscribed nor dead-lettered");
    assert!(ends.handler.try_recv().is_err());

    state.send_replace(true);
    let mut feed = ends.feed().await;
    for (token, id, attempt) in [(5, "fails", 2), (6, "waits", 1), (7, "late", 1)] {
        feed.deliver(fakes::arrived(token, id, Some(2))).await;
        assert_eq!(ends.answer(&[Ok(Outcome::Success)]).await, [(attempt, false)], "{id}");
        assert_eq!(feed.verdict().await, (token, Verdict::Ack));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_next_attempt_ends_with_its_health() {
    let (mut ends, state) = ends(true, constant(5, None), None);
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    ends.answer(&[Ok(Outcome::Retry)]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    state.send_replace(false);
    feed.end().await;
    assert!(ends.handler.try_recv().is_err());
}

/// The host does not wait for it, and it can be stopped.
#[tokio::test(start_paused = true)]
async fn one_that_is_ill_is_not_subscribed() {
    for ill_at_once in [true, false] {
        let (mut ends, state) = ends(!ill_at_once, Policies::default(), None);
        if !ill_at_once {
            let _unanswered = ends.subscribed().await;
            state.send_replace(false);
            soon(&mut ends.ready).await.expect("ready");
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(ends.broker.try_recv().is_err());
        ends.stop.cancel();
        soon(ends.task).await.expect("no panic");
    }
}

/// The app was not asked: the attempt is not charged, whatever the policy, and no breaker hears of it.
#[tokio::test(start_paused = true)]
async fn who_was_not_asked_has_not_failed() {
    let mut policies = constant(0, None);
    policies.inbound_default.breaker = Some(fakes::breaker("consecutiveFailures > 0"));
    let (mut ends, _state) = ends(true, policies, Some("dead"));
    let mut feed = ends.feed().await;
    for token in [1, 2] {
        feed.deliver(fakes::arrived(token, "m", Some(1))).await;
        assert_eq!(ends.answer(&[Err(HandlerError::Unwell)]).await, [(1, true)]);
        assert_eq!(feed.verdict().await, (token, retry(1)));
    }
    assert!(ends.broker.try_recv().is_err(), "a dead letter");
}
