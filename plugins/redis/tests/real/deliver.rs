//! Delivering and settling, while nothing is broken.

use super::harness::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use whimbrel_sdk::{SettleFailure, Status, Verdict};

fn retry(wait: Duration) -> Verdict {
    Verdict::Retry(u64::try_from(wait.as_nanos()).unwrap())
}

#[test]
fn instances_of_one_group_share() {
    run(async {
        let server = Server::start(&[]).await;
        let one = open(&server.host(), "one", &[]).await;
        let two = open(&server.host(), "two", &[]).await;
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
        assert_eq!(server.pending("orders", "app"), 0);
    });
}

#[test]
fn each_group_gets_all_and_from_the_beginning() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        bus.publish_numbers("orders", 0..10).await;
        let inboxes = [bus.subscribe("orders", "one", 100).await, bus.subscribe("orders", "two", 100).await];
        bus.publish_numbers("orders", 10..20).await;
        for inbox in inboxes {
            let all = inbox.take(20).await;
            assert!(all.iter().map(number).eq(0..20));
            assert!(inbox.ack_all(&all).await.iter().all(Result::is_ok));
        }
    });
}

#[test]
fn two_subscriptions_of_one_group_to_one_topic_share() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let (a, b) = (bus.subscribe("orders", "app", 5).await, bus.subscribe("orders", "app", 5).await);
        bus.publish_numbers("orders", 0..10).await;
        let (a, b) = (a.take(5).await, b.take(5).await);
        let all: HashSet<u32> = a.iter().chain(&b).map(number).collect();
        assert_eq!(all.len(), 10);
        assert_eq!(server.pending("orders", "app"), 10);
    });
}

#[test]
fn many_topics_need_two_connections() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let mut inboxes = Vec::new();
        for topic in 0..50 {
            inboxes.push(bus.subscribe(&format!("t{topic}"), "app", 10).await);
        }
        for round in 0..3 {
            for (topic, inbox) in inboxes.iter().enumerate() {
                bus.publish(&format!("t{topic}"), format!("{round}").as_bytes()).await.unwrap();
                let delivery = inbox.next().await;
                assert_eq!((number(&delivery), &delivery.message.topic), (round, &format!("t{topic}")));
                inbox.ack(&delivery).await;
            }
        }
        let clients: String = server.ask("CLIENT LIST");
        assert_eq!(clients.matches("name=whimbrel-").count(), 2, "{clients}");
    });
}

#[test]
fn a_new_topic_does_not_wait_for_the_read_that_goes_on() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[("readTimeout", "30s")]).await;
        let first = bus.subscribe("first", "app", 10).await;
        bus.publish("first", b"1").await.unwrap();
        first.ack(&first.next().await).await;
        let since = Instant::now();
        let second = bus.subscribe("second", "app", 10).await;
        bus.publish("second", b"2").await.unwrap();
        second.next().await;
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    });
}

#[test]
fn credit_is_never_exceeded() {
    run(async {
        let server = Server::start(&[]).await;
        let check = async |settings: &[(&str, &str)], topic: &str, max_unsettled: u32, limit: usize| {
            let bus = open(&server.host(), topic, settings).await;
            let inbox = bus.subscribe(topic, "app", max_unsettled).await;
            bus.publish_numbers(topic, 0..60).await;
            let mut held = inbox.take(limit).await;
            let mut done = 0;
            while done < 60 {
                assert!(held.len() <= limit);
                assert!(server.pending(topic, "app") <= limit as u64, "{topic}");
                if done % 10 == 0 && done + limit < 60 {
                    assert!(inbox.is_quiet().await, "{topic}: more than {limit}");
                }
                let delivery = held.remove(0);
                inbox.ack(&delivery).await;
                done += 1;
                if done + held.len() < 60 {
                    held.push(inbox.next().await);
                }
            }
        };
        check(&[], "seven", 7, 7).await;
        check(&[], "one", 1, 1).await;
        check(&[("queueDepth", "3")], "depth", 10, 10).await;
        check(&[("concurrency", "2")], "concurrency", 10, 2).await;
    });
}

/// What waits for another attempt counts against the credit, too.
#[test]
fn what_waits_counts() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 2).await;
        bus.publish_numbers("orders", 0..4).await;
        for delivery in inbox.take(2).await {
            inbox.settle(delivery.token, retry(Duration::from_millis(600))).await.unwrap();
        }
        assert!(inbox.is_quiet().await);
        assert_eq!(server.pending("orders", "app"), 2);
        let again: HashSet<u32> = inbox.take(2).await.iter().map(number).collect();
        assert_eq!(again, HashSet::from([0, 1]));
    });
}

#[test]
fn retry_comes_after_the_wait_and_lets_others_pass() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
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
        assert_eq!(server.pending("orders", "app"), 0);
        assert!(inbox.is_quiet().await);
    });
}

#[test]
fn a_paused_subscription_gets_nothing_and_settles() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[("readTimeout", "30s")]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish("orders", b"1").await.unwrap();
        let held = inbox.next().await;
        let pausing = tokio::time::timeout(Duration::from_secs(5), inbox.pause());
        pausing.await.expect("pause waits for the read to end by itself");
        bus.publish("orders", b"2").await.unwrap();
        inbox.ack(&held).await;
        assert!(inbox.is_quiet().await);
        inbox.resume().await;
        assert_eq!(number(&inbox.next().await), 2);
    });
}

