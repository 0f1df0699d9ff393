//! What is delivered, how often, in which order, and how it is settled.

use super::harness::*;
use super::oracle;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use whimbrel_sdk::{SettleFailure, StartPosition, Status, Verdict};

/// A wait as the host gives it.
pub(crate) fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap()
}

#[test]
fn everything_comes_once_and_a_key_keeps_its_order() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 50).await;
        for begin in (0..1000).step_by(100) {
            bus.publish_keyed("orders", begin..begin + 100, 7).await;
        }
        let mut last: BTreeMap<Option<String>, u32> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        while seen.len() < 1000 {
            for delivery in inbox.list().await {
                let number = number(&delivery);
                assert!(seen.insert(number), "{number} came twice");
                assert_eq!(delivery.count, None, "Kafka does not count");
                assert!(last.insert(delivery.message.key.clone(), number).is_none_or(|last| last < number));
                inbox.ack(&delivery).await;
            }
        }
        assert_eq!(last.len(), 7);
        assert!(inbox.is_quiet().await);
        bus.close().await;
        assert_eq!(oracle::lag(&server, "orders", "app"), 0);
    });
}

#[test]
fn credit_is_kept_to_the_message() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 8).await;
        bus.publish_numbers("orders", 0..60).await;
        let mut held = inbox.take(8).await;
        assert!(inbox.is_quiet().await, "more than the credit");
        for delivery in held.drain(..3) {
            inbox.ack(&delivery).await;
        }
        held.extend(inbox.take(3).await);
        assert!(inbox.is_quiet().await);
        // What waits for another attempt keeps its place.
        for delivery in held.drain(..) {
            inbox.settle(delivery.token, Verdict::Retry(nanos(Duration::from_secs(3600)))).await.unwrap();
        }
        assert!(inbox.is_quiet().await);
    });
}

#[test]
fn a_retry_waits_its_time_and_others_pass() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 5).await;
        bus.publish_numbers("orders", 0..30).await;
        let failing = inbox.next().await;
        let wait = Duration::from_millis(1200);
        let mut count = 1;
        let (mut since, mut passed) = (Instant::now(), 0);
        inbox.settle(failing.token, Verdict::Retry(nanos(wait))).await.unwrap();
        while count < 3 {
            let delivery = inbox.next().await;
            if number(&delivery) != number(&failing) {
                passed += 1;
                inbox.ack(&delivery).await;
                continue;
            }
            assert!(since.elapsed() >= wait && since.elapsed() < wait * 2, "{:?}", since.elapsed());
            count += 1;
            assert_eq!((delivery.count, delivery.id.as_str()), (Some(count), failing.id.as_str()));
            assert_eq!(passed, 29, "the others do not wait for it");
            assert_eq!(inbox.settle(failing.token, Verdict::Ack).await, Err(SettleFailure::Stale));
            since = Instant::now();
            let verdict = if count < 3 { Verdict::Retry(nanos(wait)) } else { Verdict::Ack };
            inbox.settle(delivery.token, verdict).await.unwrap();
        }
        assert!(inbox.is_quiet().await);
        assert_eq!(bus.adapter.stale_settlements(), 2);
        bus.close().await;
        assert_eq!(oracle::lag(&server, "orders", "app"), 0);
    });
}

#[test]
fn a_token_is_good_once() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 5).await;
        bus.publish_numbers("orders", 0..1).await;
        let delivery = inbox.next().await;
        inbox.ack(&delivery).await;
        for token in [delivery.token, 0, u64::MAX, delivery.token + (1 << 24)] {
            assert_eq!(inbox.settle(token, Verdict::Ack).await, Err(SettleFailure::Stale));
        }
    });
}

#[test]
fn a_new_group_begins_where_it_is_told_and_an_old_one_where_it_was() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[("initialOffset", "newest")]).await;
        bus.publish_numbers("orders", 0..10).await;
        let latest = bus.subscribe("orders", "latest", 100).await;
        let earliest = bus.subscribe_from("orders", "earliest", 100, Some(StartPosition::Earliest)).await;
        bus.publish_numbers("orders", 10..20).await;
        let numbers = |taken: Vec<whimbrel_sdk::Delivery>| taken.iter().map(number).collect::<BTreeSet<u32>>();
        assert_eq!(numbers(latest.take(10).await), (10..20).collect());
        let all = earliest.take(20).await;
        assert_eq!(numbers(all.clone()), (0..20).collect());
        assert!(latest.is_quiet().await);
        earliest.ack_all(&all[..]).await;
        // The one of them that has done nothing yet goes on from where it began, not from the new end.
        latest.stop().await;
        earliest.stop().await;
        bus.publish_numbers("orders", 20..25).await;
        let latest = bus.subscribe("orders", "latest", 100).await;
        assert_eq!(numbers(latest.take(15).await), (10..25).collect());
        let earliest = bus.subscribe("orders", "earliest", 100).await;
        assert_eq!(numbers(earliest.take(5).await), (20..25).collect());
        assert!(latest.is_quiet().await && earliest.is_quiet().await);
    });
}

