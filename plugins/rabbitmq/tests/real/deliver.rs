//! Delivering and settling, while nothing is broken.

use super::harness::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use whimbrel_sdk::{SettleFailure, Subscription, Verdict};

const TYPES: [&str; 2] = ["classic", "quorum"];

#[test]
fn what_is_published_is_delivered_and_settled() {
    run(async {
        let client = Broker::shared().client().await;
        for kind in TYPES {
            let bus = Bus::shared(&[("queueType", kind)]).await;
            let topic = topic(kind);
            let inbox = bus.subscribe(&topic, 100).await;
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
            let bus = Bus::shared(&[("queueType", kind)]).await;
            let topic = topic("retry");
            let inbox = bus.subscribe(&topic, 100).await;
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
            assert_eq!(bus.rabbitmq.stale_settlements(), 2);
            inbox.subscription.stop().await;
            let client = Broker::shared().client().await;
            until("all is settled", async || client.ready(&format!("app-{topic}")).await == Some(0)).await;
        }
    });
}
