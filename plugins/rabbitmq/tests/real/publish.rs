//! Publishing, while nothing is broken, and what the broker refuses.

use super::harness::*;
use std::time::{Duration, Instant};
use whimbrel_sdk::{Adapter, Failure, Message, Status};

#[test]
fn bytes_and_metadata_come_back() {
    run(async {
        let bus = shared(&[]).await;
        let topic = topic("bytes");
        let inbox = bus.subscribe(&topic, "app", 10).await;
        let all: Vec<u8> = (0..=255).collect();
        let around = |size: usize| vec![0xA5; size];
        let (frame, large) = (131_072 - 8, 3 << 20);
        let bodies = [
            vec![],
            vec![0],
            all,
            around(frame - 1),
            around(frame),
            around(frame + 1),
            around(2 * frame),
            around(large),
            b"\xff\xfe not utf-8 \x00".to_vec(),
        ];
        let long = "v".repeat(4096);
        let metadata = [
            ("plain", "1"),
            ("empty", ""),
            ("ü", "ö\u{1F980}"),
            ("long", &long),
            ("contentType", "text/xml"),
            ("messageID", "m-1"),
            ("correlationID", "c"),
            ("type", "t"),
            ("priority", "3"),
            ("UPPER", "2"),
            ("", "unnamed"),
        ];
        for body in bodies {
            let message = Message { metadata: pairs(&metadata), ..message(&topic, &body) };
            bus.send(message).await.unwrap();
            let delivery = inbox.next().await;
            assert_eq!(delivery.message.data, body);
            assert_eq!(delivery.id, "m-1");
            let mut came = delivery.message.metadata.clone();
            let mut sent = pairs(&metadata);
            came.sort();
            sent.sort();
            assert_eq!(came, sent);
            inbox.ack(&delivery).await;
        }
    });
}

#[test]
fn many_at_once_are_confirmed_each() {
    run(async {
        let client = Broker::shared().client().await;
        let bus = shared(&[]).await;
        let topic = topic("many");
        let queue = client.listen(&topic).await;
        let since = Instant::now();
        let calls = (0..200).map(|_| bus.adapter.publish(vec![message(&topic, b"x"); 10], SOON));
        let results = futures::future::join_all(calls).await.concat();
        assert!(results.iter().all(Result::is_ok));
        // Pipelined, and not one after the other, each with a disk write.
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        assert_eq!(client.drain(&queue).await.len(), 2000);
    });
}

/// Published before the first subscription ever was: a success and a warning, or, where that is wanted, an error.
#[test]
fn without_a_queue() {
    run(async {
        let bus = shared(&[]).await;
        let name = topic("nobody");
        bus.publish(&name, b"1").await.unwrap();
        bus.hears("data loss", |status| matches!(status, Status::DataLoss(text) if text.contains(&name))).await;
        bus.publish(&name, b"2").await.unwrap();

        let strict = shared(&[("allowUnroutable", "false")]).await;
        let mut messages: Vec<Message> = (0..3).map(|number| message(&name, &[number])).collect();
        messages[1].metadata = pairs(&[("messageID", "mine")]);
        let results = strict.adapter.publish(messages, SOON).await;
        let refused =
            |result: &Result<(), Failure>| matches!(result, Err(Failure::Transient(text)) if text.contains("no-queue"));
        assert!(results.iter().all(refused), "{results:?}");
        // The others of a call are not to blame.
        let other = topic("somebody");
        let inbox = strict.subscribe(&other, "app", 10).await;
        let results = strict
            .adapter
            .publish(vec![message(&other, b"1"), message(&name, b"1"), message(&other, b"2")], SOON)
            .await;
        assert!(results[0].is_ok() && refused(&results[1]) && results[2].is_ok(), "{results:?}");
        assert_eq!(inbox.take(2).await.len(), 2);
        let inbox = strict.subscribe(&name, "app", 10).await;
        strict.publish(&name, b"3").await.unwrap();
        assert_eq!(number(&inbox.next().await), 3);
    });
}

#[test]
fn a_full_queue_is_throttled_and_never_a_success() {
    run(async {
        let bus = shared(&[("maxLen", "5"), ("overflow", "reject-publish")]).await;
        let topic = topic("full");
        let inbox = bus.subscribe(&topic, "app", 1).await;
        let results = bus.adapter.publish(vec![message(&topic, b"1"); 40], SOON).await;
        let stored = results.iter().filter(|result| result.is_ok()).count();
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(Failure::Throttled(_)))), "{results:?}");
        assert!((5..40).contains(&stored), "{stored}");
        for _ in 0..stored {
            inbox.ack(&inbox.next().await).await;
        }
        assert!(inbox.is_quiet().await, "a refused message was stored");
        bus.publish(&topic, b"1").await.unwrap();
    });
}

