use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{advance, sleep};
use whimbrel_pubsub::Message;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

type Results = oneshot::Receiver<Vec<Result<(), BrokerError>>>;

fn publish(size: usize, deadline: Duration) -> (BrokerJob, Results) {
    let (reply, results) = oneshot::channel();
    let message = Message { topic: Arc::from("t"), key: None, data: Bytes::from(vec![0; size]), metadata: Vec::new() };
    let deadline = Instant::now() + deadline;
    (BrokerJob::Publish(PublishJob { messages: vec![message], deadline, reply }), results)
}

fn jobs() -> (mpsc::Sender<BrokerJob>, Jobs) {
    let (sender, queue) = mpsc::channel(HELD_JOBS_MAX * 2);
    (sender, Jobs::new(queue))
}

#[tokio::test(start_paused = true)]
async fn what_comes_meanwhile_goes_to_the_instance() {
    let (sender, mut jobs) = jobs();
    let (job, mut results) = publish(1, HOUR);
    sender.try_send(job).unwrap();
    jobs.meanwhile(sleep(Duration::from_secs(1))).await.unwrap();
    let mut taken = Vec::new();
    assert_eq!(jobs.recv_many(&mut taken, 1).await, 1);
    assert!(matches!(taken[..], [BrokerJob::Publish(_)]) && results.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_instance_that_does_not_come() {
    for (deadline, wait) in [(HOUR, HOLD_WAIT), (Duration::from_secs(1), Duration::from_secs(1))] {
        let (sender, mut jobs) = jobs();
        let (job, results) = publish(1, deadline);
        sender.try_send(job).unwrap();
        let started = Instant::now();
        let result = tokio::select! { biased;
            _ = jobs.meanwhile(pending::<()>()) => panic!("it waits for ever"),
            results = results => results.unwrap(),
        };
        assert!(matches!(&result[..], [Err(BrokerError::Transient(why))] if why.contains("not sent")), "{result:?}");
        assert!(started.elapsed() <= wait, "after {:?}", started.elapsed());
        advance(HOUR).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_is_held_than_there_is_room_for() {
    let (sender, mut jobs) = jobs();
    let mut waiting: Vec<_> = (0..3)
        .map(|_| {
            let (job, results) = publish(HELD_BYTES_MAX / 2 - 1, HOUR);
            sender.try_send(job).unwrap();
            results
        })
        .collect();
    jobs.meanwhile(sleep(Duration::from_secs(1))).await.unwrap();
    assert_eq!(waiting.pop().unwrap().await.unwrap(), [Err(BrokerError::Overloaded)]);
    assert!(waiting.iter_mut().all(|results| results.try_recv().is_err()));
}

#[tokio::test(start_paused = true)]
async fn closing_is_heard_while_there_is_no_instance() {
    for resting in [false, true] {
        let (sender, mut jobs) = jobs();
        let (reply, _closed) = oneshot::channel();
        sender.try_send(BrokerJob::Close(reply)).unwrap();
        let heard = if resting { jobs.refuse(None, "rests").await } else { jobs.meanwhile(pending()).await };
        assert!(matches!(heard, Err(Closing(Some(_)))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_rests_refuses_at_once() {
    let (sender, mut jobs) = jobs();
    let (job, results) = publish(1, HOUR);
    sender.try_send(job).unwrap();
    jobs.refuse(Some(Instant::now() + HOLD_WAIT), "rests").await.unwrap();
    assert_eq!(results.await.unwrap(), [Err(BrokerError::Transient("rests".to_owned()))]);
}

/// What an instance had taken and not begun is the next one's, in its order and before what came later, however much it is.
#[tokio::test(start_paused = true)]
async fn what_is_given_back_goes_first() {
    let (sender, mut jobs) = jobs();
    let mut given = Vec::new();
    let mut waiting = Vec::new();
    for size in [HELD_BYTES_MAX, HELD_BYTES_MAX + 1] {
        let (BrokerJob::Publish(job), results) = publish(size, HOUR) else { panic!("no publish") };
        given.push(job);
        waiting.push(results);
    }
    let (later, _results) = publish(1, HOUR);
    sender.try_send(later).unwrap();
    jobs.give_back(given.into_iter());
    let mut taken = Vec::new();
    assert_eq!(jobs.recv_many(&mut taken, 10).await, 2);
    let sizes: Vec<usize> =
        taken.iter().map(|job| if let BrokerJob::Publish(job) = job { bytes(job) } else { 0 }).collect();
    assert_eq!(sizes, [HELD_BYTES_MAX + 1, HELD_BYTES_MAX + 2], "and the topic");
    assert_eq!(jobs.recv_many(&mut taken, 10).await, 1);
    assert!(waiting.iter_mut().all(|results| results.try_recv().is_err()));
}
