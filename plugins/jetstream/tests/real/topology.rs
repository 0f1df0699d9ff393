//! Streams and consumers: found, made, refused, and taken away.

use super::harness::*;
use serde_json::{Value, json};
use std::time::Duration;
use whimbrel_sdk::{Failure, Status, SubscribeOptions};

async fn stream(server: &Server, name: &str, subjects: &[&str]) {
    let made = server
        .api(&format!("STREAM.CREATE.{name}"), json!({"name": name, "subjects": subjects, "storage": "file"}))
        .await;
    assert!(made["error"].is_null(), "{made}");
}

const OFF: (&str, &str) = ("streamCreate", "off");

#[test]
fn without_a_stream() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[OFF]).await;
        let says = |failure: &Failure| matches!(failure, Failure::Permanent(text) if text.contains("streamCreate") && text.contains("orders"));
        let refused = bus.publish("orders", b"1").await.unwrap_err();
        assert!(says(&refused), "{refused:?}");
        let refused = bus.try_subscribe("orders", "app", options(1)).await.err().unwrap();
        assert!(says(&refused), "{refused:?}");
        stream(&server, "S", &["orders"]).await;
        bus.publish("orders", b"1").await.unwrap();
        bus.subscribe("orders", "app", 1).await.next().await;
    });
}

#[test]
fn streams_are_made_as_topics_come_up() {
    run(async {
        let server = Server::start().await;
        stream(&server, "S", &["kept.apart"]).await;
        let settings = [("streamMaxAge", "1h"), ("streamMaxBytes", "1000000"), ("streamDuplicateWindow", "10s")];
        let bus = open(&server.url(), &settings).await;
        for topic in ["orders", "orders.new", "kept.apart", "kept.here", "ü", "$no"] {
            assert_eq!(bus.publish(topic, b"1").await.is_ok(), !topic.starts_with('$'), "{topic}");
        }
        let all = server.api("STREAM.LIST", json!({})).await;
        let mut found: Vec<(String, Value)> = all["streams"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stream| (stream["config"]["name"].as_str().unwrap().to_owned(), stream["config"]["subjects"].clone()))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let subjects: Vec<&Value> = found.iter().map(|(_, subjects)| subjects).collect();
        assert_eq!(
            subjects,
            [&json!(["kept.apart"]), &json!(["ü", "ü.>"]), &json!(["kept.here"]), &json!(["orders", "orders.>"])]
        );
        assert_eq!(found[3].0, "orders");
        let config = &server.api("STREAM.INFO.orders", json!({})).await["config"];
        assert_eq!(config["max_age"], 3_600_000_000_000_u64);
        assert_eq!(
            (&config["max_bytes"], &config["duplicate_window"]),
            (&json!(1_000_000), &json!(10_000_000_000_u64))
        );
    });
}

#[test]
fn a_named_stream_is_made_with_its_subjects() {
    run(async {
        let server = Server::start().await;
        let settings = [("streamName", "BUS"), ("streamSubjects", "orders.>, bills")];
        let bus = open(&server.url(), &settings).await;
        let inbox = bus.subscribe("orders.*", "app", 10).await;
        bus.publish("orders.new", b"1").await.unwrap();
        bus.publish("bills", b"2").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        assert_eq!(server.api("STREAM.NAMES", json!({})).await["streams"], json!(["BUS"]));
        let refused = bus.publish("elsewhere", b"1").await.unwrap_err();
        assert!(matches!(&refused, Failure::Permanent(text) if text.contains("streamSubjects")), "{refused:?}");
        let refused = bus.try_subscribe("elsewhere", "app", options(1)).await.err().unwrap();
        assert!(matches!(&refused, Failure::Permanent(text) if text.contains("BUS")), "{refused:?}");
    });
}

#[test]
fn a_named_stream_that_is_not_there() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[OFF, ("streamName", "NONE")]).await;
        let refused = bus.try_subscribe("orders", "app", options(1)).await.err().unwrap();
        assert!(
            matches!(&refused, Failure::Permanent(text) if text.contains("NONE") && text.contains("streamName")),
            "{refused:?}"
        );
    });
}