/// What was acknowledged beyond a message that was not does not come again, although Kafka remembers one offset only.
#[test]
fn the_next_subscription_gets_what_is_unsettled_and_nothing_else() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 200).await;
        bus.publish_numbers("orders", 0..200).await;
        let (kept, acked): (Vec<_>, Vec<_>) =
            inbox.take(200).await.into_iter().partition(|one| number(one).is_multiple_of(3));
        assert!(inbox.ack_all(&acked).await.iter().all(Result::is_ok));
        let since = Instant::now();
        inbox.stop().await;
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        assert_eq!(inbox.ack_unless_stopped(&kept[0]).await, None, "settling is over");
        let inbox = bus.subscribe("orders", "app", 200).await;
        let again: BTreeSet<u32> = inbox.take(kept.len()).await.iter().map(number).collect();
        assert_eq!(again, kept.iter().map(number).collect());
        assert!(inbox.is_quiet().await);
    });
}

#[test]
fn a_paused_subscription_gets_nothing_and_then_everything() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish_numbers("orders", 0..5).await;
        inbox.take(5).await;
        inbox.pause().await;
        bus.publish_numbers("orders", 5..10).await;
        assert!(inbox.within(Duration::from_secs(1)).await.is_none());
        inbox.resume().await;
        let since = Instant::now();
        assert_eq!(inbox.take(5).await.len(), 5);
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    });
}

#[test]
fn a_topic_that_comes_later_is_read_from_its_beginning() {
    run(async {
        let server = Server::start(&["--no-topics"]).await;
        let bus = Bus::open(&server.host(), "i", &[("initialOffset", "newest")]).await;
        let inbox = bus.subscribe("later", "app", 100).await;
        assert!(inbox.is_quiet().await);
        server.prepare("later").await;
        bus.publish_numbers("later", 0..20).await;
        let numbers: BTreeSet<u32> = inbox.take(20).await.iter().map(number).collect();
        assert_eq!(numbers, (0..20).collect());
    });
}

#[test]
fn partitions_that_come_later_are_read_from_their_beginning() {
    run(async {
        let server = Server::start(&["--partitions", "1"]).await;
        let settings = [("initialOffset", "newest"), ("clientConnectionTopicMetadataRefreshInterval", "1s")];
        let bus = Bus::open(&server.host(), "i", &settings).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        oracle::grow(&server, "orders", 6);
        oracle::produce(&server, "orders", 60, "none");
        let mut partitions = BTreeSet::new();
        for delivery in inbox.take(60).await {
            partitions.insert(metadata(&delivery, "__partition").to_owned());
            inbox.ack(&delivery).await;
        }
        assert_eq!(partitions.len(), 6, "{partitions:?}");
    });
}

#[test]
fn every_compression_is_read() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            oracle::produce(&server, codec, 300, codec);
            let inbox = bus.subscribe(codec, "app", 1000).await;
            let numbers: BTreeSet<u32> = inbox.take(300).await.iter().map(number).collect();
            assert_eq!(numbers, (0..300).collect(), "{codec}");
        }
    });
}

#[test]
fn only_what_its_transaction_committed_is_delivered() {
    run(async {
        let server = Server::start(&["--partitions", "1"]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        // Ten that commit, ten that abort, and so on.
        oracle::transactions(&server, "orders", 6);
        let taken = inbox.take(30).await;
        let numbers: BTreeSet<u32> = taken.iter().map(number).collect();
        assert_eq!(numbers, (0..60).filter(|number| number / 10 % 2 == 0).collect());
        assert!(inbox.is_quiet().await);
        inbox.ack_all(&taken).await;
        bus.close().await;
        assert_eq!(oracle::lag(&server, "orders", "app"), 0, "the markers at the end are passed over, too");
    });
}

#[test]
fn what_the_broker_has_deleted_is_told_and_the_rest_is_read() {
    run(async {
        let server = Server::start(&["--partitions", "1"]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish_numbers("orders", 0..10).await;
        let first = inbox.take(10).await;
        inbox.ack_all(&first).await;
        inbox.stop().await;
        bus.publish_numbers("orders", 10..40).await;
        oracle::delete_before(&server, "orders", 0, 30);
        let inbox = bus.subscribe("orders", "app", 100).await;
        let numbers: BTreeSet<u32> = inbox.take(10).await.iter().map(number).collect();
        assert_eq!(numbers, (30..40).collect());
        let told = bus.hears("data loss", |status| matches!(status, Status::DataLoss(_))).await;
        let Status::DataLoss(text) = told else { panic!() };
        assert!(text.contains("20 messages") && text.contains("orders"), "{text}");
    });
}

/// Also once so much was fetched that nothing is fetched any more.
#[test]
fn the_lag_is_told() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        let is_behind = async |messages: u64| {
            bus.hears(&format!("a lag of {messages}"), |status| {
                matches!(status, Status::Lag(lag) if lag.topic == real("orders") && lag.group == real("app") && lag.messages == messages)
            })
            .await
        };
        bus.publish_numbers("orders", 0..100).await;
        inbox.take(10).await;
        is_behind(90).await;
        let large = vec![b'x'; 512 << 10];
        for _ in 0..40 {
            bus.publish("orders", &large).await.unwrap();
        }
        is_behind(130).await;
        bus.publish_numbers("orders", 100..105).await;
        is_behind(135).await;
    });
}
