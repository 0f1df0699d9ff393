//! Delivering and settling, while nothing is broken.

use super::harness::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use whimbrel_sdk::{SettleFailure, Status, Verdict};

const TYPES: [&str; 2] = ["classic", "quorum"];

#[test]
fn what_is_published_is_delivered_and_settled() {
    run(async {
        let client = Broker::shared().client().await;
        for kind in TYPES {
            let bus = shared(&[("queueType", kind)]).await;
            let topic = topic(kind);
            let inbox = bus.subscribe(&topic, "app", 100).await;
            bus.publish_numbers(&topic, 0..50).await;
            let all = inbox.take(50).await;
            assert!(all.iter().map(number).eq(0..50), "the order of the queue");
            assert!(all.iter().all(|delivery| delivery.count == Some(1) && delivery.message.topic == topic));
            assert_eq!(all.iter().map(|delivery| &delivery.id).collect::<HashSet<_>>().len(), 50);
            assert!(inbox.ack_all(&all).await.iter().all(Result::is_ok));
            bus.close().await;
            until("all is settled", async || client.ready(&format!("app-{topic}")).await == Some(0)).await;
        }
    });
}

#[test]
fn retry_comes_after_the_wait_and_lets_others_pass() {
    run(async {
        for kind in TYPES {
            let bus = shared(&[("queueType", kind)]).await;
            let topic = topic("retry");
            let inbox = bus.subscribe(&topic, "app", 100).await;
            bus.publish(&topic, b"1").await.unwrap();
            let first = inbox.next().await;
            let since = Instant::now();
            inbox.settle(first.token, retry(Duration::from_millis(400))).await.unwrap();
            bus.publish(&topic, b"2").await.unwrap();
            let other = inbox.next().await;
            assert_eq!(number(&other), 2);
            inbox.ack(&other).await;

            let again = inbox.next().await;
            assert!(since.elapsed() >= Duration::from_millis(400), "{:?}", since.elapsed());
            assert_eq!((number(&again), again.count, &again.id), (1, Some(2), &first.id));
            assert_eq!(again.message, first.message);
            assert_ne!(again.token, first.token);
            assert_eq!(inbox.settle(first.token, Verdict::Ack).await, Err(SettleFailure::Stale));
            inbox.settle(again.token, retry(Duration::ZERO)).await.unwrap();
            let last = inbox.next().await;
            assert_eq!(last.count, Some(3));
            inbox.ack(&last).await;
            assert_eq!(inbox.settle(last.token, Verdict::Ack).await, Err(SettleFailure::Stale));
            assert_eq!(bus.adapter.stale_settlements(), 2);
            inbox.stop().await;
            let client = Broker::shared().client().await;
            until("all is settled", async || client.ready(&format!("app-{topic}")).await == Some(0)).await;
        }
    });
}

#[test]
fn instances_of_one_group_share() {
    run(async {
        for kind in TYPES {
            let (one, two) = (shared(&[("queueType", kind)]).await, shared(&[("queueType", kind)]).await);
            let topic = topic("share");
            let (a, b) = (one.subscribe(&topic, "app", 20).await, two.subscribe(&topic, "app", 20).await);
            one.publish_numbers(&topic, 0..500).await;
            let mut seen = Vec::new();
            let mut shares = [0, 0];
            while seen.len() < 500 {
                for (inbox, share) in [&a, &b].into_iter().zip(&mut shares) {
                    while let Some(delivery) = inbox.within(Duration::from_millis(20)).await {
                        inbox.ack(&delivery).await;
                        seen.push(number(&delivery));
                        *share += 1;
                        if *share % 10 == 0 {
                            break;
                        }
                    }
                }
            }
            assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 500, "no message twice");
            assert!(shares.iter().all(|share| *share >= 50), "{shares:?}");
        }
    });
}

/// What the broker has delivered and not heard of again, as its own tool sees it, is never more than the credit.
#[test]
fn credit_is_never_exceeded() {
    run(async {
        let client = Broker::shared().client().await;
        let check = async |settings: &[(&str, &str)], max_unsettled: u32, limit: u32| {
            let bus = shared(settings).await;
            let topic = topic("credit");
            let inbox = bus.subscribe(&topic, "app", max_unsettled).await;
            bus.publish_numbers(&topic, 0..60).await;
            let mut held = inbox.take(usize::try_from(limit).unwrap()).await;
            let mut done = 0;
            while done < 60 {
                if done % 10 == 0 && done + limit < 60 {
                    assert!(inbox.is_quiet().await, "{settings:?}: more than {limit}");
                    assert_eq!(client.ready(&format!("app-{topic}")).await, Some(60 - limit - done));
                }
                // Out of order, so that no acknowledgement may stand for another.
                let delivery = held.remove(held.len() / 2);
                inbox.ack(&delivery).await;
                done += 1;
                if done + u32::try_from(held.len()).unwrap() < 60 {
                    held.push(inbox.next().await);
                }
            }
        };
        check(&[], 7, 7).await;
        check(&[], 1, 1).await;
        check(&[("queueType", "quorum")], 5, 5).await;
        check(&[("prefetchCount", "2")], 10, 2).await;
        check(&[("concurrency", "single")], 10, 1).await;
    });
}

