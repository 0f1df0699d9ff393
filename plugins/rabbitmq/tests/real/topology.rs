//! What is there already, what is forbidden, and what goes away under us.

use super::harness::*;
use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};
use std::time::{Duration, Instant};
use whimbrel_sdk::{Adapter, Failure, Status};

fn table(arguments: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    table
}

/// Existing queues and exchanges with other settings: an error that names the setting, and no harm to anybody else.
#[test]
fn what_exists_with_other_settings() {
    run(async {
        let client = Broker::shared().client().await;
        let bus = shared(&[]).await;
        let sound = topic("sound");
        let inbox = bus.subscribe(&sound, "app", 10).await;
        let refused = async |settings: &[(&str, &str)], topic: &str, metadata: &[(&str, &str)], name: &str| {
            let bus = shared(settings).await;
            let since = Instant::now();
            let failure = bus.try_subscribe(topic, "app", with(10, metadata)).await.expect_err("it subscribed");
            assert!(
                matches!(&failure, Failure::Invalid(text) if text.contains(name) && text.contains(topic)),
                "{failure:?}"
            );
            assert!(since.elapsed() < Duration::from_secs(3));
        };
        let name = topic("other");
        client.exchange(&name, ExchangeKind::Fanout, true, false).await;
        client
            .queue(
                &format!("app-{name}"),
                true,
                false,
                table(&[("x-queue-type", AMQPValue::LongString("classic".into()))]),
            )
            .await;
        refused(&[("queueType", "quorum")], &name, &[], "queueType").await;
        refused(&[], &name, &[("maxLen", "5")], "maxLen").await;
        refused(&[("enableDeadLetter", "true")], &name, &[], "enableDeadLetter").await;
        refused(&[("deletedWhenUnused", "true")], &name, &[], "deletedWhenUnused").await;
        refused(&[("exchangeKind", "topic")], &name, &[], "exchangeKind").await;
        // On the same component: those who do it right go on.
        let (many, failure) = (bus.try_subscribe(&name, "app", with(10, &[("maxPriority", "5")])).await, "maxPriority");
        assert!(matches!(many.err(), Some(Failure::Invalid(text)) if text.contains(failure)));
        let kind = topic("kind");
        client.exchange(&kind, ExchangeKind::Direct, true, false).await;
        let list = vec![message(&sound, b"1"), message(&kind, b"2"), message(&sound, b"3")];
        let results = bus.adapter.publish(list, SOON).await;
        assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
        assert!(matches!(&results[1], Err(Failure::Invalid(text)) if text.contains("exchangeKind")), "{results:?}");
        assert_eq!(inbox.take(2).await.iter().map(number).collect::<Vec<_>>(), [1, 3]);
        assert!(bus.subscribe(&name, "app", 10).await.is_quiet().await);
    });
}

#[test]
fn names_the_broker_forbids() {
    run(async {
        let bus = shared(&[]).await;
        for name in ["amq.topic", "", "a\nb", &"x".repeat(256)] {
            let result = bus.publish(name, b"1").await;
            assert!(matches!(result, Err(Failure::Invalid(_))), "{name}: {result:?}");
            let result = bus.try_subscribe(name, "app", with(10, &[])).await.err();
            assert!(matches!(result, Some(Failure::Invalid(_))), "{name}: {result:?}");
        }
        // As a name it is sound, and with the group before it, it is not.
        let long = "x".repeat(254);
        bus.publish(&long, b"1").await.unwrap();
        let result = bus.try_subscribe(&long, "app", with(10, &[])).await.err();
        assert!(matches!(&result, Some(Failure::Invalid(text)) if text.contains("queueName")), "{result:?}");
        bus.try_subscribe(&long, "app", with(10, &[("queueName", "short")])).await.unwrap();
        for name in ["ünïcode ☃", "with space/slash#hash", "%2F"] {
            let name = topic(name);
            let inbox = bus.subscribe(&name, "app", 10).await;
            bus.publish(&name, b"1").await.unwrap();
            assert_eq!(inbox.next().await.message.topic, name);
        }
    });
}

