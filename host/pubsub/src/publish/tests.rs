//! Tests of the publish spine: which error wins, what is tried again, and that it never waits for ever.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use whimbrel_resources::{Backoff, Codes, Component, Matching, Policies, Policy, Retry, TopicScopes};

use super::*;
use crate::{BrokerJob, BulkEntry, Features, Trace, fakes};

type Answer = Option<Result<(), BrokerError>>;

/// A broker that gives these answers in turn, the last one for ever, and keeps what it was sent. `None`: never an
/// answer.
fn broker(declared: Component, answers: Vec<Answer>) -> (Broker, Arc<Mutex<Vec<Message>>>) {
    let (broker, jobs) = Broker::new(Arc::new(declared));
    let sent = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(answer(jobs, answers, Arc::clone(&sent)));
    (broker, sent)
}

async fn answer(mut jobs: mpsc::Receiver<BrokerJob>, answers: Vec<Answer>, sent: Arc<Mutex<Vec<Message>>>) {
    let mut unanswered = Vec::new();
    while let Some(job) = jobs.recv().await {
        let BrokerJob::Publish(job) = job else { continue };
        let mut results = Vec::new();
        {
            let mut sent = sent.lock().expect("not poisoned");
            for message in job.messages {
                results.push(answers.get(sent.len()).or(answers.last()).cloned().flatten());
                sent.push(message);
            }
        }
        match results.into_iter().collect() {
            Some(results) => job.reply.send(results).expect("somebody waits"),
            None => unanswered.push(job.reply),
        }
    }
}

fn retry(max_retries: Option<u32>, timeout: Option<Duration>) -> Policies {
    let retry =
        Retry { backoff: Backoff::Constant(Duration::from_secs(2)), max_retries, matching: Matching::default() };
    fakes::policies(Policy { timeout, retry: Some(retry), ..Policy::default() })
}

async fn published(topology: &Topology, request: PublishRequest) -> Result<(), BrokerError> {
    match publish(topology, request).await {
        Ok(()) => Ok(()),
        Err(PublishError::Broker { error, topic, pubsub }) => {
            assert_eq!((topic.as_str(), pubsub.as_str()), ("t", "bus"));
            Err(error)
        }
        Err(error) => panic!("{error}"),
    }
}

