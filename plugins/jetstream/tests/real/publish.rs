//! Publishing: what arrives, what is refused, and what waits.

use super::harness::*;
use std::time::{Duration, Instant};
use whimbrel_sdk::{Adapter, Failure, Message};

#[test]
fn bytes_arrive_as_they_were_sent() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        let all: Vec<u8> = (0..=255).collect();
        let large = vec![0xC3; (1 << 20) - 1024];
        for data in [b"hello".as_slice(), b"", b"\0", b"\r\n+OK\r\n", b"{", br#"{"id":"7"}"#, &all, &large] {
            bus.publish("orders", data).await.unwrap();
            let delivery = inbox.next().await;
            assert!(delivery.message.data == data, "{} bytes", data.len());
            assert_eq!((delivery.message.topic.as_str(), delivery.count), ("orders", Some(1)));
            assert_eq!(delivery.message.metadata, []);
            inbox.ack(&delivery).await;
        }
        assert_eq!(server.unacked("orders", "app").await, 0);
    });
}

#[test]
fn metadata_comes_back() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        let long = "x".repeat(4096);
        let metadata = pairs(&[
            ("a", "b"),
            ("A", "B"),
            ("empty", ""),
            ("quote\"", "\n\\"),
            ("ü", "日本"),
            ("Nats-Msg-Id", "mine"),
            ("Nats-Rollup", "all"),
            (" ", " padded "),
            ("long", &long),
        ]);
        let sent = Message { metadata: metadata.clone(), ..message("orders", b"x") };
        bus.send(sent).await.unwrap();
        assert_eq!(inbox.next().await.message.metadata, metadata);
        // A client that knows nothing of the escape reads the plain ones as they are.
        let stored = server.stored("orders").await;
        let headers = &stored[0].headers;
        assert_eq!(headers.get("a").unwrap().as_str(), "b");
        assert!(headers.get("Nats-Rollup").is_none(), "that would have been an order to the broker");
    });
}

#[test]
fn a_list_has_a_result_for_each() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let topics = ["good", "", "bad topic", "a..b", "a.*", "$SYS.x", "ü", "other"];
        let list = topics.map(|topic| message(topic, b"x")).into();
        let results = bus.adapter.publish(list, SOON).await;
        let fine: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(fine, [true, false, false, false, false, false, true, true], "{results:?}");
        assert!(
            results
                .iter()
                .flat_map(|result| result.as_ref().err())
                .all(|failure| matches!(failure, Failure::Invalid(_)))
        );
        assert_eq!(bus.adapter.publish(Vec::new(), SOON).await, []);
    });
}

#[test]
fn what_is_too_large_is_refused_and_the_connection_lives() {
    run(async {
        let server = Server::with("max_payload: 4096", "").await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &[]).await;
        let limit = usize::try_from(bus.adapter.features().max_message_bytes).unwrap();
        bus.publish("orders", &vec![0; limit]).await.unwrap();
        let rich = Message { metadata: pairs(&[("k", &"v".repeat(100))]), ..message("orders", &vec![0; limit - 101]) };
        bus.send(rich).await.unwrap();
        for too_large in [vec![0; limit + 1], vec![0; 100_000]] {
            let result = bus.publish("orders", &too_large).await;
            assert!(matches!(&result, Err(Failure::Invalid(text)) if text.contains("max_payload")), "{result:?}");
        }
        // Many names make more of a header than of the metadata.
        let names: Vec<_> = (0..300).map(|name| (name.to_string(), String::new())).collect();
        let spread = Message { metadata: names, ..message("orders", &vec![0; 2200]) };
        assert!(matches!(bus.send(spread).await, Err(Failure::Invalid(_))));
        bus.publish("orders", b"x").await.unwrap();
        assert_eq!(proxy.accepted(), 1);
    });
}

/// A line that is too long would end the connection, and everything on it.
#[test]
fn long_topics() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &[]).await;
        let topic = format!("orders.{}", "x".repeat(3000));
        let inbox = bus.subscribe(&topic, &"g".repeat(1000), 10).await;
        bus.publish(&topic, b"1").await.unwrap();
        let delivery = inbox.next().await;
        assert_eq!(delivery.message.topic, topic);
        inbox.ack(&delivery).await;
        assert!(matches!(bus.publish(&"x".repeat(4000), b"1").await, Err(Failure::Invalid(_))));
        assert_eq!(proxy.accepted(), 1);
    });
}

