//! Publishing: what arrives, what is refused, and what waits.

use super::harness::*;
use std::time::{Duration, Instant};
use whimbrel_sdk::{Adapter, Failure, Message};

#[test]
fn bytes_arrive_as_they_were_sent() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        let all: Vec<u8> = (0..=255).collect();
        let large = vec![0xC3; 1 << 20];
        for data in [b"hello".as_slice(), b"", b"\0", b"\r\n$-1\r\n", &all, &large] {
            bus.publish("orders", data).await.unwrap();
            let delivery = inbox.next().await;
            assert!(delivery.message.data == data, "{} bytes", data.len());
            assert_eq!((delivery.message.topic.as_str(), delivery.count), ("orders", Some(1)));
            inbox.ack(&delivery).await;
        }
        assert_eq!(server.pending("orders", "app"), 0);
    });
}

#[test]
fn metadata_comes_back() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        let long = "x".repeat(4096);
        let pairs = [("a", "b"), ("empty", ""), ("quote\"", "\n\\"), ("ü", "日本"), ("long", long.as_str())];
        let metadata: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let sent = Message { metadata: metadata.clone(), ..message("orders", b"x") };
        assert_eq!(bus.adapter.publish(vec![sent], SOON).await, [Ok(())]);
        assert_eq!(inbox.next().await.message.metadata, metadata);
    });
}

/// Dapr's component writes these fields, and reads them.
#[test]
fn entries_are_interchangeable_with_daprs() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        let id: String = server.ask(r#"XADD orders * data {"id":1} metadata {"traceid":"7"}"#);
        let delivery = inbox.next().await;
        assert_eq!(delivery.id, id);
        assert_eq!(delivery.message.data, br#"{"id":1}"#);
        assert_eq!(delivery.message.metadata, [("traceid".to_owned(), "7".to_owned())]);

        bus.publish("plain", b"x").await.unwrap();
        let entries: Vec<(String, Vec<String>)> = server.ask("XRANGE plain - +");
        assert_eq!(entries[0].1, ["data", "x"]);
        let sent = Message { metadata: vec![("k".into(), "v".into())], ..message("rich", b"x") };
        assert_eq!(bus.adapter.publish(vec![sent], SOON).await, [Ok(())]);
        let entries: Vec<(String, Vec<String>)> = server.ask("XRANGE rich - +");
        assert_eq!(entries[0].1, ["data", "x", "metadata", r#"{"k":"v"}"#]);
    });
}

#[test]
fn a_list_has_a_result_for_each() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        server.ask::<()>("SET text x");
        let list = ["good", "text", "", "other"].map(|topic| message(topic, b"x")).into();
        let results = bus.adapter.publish(list, SOON).await;
        assert!(results[0].is_ok() && results[3].is_ok(), "{results:?}");
        let Err(Failure::Permanent(text)) = &results[1] else { panic!("{results:?}") };
        assert!(text.contains("\"text\"") && text.contains("delete"), "{text}");
        assert!(matches!(results[2], Err(Failure::Invalid(_))), "{results:?}");
        assert_eq!(bus.adapter.publish(Vec::new(), SOON).await, []);
    });
}

#[test]
fn a_full_server_throttles() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        server.ask::<()>("CONFIG SET maxmemory 1");
        let result = bus.publish("orders", b"x").await;
        assert!(matches!(result, Err(Failure::Throttled(_))), "{result:?}");
        server.ask::<()>("CONFIG SET maxmemory 0");
        bus.publish("orders", b"x").await.unwrap();
    });
}

#[test]
fn streams_are_kept_short() {
    run(async {
        let server = Server::start(&[]).await;
        let by_length = open(&server.host(), "i", &[("maxLenApprox", "100")]).await;
        by_length.publish_numbers("length", 0..2000).await;
        let length: u64 = server.ask("XLEN length");
        assert!((100..=300).contains(&length), "{length}");

        for number in 1..=500 {
            server.ask::<String>(&format!("XADD age {number}-0 data x"));
        }
        let by_age = open(&server.host(), "i", &[("streamTTL", "1h")]).await;
        by_age.publish("age", b"x").await.unwrap();
        let length: u64 = server.ask("XLEN age");
        assert!((1..=101).contains(&length), "{length}");
    });
}

#[test]
fn a_missing_replica_is_told() {
    run(async {
        let server = Server::start(&[]).await;
        let settings = [("publishWaitReplicas", "1"), ("readTimeout", "300ms")];
        let bus = open(&server.host(), "i", &settings).await;
        let results = bus.adapter.publish(vec![message("orders", b"a"), message("orders", b"b")], SOON).await;
        assert!(results.iter().all(|result| matches!(result, Err(Failure::Unknown(_)))), "{results:?}");

        let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", server.port)]).await;
        until("the replica follows", async || replica.ask::<u64>("XLEN orders") == 2).await;
        let give_up = Instant::now() + SOON;
        while bus.publish("orders", b"c").await.is_err() {
            assert!(Instant::now() < give_up, "the replica does not count");
        }
    });
}

#[test]
fn while_the_server_is_away_publishes_wait_until_their_deadline() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        bus.publish("orders", b"before").await.unwrap();
        server.kill();
        bus.hears("it is away", |status| matches!(status, whimbrel_sdk::Status::Connecting(why) if !why.is_empty()))
            .await;

        let since = Instant::now();
        let result = bus.adapter.publish(vec![message("orders", b"late")], Duration::from_millis(300)).await;
        assert!(matches!(result[..], [Err(Failure::Transient(_))]), "{result:?}");
        assert!((300..3000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());

        let (waited, ()) = tokio::join!(bus.publish("orders", b"patient"), server.restart());
        waited.unwrap();
        bus.hears("it is back", |status| matches!(status, whimbrel_sdk::Status::Ready)).await;
        let entries: Vec<(String, Vec<String>)> = server.ask("XRANGE orders - +");
        let data: Vec<&str> = entries.iter().map(|(_, fields)| fields[1].as_str()).collect();
        assert_eq!(data, ["before", "patient"]);
    });
}

#[test]
fn the_queue_is_bounded() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[]).await;
        server.kill();
        bus.hears("it is away", |status| matches!(status, whimbrel_sdk::Status::Connecting(why) if !why.is_empty()))
            .await;
        let data = vec![0; 1 << 20];
        let publishes =
            (0..60).map(|_| bus.adapter.publish(vec![message("orders", &data)], Duration::from_millis(500)));
        let results = futures::future::join_all(publishes).await.concat();
        let full = |result: &&Result<(), Failure>| matches!(result, Err(Failure::Transient(text)) if text.contains("too much"));
        assert_eq!(results.iter().filter(full).count(), 29, "{results:?}");
        assert!(results.iter().all(|result| matches!(result, Err(Failure::Transient(_)))), "{results:?}");
    });
}
