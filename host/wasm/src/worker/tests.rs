//! What goes into one publish call.

use bytes::Bytes;
use whimbrel_pubsub::Message;

use super::*;

fn features(max_batch: u32, topic_flow: bool) -> Features {
    Features { max_batch, topic_flow, ..Features::default() }
}

/// A job of so many messages of so many bytes, and its publisher's end.
fn job(topic: &str, count: usize, size: usize) -> (PublishJob, oneshot::Receiver<Vec<Result<(), BrokerError>>>) {
    let data = Bytes::from(vec![0; size]);
    let message = Message { topic: Arc::from(topic), key: None, data, metadata: Vec::new() };
    let (reply, results) = oneshot::channel();
    let deadline = Instant::now() + Duration::from_secs(30);
    (PublishJob { messages: vec![message; count], deadline, reply }, results)
}

/// The messages of each call, until nothing waits.
fn check(jobs: &[(&str, usize, usize)], features: &Features, alone: bool, expected: &[usize]) {
    let (mut backlog, _publishers): (VecDeque<_>, Vec<_>) =
        jobs.iter().map(|(topic, count, size)| job(topic, *count, *size)).unzip();
    let mut calls = Vec::new();
    while !backlog.is_empty() {
        let batch = take_batch(&mut backlog, features, alone);
        calls.push(batch.iter().map(|job| job.messages.len()).sum::<usize>());
    }
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn all_that_waits_goes_into_one_call() {
    check(&[("a", 1, 10), ("b", 1, 10), ("a", 1, 10)], &features(512, false), false, &[3]);
}

#[tokio::test]
async fn as_many_as_the_adapter_takes() {
    check(&[("a", 1, 10), ("a", 1, 10), ("a", 1, 10)], &features(2, false), false, &[2, 1]);
    check(&[("a", 1, 10), ("a", 2, 10)], &features(2, false), false, &[1, 2]);
}

#[tokio::test]
async fn no_more_bytes_than_a_guest_can_hold() {
    let half = CALL_BYTES_MAX / 2;
    check(&[("a", 1, half), ("a", 1, half), ("a", 1, 10)], &features(512, false), false, &[1, 2]);
    check(&[("a", 1, CALL_BYTES_MAX * 2), ("a", 1, 10)], &features(512, false), false, &[1, 1]);
}

#[tokio::test]
async fn nobody_waits_for_the_subscribers_of_another_topic() {
    check(&[("a", 1, 10), ("a", 1, 10), ("b", 1, 10)], &features(512, true), false, &[2, 1]);
    check(&[("a", 1, 10), ("a", 1, 10)], &features(512, true), true, &[1, 1]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_sent() {
    let (gone, results) = job("a", 1, 10);
    drop(results);
    let (mut late, _publisher) = job("a", 1, 10);
    late.deadline = Instant::now();
    let (waited_for, _waiting) = job("a", 1, 10);
    let mut backlog = VecDeque::from([gone, late, waited_for]);
    assert_eq!(take_batch(&mut backlog, &features(512, false), false).len(), 1);
    assert!(backlog.is_empty());
}

#[test]
fn what_the_host_relies_on_must_stay() {
    let running = Features { durable: true, groups: true, max_message_bytes: 100, ..Features::default() };
    let check = |next: Features, expected: Option<&str>| match (lacks(&running, &next), expected) {
        (None, None) => {}
        (Some(why), Some(part)) => assert!(why.contains(part), "{why}"),
        (found, expected) => panic!("{found:?}, {expected:?}"),
    };
    check(running.clone(), None);
    check(Features { ttl: true, max_batch: 1, ..running.clone() }, None);
    check(Features { durable: false, groups: false, ..running.clone() }, Some("durable, groups missing"));
    check(Features { max_message_bytes: 0, ..running.clone() }, None);
    check(Features { max_message_bytes: 99, ..running.clone() }, Some("99 bytes"));
    let unlimited = Features { max_message_bytes: 0, ..running.clone() };
    assert!(lacks(&unlimited, &running).is_some());
}