#[test]
fn a_wildcard_over_several_streams() {
    run(async {
        let server = Server::start().await;
        stream(&server, "A", &["x.a"]).await;
        stream(&server, "B", &["x.b"]).await;
        let bus = open(&server.url(), &[]).await;
        let refused = bus.try_subscribe("x.*", "app", options(1)).await.err().unwrap();
        assert!(matches!(&refused, Failure::Permanent(text) if text.contains("streamName")), "{refused:?}");
        let refused = bus.try_subscribe("*.new", "app", options(1)).await.err().unwrap();
        assert!(matches!(&refused, Failure::Permanent(text) if text.contains("streamSubjects")), "{refused:?}");
    });
}

#[test]
fn consumers_are_as_the_resource_says() {
    run(async {
        let server = Server::start().await;
        let settings = [("ackWait", "7s"), ("maxDeliver", "9"), ("maxAckPending", "50"), ("deliverPolicy", "new")];
        let bus = open(&server.url(), &settings).await;
        bus.publish("orders", b"1").await.unwrap();
        let inbox = bus.subscribe("orders", "app", 10).await;
        assert!(inbox.is_quiet().await);
        let config = &server.consumer("orders", "orders", "app").await["config"];
        assert_eq!(config["ack_wait"], 7_000_000_000_u64);
        assert_eq!((&config["max_deliver"], &config["max_ack_pending"]), (&json!(9), &json!(50)));
        assert_eq!((&config["ack_policy"], &config["deliver_policy"]), (&json!("explicit"), &json!("new")));
        // By default the broker bounds no group: each instance is bounded by its credit.
        open(&server.url(), &[]).await.subscribe("bills", "app", 10).await;
        assert_eq!(server.consumer("bills", "bills", "app").await["config"]["max_ack_pending"], -1);
    });
}

#[test]
fn a_consumer_with_other_settings() {
    run(async {
        let server = Server::start().await;
        let first = open(&server.url(), &[("durableName", "D"), ("ackWait", "7s")]).await;
        first.subscribe("orders", "app", 10).await;
        let check = async |settings: &[(&str, &str)], topic: &str, says: &[&str]| {
            let settings = [&[("durableName", "D")], settings].concat();
            let bus = open(&server.url(), &settings).await;
            match bus.try_subscribe(topic, "app", options(10)).await {
                Ok(_) => assert!(says.is_empty(), "{settings:?} is accepted"),
                Err(Failure::Invalid(text)) => {
                    assert!(!says.is_empty() && says.iter().all(|word| text.contains(word)), "{text}");
                }
                Err(other) => panic!("{other:?}"),
            }
        };
        check(&[], "orders", &[]).await;
        check(&[("ackWait", "7s")], "orders", &[]).await;
        check(&[("ackWait", "8s")], "orders", &["ackWait", "D", "delete"]).await;
        check(&[("maxDeliver", "3")], "orders", &["maxDeliver"]).await;
        check(&[("maxAckPending", "3")], "orders", &["maxAckPending"]).await;
        check(&[("backOff", "1s,2s"), ("maxDeliver", "-1")], "orders", &["backOff"]).await;
        check(&[("queueGroupName", "g")], "orders", &["queueGroupName", "pulled"]).await;
        check(&[], "orders.new", &["durableName", "orders"]).await;
        // Each subscription may name its own.
        let bus = open(&server.url(), &[("durableName", "D")]).await;
        let own = SubscribeOptions { metadata: pairs(&[("durableName", "E")]), ..options(10) };
        bus.try_subscribe("orders.new", "app", own).await.unwrap();
        let wrong = SubscribeOptions { metadata: pairs(&[("durableName", "E.F")]), ..options(10) };
        let refused = bus.try_subscribe("orders.new", "app", wrong).await.err().unwrap();
        assert!(matches!(&refused, Failure::Invalid(text) if text.contains("durableName")), "{refused:?}");
    });
}

