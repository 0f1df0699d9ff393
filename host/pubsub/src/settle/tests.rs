//! Tests of `settle`: what each disposition does to the broker, and in which order.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use whimbrel_resources::{Policies, TopicScopes};

use super::*;
use crate::Metrics;
use crate::{Broker, BrokerError, BrokerJob, FeedJob, Handler, SettleError, fakes};

/// A delivery in the middle of a host, with the far ends of its channels.
struct Case {
    topology: Topology,
    subscription: Subscription,
    counts: Arc<Ingress>,
    dead_letter_topic: Option<Arc<str>>,
    stopping: Stopping,
    publishes: mpsc::Receiver<BrokerJob>,
    verdicts: mpsc::Receiver<FeedJob>,
    delivery: Option<Delivery>,
}

impl Case {
    fn new(scopes: TopicScopes) -> Self {
        let (bus, publishes) = Broker::new(Arc::new(fakes::component(scopes)));
        let (jobs, verdicts) = mpsc::channel(8);
        let (handler, _) = Handler::new();
        Self {
            topology: fakes::topology(bus, Policies::default(), 1),
            subscription: fakes::subscription(fakes::declared("t", Some("dead"), &[]), "me", handler),
            counts: Metrics::default().ingress("me", "bus", "t"),
            dead_letter_topic: Some(Arc::from("dead")),
            stopping: Stopping { stop: CancellationToken::new(), abandoned: CancellationToken::new() },
            publishes,
            verdicts,
            delivery: Some(Delivery::new(fakes::arrived(7, "m", Some(1)), jobs, CancellationToken::new())),
        }
    }

    fn exit<'a>(&'a self, attempt: u32) -> Exit<'a> {
        Exit {
            topology: &self.topology,
            subscription: &self.subscription,
            counts: &self.counts,
            dead_letter_topic: self.dead_letter_topic.as_ref(),
            event_id: "event-m",
            attempt,
            stopping: &self.stopping,
        }
    }
}

/// Settles with a broker that answers these, and gives what the broker saw in order.
async fn settled(
    disposition: Disposition,
    scopes: TopicScopes,
    publish: Result<(), BrokerError>,
    settle_answer: Result<(), SettleError>,
) -> (Vec<String>, bool) {
    let mut case = Case::new(scopes);
    let delivery = case.delivery.take().expect("once");
    let (mut publishes, mut verdicts) = (mpsc::channel(1).1, mpsc::channel(1).1);
    std::mem::swap(&mut publishes, &mut case.publishes);
    std::mem::swap(&mut verdicts, &mut case.verdicts);
    let mut seen = Vec::new();
    let settling = settle(case.exit(3), delivery, disposition);
    tokio::pin!(settling);
    let settled = loop {
        tokio::select! {
            biased;
            settled = &mut settling => break settled,
            Some(job) = publishes.recv() => {
                let BrokerJob::Publish(job) = job else { panic!("{job:?}") };
                let message = &job.messages[0];
                assert_eq!(message.data, fakes::arrived(7, "m", None).message.data, "the bytes as they came");
                assert_eq!(message.metadata, fakes::pairs(&[("k", "v"), ("pubsubName", "bus")]));
                seen.push(format!("publish to {}", message.topic));
                job.reply.send(vec![publish.clone()]).expect("somebody waits");
            }
            Some(job) = verdicts.recv() => {
                let FeedJob::Settle { token: 7, verdict, reply } = job else { panic!("{job:?}") };
                seen.push(format!("{verdict:?}"));
                reply.send(settle_answer.clone()).expect("somebody waits");
            }
        }
    };
    assert_eq!(settled.message_id, "m");
    (seen, settled.comes_back)
}

async fn check(disposition: Disposition, publish: Result<(), BrokerError>, expect: &[&str], comes_back: bool) {
    let about = format!("{disposition:?} {publish:?}");
    let (seen, again) = settled(disposition, TopicScopes::default(), publish, Ok(())).await;
    assert_eq!((seen, again), (expect.iter().map(|seen| (*seen).to_owned()).collect(), comes_back), "{about}");
}

#[tokio::test(start_paused = true)]
async fn each_disposition_does_one_thing() {
    let wait = Duration::from_secs(9);
    check(Disposition::Ack, Ok(()), &["Ack"], false).await;
    check(Disposition::Drop(Reason::Dropped), Ok(()), &["Ack"], false).await;
    check(Disposition::RetryAfter(wait, Reason::Exhausted("x".into())), Ok(()), &["Retry(9s)"], true).await;
    check(Disposition::Hold, Ok(()), &[], true).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_confirmed_before_the_message_is_acknowledged() {
    let exhausted = || Disposition::DeadLetter(Reason::Exhausted("x".into()));
    check(exhausted(), Ok(()), &["publish to dead", "Ack"], false).await;
    for error in
        [BrokerError::Unknown("x".into()), BrokerError::Transient("x".into()), BrokerError::Permanent("x".into())]
    {
        check(exhausted(), Err(error), &["publish to dead", "Retry(4s)"], true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_goes_whether_or_not_it_can_be_dead_lettered() {
    let expired = || Disposition::DeadLetter(Reason::Expired);
    check(expired(), Ok(()), &["publish to dead", "Ack"], false).await;
    check(expired(), Err(BrokerError::Permanent("x".into())), &["publish to dead", "Ack"], false).await;
}

#[tokio::test(start_paused = true)]
async fn the_dead_letter_topic_is_scoped_as_every_topic() {
    let scopes = TopicScopes { protected: vec!["dead".into()], ..TopicScopes::default() };
    let seen = settled(Disposition::DeadLetter(Reason::Dropped), scopes, Ok(()), Ok(())).await;
    assert_eq!(seen, (vec!["Retry(4s)".to_owned()], true));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_confirmed_comes_back() {
    for error in [SettleError::Stale, SettleError::Failed(BrokerError::Unknown("x".into()))] {
        let seen = settled(Disposition::Ack, TopicScopes::default(), Ok(()), Err(error)).await;
        assert_eq!(seen, (vec!["Ack".to_owned()], true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_fails_while_stopping_is_held() {
    let mut case = Case::new(TopicScopes::default());
    let delivery = case.delivery.take().expect("once");
    case.stopping.stop.cancel();
    drop(std::mem::replace(&mut case.publishes, mpsc::channel(1).1));
    let settled = settle(case.exit(1), delivery, Disposition::DeadLetter(Reason::Dropped)).await;
    assert!(settled.comes_back);
    assert!(case.verdicts.try_recv().is_err(), "nothing is given back while stopping");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_takes_longer_than_the_drain_is_held() {
    let mut case = Case::new(TopicScopes::default());
    let delivery = case.delivery.take().expect("once");
    case.stopping.abandoned.cancel();
    let settled = settle(case.exit(1), delivery, Disposition::DeadLetter(Reason::Dropped)).await;
    assert!(settled.comes_back);
    assert!(case.verdicts.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_never_confirmed_ends_in_time() {
    let mut case = Case::new(TopicScopes::default());
    let delivery = case.delivery.take().expect("once");
    let begun = tokio::time::Instant::now();
    let settled = settle(case.exit(1), delivery, Disposition::Ack).await;
    assert!(settled.comes_back);
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

#[test]
fn waits_double_up_to_a_minute() {
    let waits: Vec<u64> = [0, 1, 2, 3, 6, 7, 8, 100, u32::MAX].map(|attempts| retry_wait(attempts).as_secs()).to_vec();
    assert_eq!(waits, [1, 1, 2, 4, 32, 60, 60, 60, 60]);
}