#[test]
fn a_queue_that_is_deleted_comes_back() {
    run(async {
        let client = Broker::shared().client().await;
        for kind in ["classic", "quorum"] {
            let bus = shared(&[("queueType", kind)]).await;
            let (topic, other) = (topic("gone"), topic("bystander"));
            let (inbox, bystander) = (bus.subscribe(&topic, "app", 10).await, bus.subscribe(&other, "app", 10).await);
            bus.publish(&topic, b"1").await.unwrap();
            let held = inbox.next().await;
            client.delete_queue(&format!("app-{topic}")).await;
            bus.hears("data loss", |status| matches!(status, Status::DataLoss(text) if text.contains(&topic))).await;
            let queue = format!("app-{topic}");
            until("it is declared again", async || client.ready(&queue).await.is_some()).await;
            // It is bound a moment later: what is published before that is nobody's.
            let mut next = None;
            until("it is bound again", async || {
                bus.publish(&topic, b"2").await.unwrap();
                next = inbox.within(A_WHILE).await;
                next.is_some()
            })
            .await;
            let next = next.unwrap();
            assert_eq!(number(&next), 2);
            assert!(inbox.ack_all(&[held]).await[0].is_err(), "the message is gone with its queue");
            inbox.ack(&next).await;
            bus.publish(&other, b"7").await.unwrap();
            assert_eq!(number(&bystander.next().await), 7);
        }
    });
}

#[test]
fn an_exchange_that_is_deleted_comes_back() {
    run(async {
        let client = Broker::shared().client().await;
        let bus = shared(&[]).await;
        let topic = topic("exchange");
        bus.publish(&topic, b"1").await.unwrap();
        client.channel.exchange_delete(topic.as_str().into(), Default::default()).await.unwrap();
        let result = bus.publish(&topic, b"2").await;
        assert!(matches!(result, Err(Failure::Unknown(_))), "{result:?}");
        bus.publish(&topic, b"3").await.unwrap();
    });
}

/// One queue bound to the exchanges of two topics: each message says which it came through.
#[test]
fn one_queue_for_two_topics() {
    run(async {
        let bus = shared(&[]).await;
        let (one, two) = (topic("one"), topic("two"));
        let queue = format!("both.{one}");
        let a = bus.try_subscribe(&one, "app", with(10, &[("queueName", &queue)])).await.unwrap();
        let b = bus.try_subscribe(&two, "app", with(10, &[("queueName", &queue)])).await.unwrap();
        for number in 0..10u8 {
            bus.publish(if number % 2 == 0 { &one } else { &two }, &[b'0' + number]).await.unwrap();
        }
        let mut seen = 0;
        while seen < 10 {
            for inbox in [&a, &b] {
                while let Some(delivery) = inbox.within(Duration::from_millis(50)).await {
                    let expected = if number(&delivery).is_multiple_of(2) { &one } else { &two };
                    assert_eq!(&delivery.message.topic, expected);
                    inbox.ack(&delivery).await;
                    seen += 1;
                }
            }
        }
    });
}

/// The broker's own dead-letter queue, only where the resource asks for it.
#[test]
fn the_brokers_own_dead_letters() {
    run(async {
        let client = Broker::shared().client().await;
        let settings = [("enableDeadLetter", "true"), ("requeueInFailure", "false")];
        let bus = shared(&settings).await;
        let topic = topic("dead");
        let inbox = bus.subscribe(&topic, "app", 10).await;
        bus.publish_numbers(&topic, 0..2).await;
        let held = inbox.take(2).await;
        inbox.settle(held[0].token, retry(Duration::from_secs(5))).await.unwrap();
        inbox.ack(&held[1]).await;
        let dead = format!("dlq-app-{topic}");
        until("it is dead-lettered", async || client.ready(&dead).await == Some(1)).await;
        let letter = client.get(&dead).await.unwrap();
        assert_eq!(letter.delivery.data, b"0");
        assert!(inbox.is_quiet().await);
    });
}

/// One of several instances gets everything, and the next one when it is gone.
#[test]
fn a_single_active_consumer() {
    run(async {
        let (one, two) = (shared(&[]).await, shared(&[]).await);
        let topic = topic("single");
        let metadata = [("singleActiveConsumer", "true")];
        let a = one.try_subscribe(&topic, "app", with(100, &metadata)).await.unwrap();
        let b = two.try_subscribe(&topic, "app", with(100, &metadata)).await.unwrap();
        one.publish_numbers(&topic, 0..20).await;
        let all = a.take(20).await;
        assert!(b.is_quiet().await);
        assert!(a.ack_all(&all[..10]).await.iter().all(Result::is_ok));
        a.stop().await;
        assert!(b.take(10).await.iter().map(number).eq(10..20));
    });
}