/// What waits for another attempt counts against the credit, too.
#[test]
fn what_waits_counts() {
    run(async {
        let bus = shared(&[]).await;
        let topic = topic("waits");
        let inbox = bus.subscribe(&topic, "app", 2).await;
        bus.publish_numbers(&topic, 0..4).await;
        for delivery in inbox.take(2).await {
            inbox.settle(delivery.token, retry(Duration::from_millis(800))).await.unwrap();
        }
        assert!(inbox.is_quiet().await);
        let again: HashSet<u32> = inbox.take(2).await.iter().map(number).collect();
        assert_eq!(again, HashSet::from([0, 1]));
    });
}

/// More than there is room to keep: the rest comes again from the broker, after the wait and not before.
#[test]
fn a_retry_of_what_cannot_be_kept_waits_its_time_too() {
    run(async {
        for kind in TYPES {
            let bus = shared(&[("queueType", kind)]).await;
            let topic = topic("large");
            let inbox = bus.subscribe(&topic, "app", 10).await;
            let data = vec![7; 12 << 20];
            for _ in 0..4 {
                bus.publish(&topic, &data).await.unwrap();
            }
            let all = inbox.take(4).await;
            let since = Instant::now();
            for delivery in &all {
                inbox.settle(delivery.token, retry(Duration::from_millis(500))).await.unwrap();
            }
            let again = inbox.take(4).await;
            assert!(since.elapsed() >= Duration::from_millis(500), "{:?}", since.elapsed());
            let ids = |list: &[whimbrel_sdk::Delivery]| list.iter().map(|one| one.id.clone()).collect::<HashSet<_>>();
            assert_eq!(ids(&all), ids(&again));
            assert!(again.iter().all(|delivery| delivery.count == Some(2) && delivery.message.data == data));
            assert!(inbox.ack_all(&again).await.iter().all(Result::is_ok));
        }
    });
}

#[test]
fn pause_and_resume_keep_the_credit() {
    run(async {
        for kind in TYPES {
            let bus = shared(&[("queueType", kind)]).await;
            let topic = topic("pause");
            let inbox = bus.subscribe(&topic, "app", 10).await;
            bus.publish_numbers(&topic, 0..4).await;
            let held = inbox.take(4).await;
            inbox.pause().await;
            bus.publish_numbers(&topic, 4..30).await;
            assert!(inbox.is_quiet().await, "paused");
            inbox.ack(&held[0]).await;
            inbox.resume().await;
            // Three are still held, so seven more may come.
            let mut more = inbox.take(7).await;
            assert!(inbox.is_quiet().await, "beyond the credit");
            more.extend(held.into_iter().skip(1));
            assert!(inbox.ack_all(&more).await.iter().all(Result::is_ok));
            let rest = inbox.take(10).await;
            assert!(inbox.is_quiet().await, "beyond the credit");
            assert!(inbox.ack_all(&rest).await.iter().all(Result::is_ok));
            assert_eq!(inbox.take(9).await.len(), 9);
            // Paused with all of the credit in use, nothing can be taken until some of it is free.
            let last = bus.subscribe(&format!("{topic}b"), "app", 1).await;
            bus.publish_numbers(&format!("{topic}b"), 0..2).await;
            let first = last.next().await;
            last.pause().await;
            last.resume().await;
            assert!(last.is_quiet().await);
            last.ack(&first).await;
            last.ack(&last.next().await).await;
        }
    });
}

#[test]
fn what_was_not_settled_goes_to_the_next() {
    run(async {
        for kind in TYPES {
            let bus = shared(&[("queueType", kind)]).await;
            let topic = topic("stop");
            let inbox = bus.subscribe(&topic, "app", 100).await;
            bus.publish_numbers(&topic, 0..100).await;
            let held = inbox.take(100).await;
            assert!(inbox.ack_all(&held[..40]).await.iter().all(Result::is_ok));
            inbox.settle(held[40].token, retry(Duration::from_secs(3600))).await.unwrap();
            let since = Instant::now();
            inbox.stop().await;
            assert!(since.elapsed() < Duration::from_secs(2));
            let other = shared(&[("queueType", kind)]).await;
            let next = other.subscribe(&topic, "app", 100).await;
            let again = next.take(60).await;
            assert_eq!(again.iter().map(number).collect::<HashSet<_>>(), (40..100).collect());
            assert!(again.iter().all(|delivery| delivery.count == Some(2)), "{:?}", again[0].count);
            assert!(next.ack_all(&again).await.iter().all(Result::is_ok));
            assert!(next.is_quiet().await);
        }
    });
}

