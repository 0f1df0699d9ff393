use super::*;
use futures::channel::mpsc::Receiver;
use futures::{FutureExt, StreamExt};
use std::future::Future;
use tokio::task::{LocalSet, yield_now};

const LIMITS: Limits = Limits { messages: 1_000, bytes: 1 << 20 };

/// Turns of the executor after which nothing more happens by itself.
const SETTLED_TURNS: usize = 50;

/// A broker on a paused clock: time passes only when everybody waits.
fn run<F: Future<Output = ()>>(limits: Limits, case: impl FnOnce(Rc<Queues>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let queues = Rc::new(Queues::new(limits));
    runtime.expect("a runtime").block_on(LocalSet::new().run_until(case(queues)));
}

async fn quiet() {
    for _ in 0..SETTLED_TURNS {
        yield_now().await;
    }
}

async fn after(millis: u64) {
    quiet().await;
    tokio::time::advance(Duration::from_millis(millis)).await;
    quiet().await;
}

struct Sub {
    live: Option<Live>,
    lists: Receiver<Vec<Delivery>>,
    unsettled: Vec<u64>,
}

fn subscribe(queues: &Queues, topic: &str, group: &str, max_unsettled: u32) -> Sub {
    let (sink, lists, _) = DeliverySink::channel();
    let live = queues.subscribe(topic.into(), group.into(), max_unsettled, sink).expect(topic);
    Sub { live: Some(live), lists, unsettled: Vec::new() }
}

impl Sub {
    /// What arrived by now, as `text:count` in order.
    async fn arrived(&mut self) -> String {
        let mut words = Vec::new();
        loop {
            quiet().await;
            let Some(Some(list)) = self.lists.next().now_or_never() else { return words.join(" ") };
            for delivery in list {
                self.unsettled.push(delivery.token);
                let text = String::from_utf8(delivery.message.data).expect("text");
                words.push(format!("{text}:{}", delivery.count.expect("counted")));
            }
        }
    }

    /// Settles the oldest that is not.
    fn settle(&mut self, verdict: Verdict) -> Result<(), SettleFailure> {
        let token = self.unsettled.remove(0);
        self.live.as_ref().expect("live").settle(vec![Settlement { token, verdict }]).remove(0)
    }

    fn ack(&mut self) {
        assert_eq!(self.settle(Verdict::Ack), Ok(()));
    }

    fn retry(&mut self, millis: u64) {
        assert_eq!(self.settle(Verdict::Retry(millis * 1_000_000)), Ok(()));
    }

    fn stop(&mut self) {
        self.live.take().expect("live").stop();
    }
}

/// Publishes the words of a text, with a time to live if one is given.
fn publish(queues: &Queues, topic: &str, words: &str, ttl: Option<&str>) -> Result<(), Failure> {
    let metadata: Vec<_> = ttl.iter().map(|ttl| ("ttlInSeconds".to_owned(), (*ttl).to_owned())).collect();
    words.split(' ').try_for_each(|word| {
        queues.publish(Message { topic: topic.into(), key: None, data: word.into(), metadata: metadata.clone() })
    })
}

#[test]
fn each_group_gets_all_and_its_members_share() {
    run(LIMITS, async |queues| {
        let (mut one, mut two) = (subscribe(&queues, "t", "a", 1), subscribe(&queues, "t", "a", 1));
        let mut other = subscribe(&queues, "t", "b", 9);
        publish(&queues, "t", "1 2 3", None).expect("published");
        assert_eq!(other.arrived().await, "1:1 2:1 3:1");
        let mut shared = [one.arrived().await, two.arrived().await];
        shared.sort();
        assert_eq!(shared, ["1:1", "2:1"]);
        one.ack();
        assert_eq!(one.arrived().await, "3:1");
    });
}

#[test]
fn a_group_begins_with_its_first_subscription() {
    run(LIMITS, async |queues| {
        publish(&queues, "t", "1", None).expect("published");
        let mut sub = subscribe(&queues, "t", "a", 9);
        publish(&queues, "t", "2", None).expect("published");
        assert_eq!(sub.arrived().await, "2:1");
    });
}

#[test]
fn credit_is_never_exceeded_and_lists_are_as_long_as_it_allows() {
    run(LIMITS, async |queues| {
        let mut sub = subscribe(&queues, "t", "a", 3);
        publish(&queues, "t", "1 2 3 4 5", None).expect("published");
        quiet().await;
        assert_eq!(sub.lists.next().now_or_never().flatten().map(|list| list.len()), Some(3));
        assert_eq!(sub.arrived().await, "");
        sub.unsettled = vec![1, 2, 3];
        sub.ack();
        sub.ack();
        assert_eq!(sub.arrived().await, "4:1 5:1");
    });
}

#[test]
fn a_retry_waits_its_time_and_lets_others_pass() {
    run(LIMITS, async |queues| {
        let mut sub = subscribe(&queues, "t", "a", 2);
        publish(&queues, "t", "1 2 3", None).expect("published");
        assert_eq!(sub.arrived().await, "1:1 2:1");
        sub.retry(1_000);
        sub.ack();
        assert_eq!(sub.arrived().await, "3:1");
        after(999).await;
        assert_eq!(sub.arrived().await, "");
        after(2).await;
        assert_eq!(sub.arrived().await, "1:2");
    });
}

#[test]
fn a_shorter_retry_that_comes_later_is_not_overslept() {
    run(LIMITS, async |queues| {
        let mut sub = subscribe(&queues, "t", "a", 2);
        publish(&queues, "t", "1 2", None).expect("published");
        assert_eq!(sub.arrived().await, "1:1 2:1");
        sub.retry(60_000);
        quiet().await;
        sub.retry(10);
        after(11).await;
        assert_eq!(sub.arrived().await, "2:2");
        after(60_000).await;
        assert_eq!(sub.arrived().await, "1:2");
    });
}

#[test]
fn a_queue_survives_its_subscriptions() {
    run(LIMITS, async |queues| {
        let mut sub = subscribe(&queues, "t", "a", 2);
        publish(&queues, "t", "1 2 3", None).expect("published");
        assert_eq!(sub.arrived().await, "1:1 2:1");
        sub.ack();
        sub.stop();
        assert_eq!(sub.arrived().await, "");
        assert_eq!(sub.lists.next().now_or_never(), Some(None), "its stream has ended");
        publish(&queues, "t", "4", None).expect("published");
        let mut next = subscribe(&queues, "t", "a", 9);
        assert_eq!(next.arrived().await, "2:2 3:1 4:1");
    });
}

#[test]
fn what_one_member_leaves_the_other_takes() {
    // By its stop, or because the host hung up and takes no more.
    let check = |leave: fn(Sub)| {
        run(LIMITS, async move |queues| {
            let mut leaving = subscribe(&queues, "t", "a", 2);
            publish(&queues, "t", "1", None).expect("published");
            assert_eq!(leaving.arrived().await, "1:1");
            let mut staying = subscribe(&queues, "t", "a", 9);
            leave(leaving);
            // A hang-up shows at the next list: both wait for one by now.
            quiet().await;
            publish(&queues, "t", "2 3", None).expect("published");
            let arrived = staying.arrived().await;
            let mut ids: Vec<_> = arrived.split(' ').filter_map(|word| word.split(':').next()).collect();
            ids.sort_unstable();
            assert_eq!(ids, ["1", "2", "3"], "{arrived}");
            assert!(arrived.contains("1:2"), "{arrived}");
        });
    };
    check(|mut sub| sub.stop());
    check(|sub| drop(sub.lists));
}

#[test]
fn a_paused_subscription_takes_nothing_and_resumes() {
    run(LIMITS, async |queues| {
        let mut sub = subscribe(&queues, "t", "a", 9);
        sub.live.as_ref().expect("live").pause();
        publish(&queues, "t", "1", None).expect("published");
        assert_eq!(sub.arrived().await, "");
        sub.live.as_ref().expect("live").resume();
        assert_eq!(sub.arrived().await, "1:1");
    });
}

#[test]
fn expired_messages_are_not_delivered() {
    run(LIMITS, async |queues| {
        let mut sub = subscribe(&queues, "t", "a", 1);
        publish(&queues, "t", "1", None).expect("published");
        publish(&queues, "t", "2", Some("2")).expect("published");
        publish(&queues, "t", "3", Some("0")).expect("published");
        publish(&queues, "t", "4", Some("3600")).expect("published");
        publish(&queues, "t", "5", Some("9223372036854775807")).expect("published");
        assert_eq!(sub.arrived().await, "1:1");
        after(2_001).await;
        sub.ack();
        assert_eq!(sub.arrived().await, "4:1");
        sub.ack();
        assert_eq!(sub.arrived().await, "5:1");
    });
}

#[test]
fn a_full_queue_throttles_and_takes_nothing_anywhere() {
    run(Limits { messages: 2, bytes: 1 << 20 }, async |queues| {
        let (mut slow, mut quick) = (subscribe(&queues, "t", "slow", 1), subscribe(&queues, "*", "quick", 9));
        publish(&queues, "t", "1 2", None).expect("published");
        assert_eq!(quick.arrived().await, "1:1 2:1");
        quick.ack();
        quick.ack();
        let full = publish(&queues, "t", "3", None);
        assert!(matches!(full, Err(Failure::Throttled((_, THROTTLED_WAIT_NANOS)))), "{full:?}");
        assert_eq!(quick.arrived().await, "", "all or none");
        assert_eq!(slow.arrived().await, "1:1");
        slow.ack();
        publish(&queues, "t", "3", None).expect("there is room again");
        assert_eq!((quick.arrived().await, slow.arrived().await), ("3:1".into(), "2:1".into()));
    });
}

#[test]
fn a_message_beyond_the_limit_is_invalid() {
    run(Limits { messages: 9, bytes: 200 }, async |queues| {
        let mut sub = subscribe(&queues, "t", "a", 1);
        let refused = publish(&queues, "t", &"x".repeat(201), None);
        assert!(matches!(refused, Err(Failure::Invalid(text)) if text.contains("maxQueueBytes")));
        let largest = "x".repeat(200);
        assert_eq!(publish(&queues, "t", &largest, None), Ok(()));
        assert!(matches!(publish(&queues, "t", "x", None), Err(Failure::Throttled(_))), "full until it is settled");
        assert_eq!(sub.arrived().await, format!("{largest}:1"));
        sub.ack();
        assert_eq!(publish(&queues, "t", "x", None), Ok(()));
    });
}

#[test]
fn tokens_are_unique_across_the_connection() {
    run(LIMITS, async |queues| {
        let (mut one, mut two) = (subscribe(&queues, "t", "a", 9), subscribe(&queues, "t", "b", 9));
        publish(&queues, "t", "1 2", None).expect("published");
        assert_eq!((one.arrived().await, two.arrived().await), ("1:1 2:1".into(), "1:1 2:1".into()));
        assert!(one.unsettled.iter().all(|token| !two.unsettled.contains(token)));
        let foreign = two.unsettled[0];
        one.unsettled.insert(0, foreign);
        assert_eq!(one.settle(Verdict::Ack), Err(SettleFailure::Stale));
    });
}

#[test]
fn closing_ends_every_stream() {
    run(LIMITS, async |queues| {
        let (mut one, mut two) = (subscribe(&queues, "t", "a", 9), subscribe(&queues, "u", "b", 9));
        queues.close();
        quiet().await;
        assert_eq!(one.lists.next().now_or_never(), Some(None));
        assert_eq!(two.lists.next().now_or_never(), Some(None));
    });
}

#[test]
fn all_queues_together_have_a_bound() {
    let limits = Limits { messages: 1_000, bytes: room::ROOM_BYTES };
    run(limits, async |queues| {
        let mut subs = ["a", "b", "c"].map(|topic| subscribe(&queues, topic, "g", 1));
        let large = "x".repeat(room::ROOM_BYTES / 4);
        for (topic, ttl) in [("a", None), ("b", Some("5")), ("b", Some("1"))] {
            publish(&queues, topic, &large, ttl).expect("there is room");
        }
        // A fourth would be within the bounds of its queue.
        let full = publish(&queues, "c", &large, None);
        assert!(matches!(full, Err(Failure::Throttled((_, room::THROTTLED_WAIT_NANOS)))), "{full:?}");
        after(1_001).await;
        publish(&queues, "c", &large, None).expect("one has expired in another queue");
        assert!(matches!(publish(&queues, "c", &large, None), Err(Failure::Throttled(_))));
        assert_eq!(subs[0].arrived().await.len(), large.len() + 2);
        subs[0].ack();
        publish(&queues, "c", &large, None).expect("one was acknowledged in another queue");
    });
}