/// Which error a request gets from a broker that would take anything.
async fn check_error(request: PublishRequest, expect: PublishError) {
    let scopes = TopicScopes { protected: vec!["t".into()], ..TopicScopes::default() };
    let mut declared = fakes::component(scopes);
    declared.scopes = vec!["me".into()];
    let (bus, sent) = broker(declared, vec![Some(Ok(()))]);
    let topology = fakes::topology(bus, Policies::default(), 1);
    assert_eq!(publish(&topology, request).await, Err(expect));
    assert!(sent.lock().expect("not poisoned").is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_check_that_fails_wins() {
    let wrong = || {
        let mut request = fakes::request("", "[]", &[("rawPayload", "maybe")]);
        request.content_type = Some("application/cloudevents+json".into());
        request
    };
    check_error(PublishRequest { pubsub: String::new(), ..wrong() }, PublishError::PubsubEmpty).await;
    let nobus = || "nobus".to_owned();
    check_error(PublishRequest { pubsub: nobus(), ..wrong() }, PublishError::NotFound { pubsub: nobus() }).await;
    check_error(
        PublishRequest { caller: fakes::caller("you"), ..wrong() },
        PublishError::NotFound { pubsub: "bus".into() },
    )
    .await;
    check_error(wrong(), PublishError::TopicEmpty { pubsub: "bus".into() }).await;
    let with_topic = || PublishRequest { topic: "t".into(), ..wrong() };
    check_error(with_topic(), PublishError::RawPayload { actual: "maybe".into() }).await;
    let parsed = || PublishRequest { metadata: Vec::new(), ..with_topic() };
    let error = "json: cannot unmarshal array into Go value of type map[string]interface {}".to_owned();
    check_error(parsed(), PublishError::CloudEvent { error }).await;
    check_error(fakes::request("t", "x", &[]), PublishError::Forbidden { topic: "t".into(), app_id: "me".into() })
        .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_the_first_answer_counts() {
    for error in
        [BrokerError::Transient("x".into()), BrokerError::Unknown("x".into()), BrokerError::Permanent("x".into())]
    {
        let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![Some(Err(error.clone()))]);
        let topology = fakes::topology(bus, Policies::default(), 1);
        assert_eq!(published(&topology, fakes::request("t", "x", &[])).await, Err(error));
        assert_eq!(sent.lock().expect("not poisoned").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_succeed_later_is_sent_again_as_it_was() {
    let failures = [
        BrokerError::Transient("x".into()),
        BrokerError::Unknown("x".into()),
        BrokerError::Overloaded,
        BrokerError::Throttled { message: "x".into(), retry_after: Duration::from_secs(7) },
    ];
    let mut answers: Vec<Answer> = failures.into_iter().map(|error| Some(Err(error))).collect();
    answers.push(Some(Ok(())));
    let (bus, sent) = broker(fakes::component(TopicScopes::default()), answers);
    let topology = fakes::topology(bus, retry(Some(4), None), 1);
    let begun = Instant::now();
    assert_eq!(published(&topology, fakes::request("t", "x", &[("a", "b")])).await, Ok(()));
    assert_eq!(begun.elapsed(), Duration::from_secs(2 + 2 + 2 + 7), "the broker's own wait counts where it is longer");
    let sent = sent.lock().expect("not poisoned");
    assert_eq!(sent.len(), 5);
    assert!(sent.iter().all(|message| *message == sent[0]), "one id, whatever became of the first");
}

#[tokio::test(start_paused = true)]
async fn so_many_retries_and_no_more() {
    let error = BrokerError::Transient("x".into());
    let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![Some(Err(error.clone()))]);
    let topology = fakes::topology(bus, retry(Some(3), None), 1);
    assert_eq!(published(&topology, fakes::request("t", "x", &[])).await, Err(error));
    assert_eq!(sent.lock().expect("not poisoned").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_never_succeeds_is_not_tried_again() {
    for error in
        [BrokerError::Permanent("x".into()), BrokerError::Invalid("x".into()), BrokerError::Unauthorized("x".into())]
    {
        let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![Some(Err(error.clone()))]);
        let topology = fakes::topology(bus, retry(None, None), 1);
        assert_eq!(published(&topology, fakes::request("t", "x", &[])).await, Err(error));
        assert_eq!(sent.lock().expect("not poisoned").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_an_unknown_outcome() {
    for (policies, expect) in [(Policies::default(), 30), (retry(Some(1), Some(Duration::from_secs(3))), 3 + 2 + 3)] {
        let (bus, _sent) = broker(fakes::component(TopicScopes::default()), vec![None]);
        let topology = fakes::topology(bus, policies, 1);
        let begun = Instant::now();
        let result = published(&topology, fakes::request("t", "x", &[])).await;
        assert!(matches!(result, Err(BrokerError::Unknown(_))), "{result:?}");
        assert_eq!(begun.elapsed(), Duration::from_secs(expect));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_is_an_unknown_outcome_and_a_closed_broker_an_answer() {
    let (bus, mut jobs) = Broker::new(Arc::new(fakes::component(TopicScopes::default())));
    let topology = fakes::topology(bus, Policies::default(), 1);
    let losing = async {
        drop(jobs.recv().await);
        drop(jobs);
    };
    let (result, ()) = tokio::join!(published(&topology, fakes::request("t", "x", &[])), losing);
    assert!(matches!(result, Err(BrokerError::Unknown(_))), "{result:?}");
    assert_eq!(published(&topology, fakes::request("t", "x", &[])).await, Err(BrokerError::Closed));
}

#[tokio::test(start_paused = true)]
async fn more_publishes_than_may_wait_are_refused_at_once() {
    let (bus, _jobs) = Broker::new(Arc::new(fakes::component(TopicScopes::default())));
    let topology = fakes::topology(bus, Policies::default(), 1);
    let publishing = || Box::pin(published(&topology, fakes::request("t", "x", &[])));
    let mut waiting: Vec<_> = (0..4096).map(|_| publishing()).collect();
    for waiting in &mut waiting {
        assert!(tokio::task::unconstrained(futures::future::poll_immediate(waiting)).await.is_none());
    }
    assert_eq!(publishing().await, Err(BrokerError::Overloaded));
    for waiting in waiting {
        assert!(matches!(waiting.await, Err(BrokerError::Unknown(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_expires_messages_by_itself_gets_no_expiration() {
    let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![Some(Ok(()))]);
    bus.features.set(Features { ttl: true, ..Features::default() }).expect("unset");
    let topology = fakes::topology(bus, Policies::default(), 1);
    assert_eq!(published(&topology, fakes::request("t", "x", &[("ttl", "5")])).await, Ok(()));
    let sent = sent.lock().expect("not poisoned");
    assert!(!String::from_utf8_lossy(&sent[0].data).contains("expiration"));
    assert_eq!(sent[0].metadata, fakes::pairs(&[("ttl", "5")]));
}

/// A message that the broker cannot take never reaches its adapter.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_is_refused_at_once() {
    for (bytes_max, fits) in [(0, true), (1 << 20, true), (10, false)] {
        let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![Some(Ok(()))]);
        bus.features.set(Features { max_message_bytes: bytes_max, ..Features::default() }).expect("the first");
        let topology = fakes::topology(bus, Policies::default(), 1);
        let result = published(&topology, fakes::request("t", "more than ten bytes", &[])).await;
        assert_eq!(result.is_ok(), fits, "{bytes_max}: {result:?}");
        assert!(fits || matches!(result, Err(BrokerError::Invalid(_))), "{result:?}");
        assert_eq!(sent.lock().expect("not poisoned").len(), usize::from(fits));
    }
}

/// Id, data and metadata of an entry.
type Given<'a> = (&'a str, &'static str, Option<&'a [(&'a str, &'a str)]>);

fn bulk(entries: &[Given<'_>], metadata: &[(&str, &str)]) -> BulkRequest {
    let entry = |&(id, data, metadata): &Given<'_>| BulkEntry {
        id: id.to_owned(),
        data: data.into(),
        content_type: Some("text/plain".into()),
        metadata: metadata.map(fakes::pairs),
    };
    BulkRequest {
        caller: fakes::caller("me"),
        pubsub: "bus".into(),
        topic: "t".into(),
        entries: entries.iter().map(entry).collect(),
        metadata: fakes::pairs(metadata),
        trace: Trace::default(),
    }
}

fn three() -> BulkRequest {
    bulk(&[("1", "a", None), ("2", "b", None), ("3", "c", None)], &[])
}

/// What is sent when three entries get these answers in turn, under a policy with two retries; and what failed.
async fn check_bulk(answers: Vec<Answer>, sent: &[&str], failed: &[(&str, BrokerError)]) {
    let (bus, kept) = broker(fakes::component(TopicScopes::default()), answers);
    bus.features.set(Features { max_batch: 2, ..Features::default() }).expect("unset");
    let topology = fakes::topology(bus, retry(Some(2), None), 1);
    let failed = failed.iter().map(|(id, error)| FailedEntry { id: (*id).to_owned(), error: error.clone() });
    assert_eq!(publish_bulk(&topology, three()).await, Ok(failed.collect()));
    let data = |message: &Message| {
        let event: serde_json::Value = serde_json::from_slice(&message.data).expect("an event");
        event["data"].as_str().expect("a text").to_owned()
    };
    let kept: Vec<String> = kept.lock().expect("not poisoned").iter().map(data).collect();
    assert_eq!(kept, sent);
}

#[tokio::test(start_paused = true)]
async fn only_entries_that_failed_are_sent_again() {
    let transient = || BrokerError::Transient("x".into());
    let permanent = || BrokerError::Permanent("x".into());
    let (good, bad) = (|| Some(Ok(())), |error: BrokerError| Some(Err(error)));
    check_bulk(vec![good()], &["a", "b", "c"], &[]).await;
    check_bulk(vec![good(), bad(transient()), good()], &["a", "b", "c", "b"], &[]).await;
    let never = vec![good(), bad(permanent()), bad(transient()), good()];
    check_bulk(never, &["a", "b", "c", "c"], &[("2", permanent())]).await;
    let sent = ["a", "b", "c", "a", "b", "c", "a", "b", "c"];
    let failed = [("1", transient()), ("2", transient()), ("3", transient())];
    check_bulk(vec![bad(transient())], &sent, &failed).await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_has_the_requests_metadata_only_with_its_own() {
    let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![Some(Ok(()))]);
    let topology = fakes::topology(bus, Policies::default(), 1);
    let own = [("a", "own"), ("rawPayload", "true")];
    let entries: [Given<'_>; 3] = [("1", "x", None), ("2", "x", Some(&[])), ("3", "x", Some(&own))];
    let request = bulk(&entries, &[("a", "all"), ("b", "all")]);
    assert_eq!(publish_bulk(&topology, request).await, Ok(Vec::new()));
    let sent = sent.lock().expect("not poisoned");
    assert!(sent[0].metadata.is_empty());
    assert_eq!(sent[1].metadata, fakes::pairs(&[("a", "all"), ("b", "all")]));
    assert_eq!(sent[2].metadata, fakes::pairs(&[("a", "own"), ("rawPayload", "true"), ("b", "all")]));
    assert_ne!(&sent[2].data[..], b"x", "an entry's own rawPayload means nothing");
}

#[tokio::test(start_paused = true)]
async fn a_whole_request_may_be_raw() {
    let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![Some(Ok(()))]);
    let topology = fakes::topology(bus, Policies::default(), 1);
    let raw = |value: &'static str| BulkRequest { metadata: fakes::pairs(&[("rawPayload", value)]), ..three() };
    assert_eq!(publish_bulk(&topology, raw("true")).await, Ok(Vec::new()));
    assert_eq!(&sent.lock().expect("not poisoned")[2].data[..], b"c");
    let refused = PublishError::RawPayload { actual: "maybe".into() };
    assert_eq!(publish_bulk(&topology, raw("maybe")).await, Err(refused));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_refused_as_a_whole() {
    let scopes = TopicScopes { protected: vec!["t".into()], ..TopicScopes::default() };
    let (bus, sent) = broker(fakes::component(scopes), vec![Some(Ok(()))]);
    let topology = fakes::topology(bus, Policies::default(), 1);
    let refused = |request| publish_bulk(&topology, request);
    let nobus = || "nobus".to_owned();
    let unknown = BulkRequest { pubsub: nobus(), ..three() };
    assert_eq!(refused(unknown).await, Err(PublishError::NotFound { pubsub: nobus() }));
    let forbidden = PublishError::Forbidden { topic: "t".into(), app_id: "me".into() };
    assert_eq!(refused(three()).await, Err(forbidden.clone()));
    assert_eq!(refused(bulk(&[], &[])).await, Err(forbidden));
    let mut event = three();
    event.entries[1].content_type = Some("application/cloudevents+json".into());
    assert!(matches!(refused(event).await, Err(PublishError::CloudEvent { .. })), "before the scope");
    assert!(sent.lock().expect("not poisoned").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_too_large_fails_alone() {
    let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![Some(Ok(()))]);
    bus.features.set(Features { max_message_bytes: 3, max_batch: 10, ..Features::default() }).expect("the first");
    let topology = fakes::topology(bus, Policies::default(), 1);
    let request = bulk(&[("1", "abc", None), ("2", "abcd", None)], &[("rawPayload", "true")]);
    let failed = publish_bulk(&topology, request).await.expect("published in part");
    assert_eq!(failed.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["2"]);
    assert_eq!(sent.lock().expect("not poisoned").len(), 1);
}

/// The lists that messages of these sizes are handed over in.
fn check_batches(max_batch: Option<u32>, sizes: &[usize], expect: &[usize]) {
    let (bus, _jobs) = Broker::new(Arc::new(fakes::component(TopicScopes::default())));
    if let Some(max_batch) = max_batch {
        bus.features.set(Features { max_batch, ..Features::default() }).expect("unset");
    }
    let message = |&size: &usize| Message {
        topic: Arc::from("t"),
        key: None,
        data: vec![0; size].into(),
        metadata: Metadata::new(),
    };
    let batches = batches(&bus, sizes.iter().map(message).collect());
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), expect, "{max_batch:?} {sizes:?}");
}

#[test]
fn a_call_is_bounded_by_count_and_by_bytes() {
    check_batches(Some(2), &[1; 5], &[2, 2, 1]);
    check_batches(Some(0), &[1; 2], &[1, 1]);
    check_batches(None, &[1; 5], &[5]);
    check_batches(Some(100), &[BATCH_BYTES_MAX, 1, 1], &[1, 2]);
    check_batches(Some(100), &[BATCH_BYTES_MAX * 2, BATCH_BYTES_MAX - 1, 1], &[1, 2]);
}

/// How many messages the broker gets where only these HTTP codes are retried.
async fn check_matching(http: Option<RangeInclusive<u16>>, error: BrokerError, sends: usize) {
    let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![Some(Err(error.clone()))]);
    let mut policies = retry(Some(2), None);
    let retry = policies.outbound_default.retry.as_mut().expect("a retry");
    retry.matching = Matching { http: http.clone().map(|range| Codes(vec![range])), grpc: Some(Codes(vec![5..=5])) };
    let topology = fakes::topology(bus, policies, 1);
    assert_eq!(published(&topology, fakes::request("t", "x", &[])).await, Err(error.clone()));
    assert_eq!(sent.lock().expect("not poisoned").len(), sends, "{http:?} {error:?}");
}

#[tokio::test(start_paused = true)]
async fn only_listed_codes_are_sent_again_and_what_has_none() {
    let transient = || BrokerError::Transient("x".into());
    let throttled = || BrokerError::Throttled { message: "x".into(), retry_after: Duration::ZERO };
    check_matching(None, transient(), 3).await;
    check_matching(Some(500..=599), transient(), 3).await;
    check_matching(Some(429..=429), transient(), 1).await;
    check_matching(Some(429..=429), throttled(), 3).await;
    check_matching(Some(503..=503), throttled(), 1).await;
    check_matching(Some(404..=404), BrokerError::Unknown("x".into()), 3).await;
    check_matching(Some(400..=599), BrokerError::Permanent("x".into()), 1).await;
}

/// Two failures open the breaker: retries end there, and the next publish is not sent.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_ends_retries_and_keeps_publishes_from_the_broker() {
    let failed = || Some(Err(BrokerError::Transient("x".into())));
    let (bus, sent) = broker(fakes::component(TopicScopes::default()), vec![failed(), failed(), Some(Ok(()))]);
    let mut policies = retry(None, None);
    policies.outbound_default.breaker = Some(fakes::breaker("consecutiveFailures > 1"));
    let topology = fakes::topology(bus, policies, 1);
    let open = Err(BrokerError::Broken("circuit breaker is open".into()));
    for _ in 0..2 {
        assert_eq!(published(&topology, fakes::request("t", "x", &[])).await, open);
    }
    assert_eq!(sent.lock().expect("not poisoned").len(), 2);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(published(&topology, fakes::request("t", "x", &[])).await, Ok(()));
}

/// Counted once, whatever it took; and not at all where it never came to a publish.
#[tokio::test(start_paused = true)]
async fn a_publish_is_counted_after_its_retries() {
    let failed = Some(Err(BrokerError::Transient("x".into())));
    let (bus, _sent) = broker(fakes::component(TopicScopes::default()), vec![failed, Some(Ok(()))]);
    let topology = fakes::topology(bus, retry(Some(1), None), 1);
    assert_eq!(published(&topology, fakes::request("t", "x", &[])).await, Ok(()));
    assert!(publish(&topology, fakes::request("", "x", &[])).await.is_err());
    let text = topology.environment.metrics.text();
    let counts: Vec<&str> =
        text.lines().filter(|line| line.starts_with("dapr_component_pubsub_egress_count")).collect();
    let labels = r#"app_id="me",component="bus",namespace="",success="true",topic="t""#;
    assert_eq!(counts, [format!("dapr_component_pubsub_egress_count{{{labels}}} 1")]);
    assert!(text.contains(&format!("dapr_component_pubsub_egress_latencies_sum{{{labels}}} 2000")), "{text}");
}

/// Each publish is under its policies once, however many attempts it has; a breaker that closes has turned, too.
#[tokio::test(start_paused = true)]
async fn what_policies_do_is_counted() {
    let failed = || Some(Err(BrokerError::Transient("x".into())));
    let answers = vec![failed(), failed(), Some(Ok(())), None];
    let (bus, _sent) = broker(fakes::component(TopicScopes::default()), answers);
    let mut policies = retry(Some(1), Some(Duration::from_secs(3)));
    policies.outbound_default.breaker = Some(fakes::breaker("consecutiveFailures > 1"));
    policies.resource = "r".to_owned();
    let topology = fakes::topology(bus, policies, 1);
    assert!(published(&topology, fakes::request("t", "x", &[])).await.is_err());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(published(&topology, fakes::request("t", "x", &[])).await, Ok(()));
    assert!(published(&topology, fakes::request("t", "x", &[])).await.is_err());
    let counted = fakes::policies_counted(&topology.environment.metrics);
    let count = |line: &str| -> u32 {
        counted.iter().filter_map(|counted| counted.strip_prefix(line)?.trim().parse::<u32>().ok()).sum()
    };
    let activated =
        |policy: &str| -> u32 { count(&format!("activations_totalflow_direction=outbound,policy={policy}")) };
    let applied = |policy: &str| -> u32 { count(&format!("countflow_direction=outbound,policy={policy}")) };
    assert_eq!(applied("retry,status="), 3, "{counted:?}");
    assert_eq!(applied("timeout,status="), 3, "{counted:?}");
    assert_eq!(applied("circuitbreaker,status=closed"), 2, "{counted:?}");
    assert_eq!(applied("circuitbreaker,status=half-open"), 1, "{counted:?}");
    assert_eq!(activated("circuitbreaker,status=open"), 1 + 1, "{counted:?}");
    assert_eq!(activated("circuitbreaker,status=closed"), 1, "{counted:?}");
    assert!(activated("timeout,status=") >= 1, "{counted:?}");
    assert_eq!(activated("retry,status="), 2, "{counted:?}");
}
