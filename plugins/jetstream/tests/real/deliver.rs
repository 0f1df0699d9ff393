//! Delivering and settling, while nothing is broken.

use super::harness::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use whimbrel_sdk::{SettleFailure, StartPosition, Status, Verdict};

#[test]
fn instances_of_one_group_share() {
    run(async {
        let server = Server::start().await;
        let (one, two) = (open(&server.url(), &[]).await, open(&server.url(), &[]).await);
        let (a, b) = (one.subscribe("orders", "app", 20).await, two.subscribe("orders", "app", 20).await);
        let mut seen = Vec::new();
        let mut shares = [0, 0];
        one.publish_numbers("orders", 0..500).await;
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
        assert_eq!(server.unacked("orders", "app").await, 0);
    });
}

#[test]
fn each_group_gets_all_and_from_where_it_wants() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        bus.publish_numbers("orders", 0..10).await;
        let all = [bus.subscribe("orders", "one", 100).await, bus.subscribe("orders", "two", 100).await];
        let early = subscribe_from(&bus, "orders", "early", StartPosition::Earliest).await;
        let late = subscribe_from(&bus, "orders", "late", StartPosition::Latest).await;
        bus.publish_numbers("orders", 10..20).await;
        for inbox in all.into_iter().chain([early]) {
            let all = inbox.take(20).await;
            assert!(all.iter().map(number).eq(0..20));
            assert!(inbox.ack_all(&all).await.iter().all(Result::is_ok));
        }
        assert!(late.take(10).await.iter().map(number).eq(10..20));
    });
}

/// Names that look alike once they are spelled for NATS are still different groups.
#[test]
fn groups_are_not_mixed_up() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let names = ["a.b", "a b", "a_b", "日本", "日曜", &"x".repeat(300)];
        let mut inboxes = Vec::new();
        for name in names {
            inboxes.push(bus.subscribe("orders", name, 10).await);
        }
        bus.publish("orders", b"1").await.unwrap();
        for inbox in inboxes {
            inbox.ack(&inbox.next().await).await;
        }
        let consumers = server.api("CONSUMER.NAMES.orders", serde_json::json!({})).await;
        assert_eq!(consumers["total"], names.len());
    });
}

#[test]
fn two_subscriptions_of_one_group_to_one_topic_share() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let (a, b) = (bus.subscribe("orders", "app", 5).await, bus.subscribe("orders", "app", 5).await);
        bus.publish_numbers("orders", 0..10).await;
        let (a, b) = (a.take(5).await, b.take(5).await);
        let all: HashSet<u32> = a.iter().chain(&b).map(number).collect();
        assert_eq!(all.len(), 10);
        assert_eq!(server.unacked("orders", "app").await, 10);
    });
}

#[test]
fn many_topics_need_one_connection() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &[]).await;
        let mut inboxes = Vec::new();
        for topic in 0..50 {
            inboxes.push(bus.subscribe(&format!("t.{topic}"), "app", 10).await);
        }
        for round in 0..3 {
            for (topic, inbox) in inboxes.iter().enumerate() {
                bus.publish(&format!("t.{topic}"), format!("{round}").as_bytes()).await.unwrap();
                let delivery = inbox.next().await;
                assert_eq!((number(&delivery), &delivery.message.topic), (round, &format!("t.{topic}")));
                inbox.ack(&delivery).await;
            }
        }
        assert_eq!(proxy.accepted(), 1);
    });
}

#[test]
fn wildcards_deliver_the_actual_topic() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let one = bus.subscribe("orders.*.new", "one", 10).await;
        let rest = bus.subscribe("orders.>", "rest", 10).await;
        for topic in ["orders.eu.new", "orders.us.new", "orders.eu.old", "orders.eu.new.x"] {
            bus.publish(topic, b"1").await.unwrap();
        }
        let topics = async |inbox: &Inbox, count| {
            let all = inbox.take(count).await;
            assert!(inbox.is_quiet().await);
            all.into_iter().map(|delivery| delivery.message.topic).collect::<Vec<_>>()
        };
        assert_eq!(topics(&one, 2).await, ["orders.eu.new", "orders.us.new"]);
        assert_eq!(topics(&rest, 4).await, ["orders.eu.new", "orders.us.new", "orders.eu.old", "orders.eu.new.x"]);
    });
}