#[test]
fn the_broker_drops_what_has_expired() {
    run(async {
        let client = Broker::shared().client().await;
        for kind in ["classic", "quorum"] {
            let bus = shared(&[("queueType", kind)]).await;
            let topic = topic("ttl");
            let inbox = bus.subscribe(&topic, "app", 1).await;
            bus.publish(&topic, b"0").await.unwrap();
            let first = inbox.next().await;
            for (number, ttl) in [("1", "1"), ("2", "3600")] {
                let metadata = pairs(&[("ttlInSeconds", ttl)]);
                bus.send(Message { metadata, ..message(&topic, number.as_bytes()) }).await.unwrap();
            }
            let queue = format!("app-{topic}");
            until("it has expired", async || client.ready(&queue).await == Some(1)).await;
            inbox.ack(&first).await;
            let next = inbox.next().await;
            assert_eq!((number(&next), next.message.metadata), (2, vec![]));
        }
    });
}

#[test]
fn priorities_and_routing_keys() {
    run(async {
        let bus = shared(&[("exchangeKind", "topic")]).await;
        let topic = topic("keys");
        let inbox =
            bus.try_subscribe(&topic, "app", with(1, &[("routingKey", "a.*,b"), ("maxPriority", "5")])).await.unwrap();
        let publish = async |number: &str, key: &str, priority: &str| {
            let metadata = pairs(&[("routingKey", key), ("priority", priority)]);
            bus.send(Message { metadata, ..message(&topic, number.as_bytes()) }).await.unwrap();
        };
        publish("0", "a.x", "0").await;
        let first = inbox.next().await;
        for (number, key, priority) in [("1", "b", "0"), ("2", "c", "0"), ("3", "a.y", "5"), ("4", "a", "0")] {
            publish(number, key, priority).await;
        }
        inbox.ack(&first).await;
        let next = inbox.next().await;
        inbox.ack(&next).await;
        assert_eq!([number(&next), number(&inbox.next().await)], [3, 1]);
    });
}

/// A message over the limit fails alone: those beside it are sound, and so is the connection.
#[test]
fn a_message_that_is_too_large_fails_alone() {
    run(async {
        let broker = Broker::start(&["--max-message-bytes", "1000000"]);
        let client = broker.client().await;
        let bus = open(&broker.url(), &[]).await;
        let topic = topic("size");
        let queue = client.listen(&topic).await;
        let list = vec![message(&topic, b"1"), message(&topic, &vec![0; 1_000_001]), message(&topic, b"2")];
        let mut results = bus.adapter.publish(list.clone(), SOON).await;
        let large = results.remove(1);
        assert!(matches!(&large, Err(Failure::Invalid(text)) if text.contains("1000000")), "{large:?}");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        // From now on it is known.
        let since = Instant::now();
        let results = bus.adapter.publish(list, SOON).await;
        assert!(
            results[0].is_ok() && matches!(results[1], Err(Failure::Invalid(_))) && results[2].is_ok(),
            "{results:?}"
        );
        assert!(since.elapsed() < Duration::from_secs(2));
        bus.publish(&topic, &vec![0; 1_000_000]).await.unwrap();
        assert_eq!(client.drain(&queue).await.len(), 5);
    });
}

/// A broker that is short of memory takes nothing: publishers are told so, and go on when it does.
#[test]
fn a_broker_that_blocks_publishers() {
    run(async {
        let broker = Broker::start(&[]);
        let bus = open(&broker.url(), &[]).await;
        let topic = topic("blocked");
        let inbox = bus.subscribe(&topic, "app", 100).await;
        bus.publish_numbers(&topic, 0..3).await;
        broker.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
        let deadline = Duration::from_millis(500);
        let mut told = false;
        let give_up = Instant::now() + SOON;
        while !told && Instant::now() < give_up {
            let since = Instant::now();
            let result = bus.adapter.publish(vec![message(&topic, b"9")], deadline).await.remove(0);
            assert!(since.elapsed() < deadline * 4, "{:?}", since.elapsed());
            told = matches!(&result, Err(Failure::Throttled((text, _))) if text.contains("takes no messages"));
            assert!(told || matches!(result, Ok(()) | Err(Failure::Unknown(_))), "{result:?}");
        }
        assert!(told, "never told");
        // Consuming goes on.
        let held = inbox.take(3).await;
        assert!(inbox.ack_all(&held).await.iter().all(Result::is_ok));
        let waiting = bus.publish(&topic, b"8");
        let freeing = async { broker.control(&["set_vm_memory_high_watermark", "absolute", "2GB"]) };
        let (result, _) = tokio::join!(waiting, freeing);
        result.unwrap();
        loop {
            if number(&inbox.next().await) == 8 {
                break;
            }
        }
    });
}

#[test]
fn a_deadline_is_kept() {
    run(async {
        let proxy = Proxy::start(Broker::shared().port).await;
        let bus = open(&url(proxy.port), &[]).await;
        let topic = topic("deadline");
        let inbox = bus.subscribe(&topic, "app", 10).await;
        proxy.mute(true);
        let since = Instant::now();
        let results = bus.adapter.publish(vec![message(&topic, b"1"); 3], Duration::from_millis(300)).await;
        assert!(
            results.iter().all(|result| matches!(result, Err(Failure::Unknown(_) | Failure::Transient(_)))),
            "{results:?}"
        );
        assert!(
            (Duration::from_millis(300)..Duration::from_secs(3)).contains(&since.elapsed()),
            "{:?}",
            since.elapsed()
        );
        drop(inbox);
    });
}