/// A wait outlasts its subscription, where the same process subscribes again.
#[test]
fn a_wait_outlasts_its_subscription() {
    run(async {
        let bus = shared(&[]).await;
        let topic = topic("outlast");
        let inbox = bus.subscribe(&topic, "app", 10).await;
        bus.publish(&topic, b"1").await.unwrap();
        let since = Instant::now();
        inbox.settle(inbox.next().await.token, retry(Duration::from_secs(1))).await.unwrap();
        inbox.stop().await;
        let inbox = bus.subscribe(&topic, "app", 10).await;
        let again = inbox.next().await;
        assert!(since.elapsed() >= Duration::from_secs(1), "{:?}", since.elapsed());
        assert_eq!(again.count, Some(2));
        inbox.ack(&again).await;
    });
}

#[test]
fn the_stream_ends_with_the_subscription_and_with_the_connection() {
    run(async {
        let bus = shared(&[]).await;
        let topic = topic("end");
        let (one, two) = (bus.subscribe(&topic, "app", 10).await, bus.subscribe(&format!("{topic}b"), "app", 10).await);
        one.stop().await;
        bus.publish(&format!("{topic}b"), b"1").await.unwrap();
        two.ack(&two.next().await).await;
        bus.close().await;
        assert!(two.has_ended().await);
    });
}

/// Two connections, however many subscriptions; one of them goes with the last subscription.
#[test]
fn many_subscriptions_share_a_connection() {
    run(async {
        let broker = Broker::shared();
        let name = topic("census");
        let bus = shared(&[("clientName", &name)]).await;
        let mut inboxes = Vec::new();
        for number in 0..60 {
            inboxes.push(bus.subscribe(&format!("{name}.{number}"), "app", 10).await);
        }
        for number in 0..60 {
            bus.publish(&format!("{name}.{number}"), b"1").await.unwrap();
        }
        for inbox in &inboxes {
            inbox.ack(&inbox.next().await).await;
        }
        let census = async || {
            let list = broker.control(&["list_connections", "client_properties", "channels"]);
            list.lines().filter(|line| line.contains(&name)).count()
        };
        assert_eq!(census().await, 2);
        for inbox in inboxes {
            inbox.stop().await;
        }
        until("the consuming connection is gone", async || census().await == 1).await;
        bus.publish(&format!("{name}.0"), b"1").await.unwrap();
        assert_eq!(number(&bus.subscribe(&format!("{name}.0"), "app", 10).await.next().await), 1);
    });
}

/// Waits until the host is told how many messages wait.
async fn is_behind(bus: &Bus, topic: &str, messages: u64) {
    let is_it = |status: &Status| matches!(status, Status::Lag(lag) if (lag.messages, &*lag.topic, &*lag.group) == (messages, topic, "app"));
    bus.hears(&format!("lag of {messages}"), is_it).await;
}

#[test]
fn how_far_a_group_is_behind() {
    run(async {
        for kind in TYPES {
            let bus = shared(&[("queueType", kind)]).await;
            let (topic, other) = (topic(kind), topic("other"));
            let (inbox, _other) = (bus.subscribe(&topic, "app", 10).await, bus.subscribe(&other, "app", 10).await);
            bus.publish_numbers(&topic, 0..10).await;
            let held = inbox.take(10).await;
            bus.publish_numbers(&topic, 10..50).await;
            is_behind(&bus, &topic, 40).await;
            // What is asked is in nobody's way, and tells what comes meanwhile, too.
            bus.publish_numbers(&topic, 50..55).await;
            is_behind(&bus, &topic, 45).await;
            inbox.ack_all(&held).await;
            for _ in 0..45 {
                inbox.ack(&inbox.next().await).await;
            }
            is_behind(&bus, &topic, 0).await;
        }
    });
}

/// A queue that is gone closes the channel of who asks for it, and no other; it is asked for again when it is there again.
#[test]
fn a_queue_that_is_gone_is_not_counted_until_it_is_there_again() {
    run(async {
        let client = Broker::shared().client().await;
        let bus = shared(&[]).await;
        let (gone, kept) = (topic("gone"), topic("kept"));
        let (paused, inbox) = (bus.subscribe(&gone, "app", 1).await, bus.subscribe(&kept, "app", 1).await);
        // Without a consumer the broker tells nobody that the queue is gone, until it is to be bound again.
        paused.pause().await;
        client.delete_queue(&format!("app-{gone}")).await;
        bus.publish_numbers(&kept, 0..4).await;
        is_behind(&bus, &kept, 3).await;
        bus.hears("the loss", |status| matches!(status, Status::DataLoss(_))).await;
        until("the queue to be there again", async || client.ready(&format!("app-{gone}")).await.is_some()).await;
        bus.publish_numbers(&gone, 0..3).await;
        is_behind(&bus, &gone, 3).await;
        inbox.ack(&inbox.next().await).await;
        assert_eq!(number(&inbox.next().await), 1);
    });
}