#[test]
fn credit_is_never_exceeded() {
    run(async {
        let server = Server::start().await;
        let check = async |settings: &[(&str, &str)], topic: &str, max_unsettled: u32, limit: usize| {
            let bus = open(&server.url(), settings).await;
            let inbox = bus.subscribe(topic, "app", max_unsettled).await;
            bus.publish_numbers(topic, 0..60).await;
            let mut held = inbox.take(limit).await;
            let mut done = 0;
            while done < 60 {
                assert!(held.len() <= limit);
                assert!(server.unacked(topic, "app").await <= limit as u64, "{topic}");
                if done % 10 == 0 && done + limit < 60 {
                    assert!(inbox.is_quiet().await, "{topic}: more than {limit}");
                }
                let delivery = held.remove(0);
                inbox.ack(&delivery).await;
                done += 1;
                while done + held.len() < 60 && held.len() < limit {
                    // More is asked for in lists, so the last free places may stay empty for a while.
                    match inbox.within(Duration::from_millis(300)).await {
                        Some(delivery) => held.push(delivery),
                        None if held.is_empty() => panic!("{topic}: nothing more comes"),
                        None => break,
                    }
                }
            }
        };
        check(&[], "seven", 7, 7).await;
        check(&[], "one", 1, 1).await;
        check(&[], "forty", 40, 40).await;
        check(&[("concurrency", "single")], "single", 10, 1).await;
        check(&[("compat", "dapr")], "dapr", 10, 1).await;
    });
}

/// What waits for another attempt counts against the credit, too.
#[test]
fn what_waits_counts() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let inbox = bus.subscribe("orders", "app", 2).await;
        bus.publish_numbers("orders", 0..4).await;
        for delivery in inbox.take(2).await {
            inbox.settle(delivery.token, retry(Duration::from_millis(600))).await.unwrap();
        }
        assert!(inbox.is_quiet().await);
        assert_eq!(server.unacked("orders", "app").await, 2);
        let next: HashSet<u32> = inbox.take(2).await.iter().map(number).collect();
        assert_eq!(next.len(), 2);
    });
}

#[test]
fn retry_comes_after_the_wait_and_lets_others_pass() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish("orders", b"1").await.unwrap();
        let first = inbox.next().await;
        let since = Instant::now();
        inbox.settle(first.token, retry(Duration::from_millis(400))).await.unwrap();
        bus.publish("orders", b"2").await.unwrap();
        let other = inbox.next().await;
        assert_eq!(number(&other), 2);
        inbox.ack(&other).await;

        let again = inbox.next().await;
        assert!(since.elapsed() >= Duration::from_millis(400), "{:?}", since.elapsed());
        assert_eq!((number(&again), again.count, &again.id), (1, Some(2), &first.id));
        assert_ne!(again.token, first.token);
        assert_eq!(inbox.settle(first.token, Verdict::Ack).await, Err(SettleFailure::Stale));
        inbox.settle(again.token, retry(Duration::ZERO)).await.unwrap();
        let last = inbox.next().await;
        assert_eq!(last.count, Some(3));
        inbox.ack(&last).await;
        assert_eq!(inbox.settle(last.token, Verdict::Ack).await, Err(SettleFailure::Stale));
        assert_eq!(bus.adapter.stale_settlements(), 2);
        assert_eq!(server.unacked("orders", "app").await, 0);
        assert!(inbox.is_quiet().await);
    });
}

#[test]
fn a_paused_subscription_gets_nothing_and_settles() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish("orders", b"1").await.unwrap();
        let held = inbox.next().await;
        inbox.pause().await;
        bus.publish("orders", b"2").await.unwrap();
        inbox.ack(&held).await;
        assert!(inbox.is_quiet().await);
        assert_eq!(server.unacked("orders", "app").await, 0, "nothing was fetched");
        inbox.resume().await;
        assert_eq!(number(&inbox.next().await), 2);
    });
}