#[test]
fn stopping_leaves_what_is_unsettled() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish_numbers("orders", 0..10).await;
        assert_eq!(inbox.take(10).await.len(), 10);
        inbox.stop().await;
        bus.publish_numbers("orders", 10..12).await;
        assert_eq!(server.pending("orders", "app"), 10, "nothing is fetched any more, nothing is given back");

        // The same instance takes them up again at once.
        let inbox = bus.subscribe("orders", "app", 100).await;
        let all = inbox.take(12).await;
        let counts: Vec<Option<u32>> = all.iter().map(|delivery| delivery.count).collect();
        assert_eq!(counts, [vec![Some(2); 10], vec![Some(1); 2]].concat());
        assert!(inbox.ack_all(&all).await.iter().all(Result::is_ok));
    });
}

/// What the host had and did not settle need not wait for its lease to run out either, which is a minute here; what it
/// wanted again later comes later.
#[test]
fn stopping_frees_what_is_unsettled() {
    run(async {
        let server = Server::start(&[]).await;
        let one = open(&server.host(), "one", &[]).await;
        let two = open(&server.host(), "two", &[("redeliverInterval", "100ms")]).await;
        let inbox = one.subscribe("orders", "app", 10).await;
        one.publish_numbers("orders", 0..3).await;
        let all = inbox.take(3).await;
        let (asked, wait) = (Instant::now(), Duration::from_secs(3));
        inbox.settle(all[2].token, retry(wait)).await.unwrap();
        inbox.stop().await;
        assert_eq!(server.pending("orders", "app"), 3, "nothing is acknowledged");
        let other = two.subscribe("orders", "app", 10).await;
        let mut numbers: Vec<_> = other.take(2).await.iter().map(number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1]);
        assert!(asked.elapsed() < wait, "these come at once");
        assert_eq!(number(&other.next().await), 2);
        // Redis counts idle time in milliseconds.
        assert!(asked.elapsed() >= wait - Duration::from_millis(10), "this was wanted later: {:?}", asked.elapsed());
    });
}

/// What was fetched and never offered to the host need not wait for its lease to run out.
#[test]
fn stopping_frees_what_was_never_offered() {
    run(async {
        let server = Server::start(&[]).await;
        let one = open(&server.host(), "one", &[]).await;
        let two = open(&server.host(), "two", &[("redeliverInterval", "100ms")]).await;
        let unread = one.subscribe("orders", "app", 100).await;
        // The first list waits in the channel, the rest in the outbox.
        one.publish("orders", b"0").await.unwrap();
        until("the first is fetched", async || server.pending("orders", "app") == 1).await;
        one.publish("orders", b"1").await.unwrap();
        until("the second is fetched", async || server.pending("orders", "app") == 2).await;
        one.publish_numbers("orders", 2..20).await;
        until("all is fetched", async || server.pending("orders", "app") == 20).await;
        unread.stop().await;
        let other = two.subscribe("orders", "app", 100).await;
        assert!(other.take(17).await.iter().all(|delivery| delivery.count == Some(2)));
    });
}

#[test]
fn consumers_go_when_nothing_is_pending_for_them() {
    run(async {
        let server = Server::start(&[]).await;
        let consumers = || {
            let info: redis::streams::StreamInfoConsumersReply = server.ask("XINFO CONSUMERS orders app");
            info.consumers.into_iter().map(|consumer| consumer.name).collect::<Vec<_>>()
        };
        let busy = open(&server.host(), "busy", &[]).await;
        let inbox = busy.subscribe("orders", "app", 1).await;
        busy.publish("orders", b"1").await.unwrap();
        inbox.next().await;
        let idle = open(&server.host(), "idle", &[]).await;
        let other = idle.subscribe("orders", "app", 10).await;
        idle.publish("orders", b"2").await.unwrap();
        other.ack(&other.next().await).await;
        assert_eq!(consumers(), ["app:busy", "app:idle"]);
        idle.close().await;
        assert_eq!(consumers(), ["app:busy"]);
        busy.close().await;
        assert_eq!(consumers(), ["app:busy"]);
        assert!(other.has_ended().await);
    });
}

#[test]
fn closing_ends_everything() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish_numbers("orders", 0..100).await;
        assert_eq!(inbox.take(100).await.len(), 100);
        bus.close().await;
        assert!(inbox.has_ended().await);
        assert_eq!(server.pending("orders", "app"), 100);
        until("the connections are gone", async || !server.ask::<String>("CLIENT LIST").contains("name=whimbrel"))
            .await;
    });
}

#[test]
fn large_messages_do_not_fill_the_memory_at_once() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let data = vec![7; 3 << 20];
        for _ in 0..30 {
            bus.publish("orders", &data).await.unwrap();
        }
        let inbox = bus.subscribe("orders", "app", 1000).await;
        for _ in 0..30 {
            let delivery = inbox.next().await;
            assert_eq!(delivery.message.data.len(), data.len());
            inbox.ack(&delivery).await;
        }
    });
}

#[test]
fn an_idle_subscription_asks_little() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish("orders", b"1").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        let processed = || {
            let info: String = server.ask("INFO stats");
            let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap().to_owned();
            line.parse::<u64>().unwrap()
        };
        let before = processed();
        assert!(inbox.within(Duration::from_secs(2)).await.is_none());
        let asked = processed() - before;
        assert!(asked < 15, "{asked} commands in two seconds");
        bus.hears("ready", |status| matches!(status, Status::Ready)).await;
    });
}