#[test]
fn consumers_this_adapter_cannot_use() {
    run(async {
        let server = Server::start().await;
        stream(&server, "orders", &["orders"]).await;
        let bus = open(&server.url(), &[]).await;
        let check = async |name: &str, extra: Value, says: &str| {
            let mut config =
                json!({"durable_name": name, "name": name, "filter_subject": "orders", "ack_policy": "explicit"});
            config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let request = json!({"stream_name": "orders", "action": "create", "config": config});
            let made = server.api(&format!("CONSUMER.DURABLE.CREATE.orders.{name}"), request).await;
            assert!(made["error"].is_null(), "{made}");
            let own = SubscribeOptions { metadata: pairs(&[("durableName", name)]), ..options(10) };
            let refused = bus.try_subscribe("orders", "app", own).await.err().unwrap();
            assert!(matches!(&refused, Failure::Invalid(text) if text.contains(says)), "{refused:?}");
        };
        check("none", json!({"ack_policy": "none"}), "ack policy none").await;
        check("all", json!({"ack_policy": "all"}), "ack policy all").await;
        check("alone", json!({"deliver_subject": "_INBOX.x"}), "queueGroupName").await;
        check("heads", json!({"headers_only": true}), "headers").await;
    });
}

/// Limits that somebody gave to a consumer are kept to.
#[test]
fn consumers_may_limit_pulls() {
    run(async {
        let server = Server::start().await;
        stream(&server, "orders", &["orders"]).await;
        let config = json!({"durable_name": "D", "filter_subject": "orders", "ack_policy": "explicit", "max_batch": 3,
            "max_expires": 1_000_000_000, "max_bytes": 2000});
        let made =
            server.api("CONSUMER.DURABLE.CREATE.orders.D", json!({"stream_name": "orders", "config": config})).await;
        assert!(made["error"].is_null(), "{made}");
        let bus = open(&server.url(), &[("durableName", "D")]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish_numbers("orders", 0..50).await;
        for expected in 0..50 {
            let delivery = inbox.next().await;
            assert_eq!(number(&delivery), expected);
            inbox.ack(&delivery).await;
        }
        // Pulls run out and are made again.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        bus.publish("orders", b"50").await.unwrap();
        inbox.ack(&inbox.next().await).await;
    });
}

#[test]
fn a_deleted_consumer_is_made_again() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish_numbers("orders", 0..3).await;
        assert!(inbox.ack_all(&inbox.take(3).await).await.iter().all(Result::is_ok));
        let name = server.consumer("orders", "orders", "app").await["name"].as_str().unwrap().to_owned();
        server.api(&format!("CONSUMER.DELETE.orders.{name}"), Value::Null).await;
        bus.hears("data loss", |status| matches!(status, Status::DataLoss(text) if text.contains(&name))).await;
        bus.publish("orders", b"3").await.unwrap();
        let all = inbox.take(4).await;
        assert!(all.iter().map(number).eq(0..4), "it begins at the oldest message");
        assert!(inbox.ack_all(&all).await.iter().all(Result::is_ok));
    });
}

#[test]
fn a_deleted_stream_is_made_again() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish("orders", b"1").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        server.api("STREAM.DELETE.orders", Value::Null).await;
        bus.hears("data loss", |status| matches!(status, Status::DataLoss(_))).await;
        bus.publish("orders", b"2").await.unwrap();
        let delivery = inbox.next().await;
        assert_eq!(number(&delivery), 2);
        inbox.ack(&delivery).await;
    });
}

/// Where streams are not made, the subscription waits until somebody does it.
#[test]
fn a_deleted_stream_that_is_not_made_again() {
    run(async {
        let server = Server::start().await;
        stream(&server, "S", &["orders"]).await;
        let bus = open(&server.url(), &[OFF]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        server.api("STREAM.DELETE.S", Value::Null).await;
        until("publishing fails", async || bus.publish("orders", b"1").await.is_err()).await;
        let before = server.api("INFO", Value::Null).await["api"]["total"].as_u64().unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let asked = server.api("INFO", Value::Null).await["api"]["total"].as_u64().unwrap() - before;
        assert!(asked < 50, "{asked} requests in two seconds");
        stream(&server, "T", &["orders"]).await;
        bus.publish("orders", b"2").await.unwrap();
        assert_eq!(number(&inbox.next().await), 2);
    });
}