#[test]
fn stopping_leaves_what_is_unsettled() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[("ackWait", "1s")]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish_numbers("orders", 0..10).await;
        assert_eq!(inbox.take(10).await.len(), 10);
        inbox.stop().await;
        bus.publish_numbers("orders", 10..12).await;
        assert_eq!(server.unacked("orders", "app").await, 10, "nothing is fetched any more, nothing is given back");

        let inbox = bus.subscribe("orders", "app", 100).await;
        let mut all = inbox.take(12).await;
        all.sort_by_key(number);
        let counts: Vec<Option<u32>> = all.iter().map(|delivery| delivery.count).collect();
        assert_eq!(counts, [vec![Some(2); 10], vec![Some(1); 2]].concat());
        assert!(inbox.ack_all(&all).await.iter().all(Result::is_ok));
    });
}

/// A host that is gone without a word takes nothing more.
#[test]
fn what_the_host_does_not_take_goes_to_others() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[("ackWait", "1s")]).await;
        drop(bus.subscribe("orders", "app", 10).await);
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish_numbers("orders", 0..20).await;
        let mut seen = HashSet::new();
        while seen.len() < 20 {
            let delivery = inbox.next().await;
            seen.insert(number(&delivery));
            inbox.ack(&delivery).await;
        }
    });
}

#[test]
fn closing_ends_everything() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish_numbers("orders", 0..100).await;
        assert_eq!(inbox.take(100).await.len(), 100);
        bus.close().await;
        assert!(inbox.has_ended().await);
        assert_eq!(server.unacked("orders", "app").await, 100);
    });
}

/// A handler may take as long as it wants.
#[test]
fn leases_are_kept() {
    run(async {
        let server = Server::start().await;
        let settings = [("ackWait", "600ms")];
        let (busy, other) = (open(&server.url(), &settings).await, open(&server.url(), &settings).await);
        let inbox = busy.subscribe("orders", "app", 10).await;
        busy.publish_numbers("orders", 0..3).await;
        let held = inbox.take(3).await;
        let others = other.subscribe("orders", "app", 10).await;
        assert!(others.within(Duration::from_secs(2)).await.is_none(), "a lease ran out");
        assert!(inbox.ack_all(&held).await.iter().all(Result::is_ok));
        assert_eq!(server.unacked("orders", "app").await, 0);
    });
}

#[test]
fn large_messages_do_not_fill_the_memory_at_once() {
    run(async {
        let server = Server::with("max_payload: 4MB", "").await;
        let bus = open(&server.url(), &[]).await;
        let data = vec![7; 3 << 20];
        for _ in 0..40 {
            bus.publish("orders", &data).await.unwrap();
        }
        let inbox = bus.subscribe("orders", "app", 1000).await;
        let first = inbox.next().await;
        // The host takes no more for now: what was sent ahead is bounded.
        tokio::time::sleep(A_WHILE).await;
        assert!(server.unacked("orders", "app").await < 35);
        inbox.ack(&first).await;
        for _ in 1..40 {
            let delivery = inbox.next().await;
            assert_eq!(delivery.message.data.len(), data.len());
            inbox.ack(&delivery).await;
        }
    });
}

#[test]
fn an_idle_subscription_asks_little() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish("orders", b"1").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        let total = async || server.api("INFO", serde_json::Value::Null).await["api"]["total"].as_u64().unwrap();
        let before = total().await;
        assert!(inbox.within(Duration::from_secs(2)).await.is_none());
        // The question itself counts.
        let asked = total().await - before;
        assert!(asked <= 2, "{asked} requests in two seconds");
        bus.hears("ready", |status| matches!(status, Status::Ready)).await;
    });
}

#[test]
fn how_far_a_group_is_behind() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        bus.publish_numbers("orders", 0..50).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        let held = inbox.take(10).await;
        let is_behind = async |messages: u64| {
            let is_it = |status: &Status| matches!(status, Status::Lag(lag) if (lag.messages, lag.topic.as_str()) == (messages, "orders"));
            bus.hears(&format!("a lag of {messages}"), is_it).await
        };
        is_behind(40).await;
        // No message comes that could say so.
        bus.publish_numbers("orders", 50..55).await;
        is_behind(45).await;
        inbox.ack_all(&held).await;
        for _ in 0..45 {
            inbox.ack(&inbox.next().await).await;
        }
        is_behind(0).await;
    });
}