#[test]
fn a_stream_may_allow_less() {
    run(async {
        let server = Server::start().await;
        let small = serde_json::json!({"name": "S", "subjects": ["orders"], "max_msg_size": 10, "storage": "file"});
        server.api("STREAM.CREATE.S", small).await;
        let bus = open(&server.url(), &[]).await;
        let result = bus.publish("orders", b"more than ten bytes").await;
        assert!(matches!(&result, Err(Failure::Invalid(_))), "{result:?}");
        bus.publish("orders", b"x").await.unwrap();
    });
}

#[test]
fn a_full_stream_throttles() {
    run(async {
        let server = Server::start().await;
        let settings = [("streamMaxMessages", "3"), ("streamDiscard", "new")];
        let bus = open(&server.url(), &settings).await;
        bus.publish_numbers("orders", 0..3).await;
        let result = bus.publish("orders", b"x").await;
        assert!(matches!(&result, Err(Failure::Throttled((text, _))) if text.contains("limits")), "{result:?}");
        server.api("STREAM.PURGE.orders", serde_json::Value::Null).await;
        bus.publish("orders", b"x").await.unwrap();
    });
}

/// An event is stored once however often its publish is repeated; a dead letter, an event with the same id from elsewhere,
/// and what is no event, are not repetitions.
#[test]
fn repetitions_are_stored_once() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let event = br#"{"specversion":"1.0","id":"7","source":"a","type":"t"}"#;
        let other = br#"{"specversion":"1.0","id":"7","source":"b","type":"t"}"#;
        for _ in 0..3 {
            bus.publish("orders", event).await.unwrap();
        }
        bus.publish("orders.dead", event).await.unwrap();
        bus.publish("orders", other).await.unwrap();
        let raw = Message { metadata: pairs(&[("rawPayload", "true")]), ..message("orders", event) };
        for _ in 0..2 {
            bus.publish("orders", br#"{"id":"7"}"#).await.unwrap();
            bus.send(raw.clone()).await.unwrap();
        }
        let stored = server.stored("orders").await;
        let topics: Vec<&str> = stored.iter().map(|message| message.subject.as_str()).collect();
        assert_eq!(topics, ["orders", "orders.dead", "orders", "orders", "orders", "orders", "orders"]);
    });
}

#[test]
fn something_else_than_jetstream_answers() {
    run(async {
        let server = Server::start().await;
        let client = server.client().await;
        let mut requests = client.subscribe("echo").await.unwrap();
        client.flush().await.unwrap();
        let answering = client.clone();
        tokio::spawn(async move {
            while let Some(request) = futures::StreamExt::next(&mut requests).await {
                answering.publish(request.reply.unwrap(), "OK".into()).await.unwrap();
            }
        });
        let bus = open(&server.url(), &[]).await;
        let result = bus.publish("echo", b"x").await;
        assert!(matches!(&result, Err(Failure::Unknown(text)) if text.contains("JetStream")), "{result:?}");
    });
}

#[test]
fn while_the_server_is_away_publishes_wait_until_their_deadline() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        bus.publish("orders", b"before").await.unwrap();
        server.kill();
        bus.is_away().await;

        let since = Instant::now();
        let result = bus.adapter.publish(vec![message("orders", b"late")], Duration::from_millis(300)).await;
        assert!(matches!(result[..], [Err(Failure::Transient(_))]), "{result:?}");
        assert!((300..3000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());

        let (waited, ()) = tokio::join!(bus.publish("orders", b"patient"), server.restart());
        waited.unwrap();
        bus.is_back().await;
        let stored = server.stored("orders").await;
        let data: Vec<&[u8]> = stored.iter().map(|message| message.payload.as_ref()).collect();
        assert_eq!(data, [b"before".as_slice(), b"patient"]);
    });
}

#[test]
fn the_queue_is_bounded() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        server.kill();
        bus.is_away().await;
        let data = vec![0; 1_000_000];
        let publishes =
            (0..60).map(|_| bus.adapter.publish(vec![message("orders", &data)], Duration::from_millis(500)));
        let results = futures::future::join_all(publishes).await.concat();
        let full = |result: &&Result<(), Failure>| matches!(result, Err(Failure::Transient(text)) if text.contains("too much"));
        let refused = results.iter().filter(full).count();
        assert!((20..40).contains(&refused), "{results:?}");
        assert!(results.iter().all(|result| matches!(result, Err(Failure::Transient(_)))), "{results:?}");
    });
}
