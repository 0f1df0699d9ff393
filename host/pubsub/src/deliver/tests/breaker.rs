//! An open circuit breaker: who is spared, and what becomes of deliveries meanwhile.

use super::*;

/// The app is not called while the breaker is open; a drop counts as a success.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_spares_the_app() {
    let mut policies = Policies::default();
    policies.inbound_default.breaker = Some(fakes::breaker("consecutiveFailures > 1"));
    let mut ends = spine(TopicScopes::default(), policies, fakes::declared("t", None, &[]));
    let mut feed = ends.feed().await;
    let failed = Err(HandlerError::Failed("x".into()));
    for (token, answer) in [(1, failed.clone()), (2, Ok(Outcome::Drop)), (3, failed.clone()), (4, failed)] {
        feed.deliver(fakes::arrived(token, &token.to_string(), None)).await;
        ends.answer(&[answer]).await;
        feed.verdict().await;
    }
    tokio::time::advance(Duration::from_secs(20)).await;
    feed.deliver(fakes::arrived(5, "5", None)).await;
    assert_eq!(feed.verdict().await, (5, retry(40)), "when the breaker may let it pass");
    assert!(ends.handler.try_recv().is_err(), "the app was called");
    tokio::time::advance(Duration::from_secs(40)).await;
    feed.deliver(fakes::arrived(6, "6", None)).await;
    ends.answer(&[Ok(Outcome::Success)]).await;
    assert_eq!(feed.verdict().await, (6, Verdict::Ack));
}

/// Neither what arrives while it is open nor what has made it open is dead-lettered or charged with an attempt.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_gives_back_and_dead_letters_nothing() {
    let mut policies = constant(1, None);
    policies.inbound_default.breaker = Some(fakes::breaker("consecutiveFailures > 0"));
    let mut ends = spine(TopicScopes::default(), policies, fakes::declared("t", Some("dead"), &[]));
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", None)).await;
    assert_eq!(ends.answer(&[Err(HandlerError::Failed("x".into()))]).await, [(1, false)]);
    assert_eq!(feed.verdict().await, (1, retry(59)), "its second attempt was due after a second");
    feed.deliver(fakes::arrived(2, "other", None)).await;
    assert_eq!(feed.verdict().await, (2, retry(59)));
    tokio::time::advance(Duration::from_secs(59)).await;
    for (token, id, told) in [(3, "m", (2, false)), (4, "other", (1, false))] {
        feed.deliver(fakes::arrived(token, id, None)).await;
        assert_eq!(ends.answer(&[Ok(Outcome::Success)]).await, [told]);
        assert_eq!(feed.verdict().await, (token, Verdict::Ack));
    }
    assert!(ends.broker.try_recv().is_err(), "a dead letter");
}

/// A broker that delivers nothing again would lose what is given back.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_dead_letters_where_nothing_comes_again() {
    let mut policies = Policies::default();
    policies.inbound_default.breaker = Some(fakes::breaker("consecutiveFailures > 0"));
    let features = crate::Features { topic_flow: true, ..crate::Features::default() };
    let mut ends = featured(features, policies, fakes::declared("t", Some("dead"), &[]));
    let mut feed = ends.feed().await;
    for (token, asked) in [(1, true), (2, false)] {
        feed.deliver(fakes::arrived(token, &token.to_string(), None)).await;
        if asked {
            ends.answer(&[Err(HandlerError::Failed("x".into()))]).await;
        }
        let Some(BrokerJob::Publish(job)) = soon(ends.broker.recv()).await else { panic!("no dead letter") };
        assert_eq!(&*job.messages[0].topic, "dead");
        job.reply.send(vec![Ok(())]).expect("somebody waits");
        assert_eq!(feed.verdict().await, (token, Verdict::Ack));
    }
    assert!(ends.handler.try_recv().is_err(), "the app was called");
}

/// The first delivery: a retry that fails and opens the breaker. The second is kept off.
#[tokio::test(start_paused = true)]
async fn what_policies_do_is_counted() {
    let mut policies = constant(1, Some(Duration::from_secs(3)));
    policies.inbound_default.breaker = Some(fakes::breaker("consecutiveFailures > 1"));
    policies.resource = "r".to_owned();
    let mut ends = spine(TopicScopes::default(), policies, fakes::declared("t", None, &[]));
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "1", None)).await;
    let failed = || Err(HandlerError::Failed("x".into()));
    ends.answer(&[failed(), failed()]).await;
    assert_eq!(feed.verdict().await, (1, retry(2)));
    feed.deliver(fakes::arrived(2, "2", None)).await;
    assert_eq!(feed.verdict().await, (2, retry(60)));
    let activated = |policy: &str| format!("activations_totalflow_direction=inbound,{policy} 1");
    let applied = |policy: &str, count: u32| format!("countflow_direction=inbound,{policy} {count}");
    let state = |state: &str, value: u32| {
        format!("cb_stateflow_direction=inbound,policy=circuitbreaker,status={state} {value}")
    };
    let expected = [
        activated("policy=circuitbreaker,status=open"),
        activated("policy=retry,status="),
        state("closed", 0),
        state("half-open", 0),
        state("open", 1),
        state("unknown", 0),
        applied("policy=circuitbreaker,status=closed", 1),
        applied("policy=circuitbreaker,status=open", 1),
        applied("policy=retry,status=", 2),
        applied("policy=timeout,status=", 2),
    ];
    assert_eq!(fakes::policies_counted(&ends.metrics), expected);
}

/// A timeout is one that has passed, not an answer that failed.
#[tokio::test(start_paused = true)]
async fn timeouts_are_counted() {
    let mut policies = constant(1, Some(Duration::from_secs(3)));
    policies.resource = "r".to_owned();
    let mut ends = spine(TopicScopes::default(), policies, fakes::declared("t", None, &[]));
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "1", None)).await;
    let late = ends.attempt().await;
    ends.answer(&[Err(HandlerError::Failed("x".into()))]).await;
    drop(late);
    assert_eq!(feed.verdict().await, (1, retry(2)));
    let expected = [
        "activations_totalflow_direction=inbound,policy=retry,status= 1",
        "activations_totalflow_direction=inbound,policy=timeout,status= 1",
        "countflow_direction=inbound,policy=retry,status= 1",
        "countflow_direction=inbound,policy=timeout,status= 1",
    ];
    assert_eq!(fakes::policies_counted(&ends.metrics), expected);
}
