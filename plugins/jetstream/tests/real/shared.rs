//! Sharing the broker with Dapr's component: fixtures written, and consumers made, as it does it.

use super::harness::*;
use async_nats::jetstream::{self, consumer};
use futures::StreamExt;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;
use whimbrel_sdk::Failure;

const EVENT: &str = r#"{"data":{"orderId":7},"datacontenttype":"application/json","id":"0c9a","source":"checkout","specversion":"1.0","topic":"orders","type":"com.dapr.event.sent"}"#;

/// What Dapr's component publishes: the event as it is, to the topic as the subject, with the event's id for the broker.
#[test]
fn what_dapr_wrote_is_read() {
    run(async {
        let server = Server::start().await;
        let context = jetstream::new(server.client().await);
        let config =
            jetstream::stream::Config { name: "S".into(), subjects: vec!["orders".into()], ..Default::default() };
        context.create_stream(config).await.unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "0c9a");
        context.publish_with_headers("orders", headers, EVENT.into()).await.unwrap().await.unwrap();
        let bus = open(&server.url(), &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        let delivery = inbox.next().await;
        assert_eq!(delivery.message, message("orders", EVENT.as_bytes()));
        assert_eq!(delivery.id, "1");
        inbox.ack(&delivery).await;
    });
}

#[test]
fn what_is_written_is_read_by_dapr() {
    run(async {
        let server = Server::start().await;
        let context = jetstream::new(server.client().await);
        let bus = open(&server.url(), &[("compat", "dapr")]).await;
        bus.publish("orders", EVENT.as_bytes()).await.unwrap();
        let stream = context.get_stream("orders").await.unwrap();
        // Dapr's consumer: pushed to an inbox, filtered by the topic.
        let client = server.client().await;
        let config = consumer::push::Config {
            deliver_subject: client.new_inbox(),
            filter_subject: "orders".into(),
            ..Default::default()
        };
        let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let read = messages.next().await.unwrap().unwrap();
        assert_eq!((read.subject.as_str(), read.payload.as_ref()), ("orders", EVENT.as_bytes()));
        assert_eq!(read.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().as_str(), "0c9a");
        read.ack().await.unwrap();
    });
}

/// What Dapr's component makes of `durableName` and `queueGroupName`.
async fn daprs_consumer(server: &Server) -> jetstream::consumer::Consumer<consumer::push::Config> {
    let client = server.client().await;
    let context = jetstream::new(client.clone());
    let config = jetstream::stream::Config { name: "S".into(), subjects: vec!["orders".into()], ..Default::default() };
    let stream = context.get_or_create_stream(config).await.unwrap();
    let config = consumer::push::Config {
        durable_name: Some("D".into()),
        deliver_subject: client.new_inbox(),
        deliver_group: Some("workers".into()),
        filter_subject: "orders".into(),
        ack_wait: Duration::from_secs(2),
        ..Default::default()
    };
    stream.create_consumer(config).await.unwrap()
}

/// Acknowledges what comes, and tells how much did.
fn dapr_works(consumer: consumer::Consumer<consumer::push::Config>) -> tokio::task::JoinHandle<HashSet<u32>> {
    tokio::spawn(async move {
        let mut seen = HashSet::new();
        let mut messages = consumer.messages().await.unwrap();
        while let Ok(Some(Ok(message))) = tokio::time::timeout(Duration::from_secs(2), messages.next()).await {
            seen.insert(std::str::from_utf8(&message.payload).unwrap().parse().unwrap());
            message.ack().await.unwrap();
        }
        seen
    })
}

#[test]
fn replicas_of_both_share_a_group_that_dapr_made() {
    run(async {
        let server = Server::start().await;
        let consumer = daprs_consumer(&server).await;
        let bus = open(&server.url(), &[("durableName", "D"), ("queueGroupName", "workers")]).await;
        both_share(&bus, consumer).await;
    });
}

#[test]
fn replicas_of_both_share_a_group_that_dapr_found() {
    run(async {
        let server = Server::start().await;
        let bus = open(&server.url(), &[("durableName", "D"), ("queueGroupName", "workers")]).await;
        let idle = bus.subscribe("orders", "app", 1000).await;
        let context = jetstream::new(server.client().await);
        let found =
            context.get_stream("orders").await.unwrap().get_consumer::<consumer::push::Config>("D").await.unwrap();
        idle.stop().await;
        both_share(&bus, found).await;
    });
}

async fn both_share(bus: &Bus, dapr: consumer::Consumer<consumer::push::Config>) {
    let inbox = bus.subscribe("orders", "app", 1000).await;
    let working = dapr_works(dapr);
    tokio::time::sleep(A_WHILE).await;
    bus.publish_numbers("orders", 0..200).await;
    let mut ours = HashSet::new();
    while let Some(delivery) = inbox.within(Duration::from_secs(1)).await {
        assert!(ours.insert(number(&delivery)), "{} twice", number(&delivery));
        inbox.ack(&delivery).await;
    }
    let theirs = working.await.unwrap();
    assert!(ours.is_disjoint(&theirs));
    assert_eq!(ours.union(&theirs).count(), 200);
    assert!(ours.len() > 20 && theirs.len() > 20, "ours {}, theirs {}", ours.len(), theirs.len());
}

/// A broker that pushes knows nothing of credit: what is too much goes back, and nothing more is pushed until there is room.
#[test]
fn what_is_pushed_keeps_to_the_credit() {
    run(async {
        let server = Server::start().await;
        let settings = [("durableName", "D"), ("queueGroupName", "workers")];
        let bus = open(&server.url(), &settings).await;
        let inbox = bus.subscribe("orders", "app", 5).await;
        bus.publish_numbers("orders", 0..40).await;
        let mut seen = HashSet::new();
        let mut held = inbox.take(5).await;
        assert!(inbox.is_quiet().await, "more than the credit");
        while seen.len() < 40 {
            for delivery in held.drain(..) {
                seen.insert(number(&delivery));
                inbox.ack(&delivery).await;
            }
            while let Some(delivery) = inbox.within(Duration::from_millis(100)).await {
                held.push(delivery);
                assert!(held.len() <= 5);
                if held.len() == 5 {
                    break;
                }
            }
        }
    });
}

#[test]
fn pushed_messages_survive_a_reconnect() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let settings = [("durableName", "D"), ("queueGroupName", "workers"), ("ackWait", "1s")];
        let bus = open(&through(&proxy), &settings).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish_numbers("orders", 0..10).await;
        assert_eq!(inbox.take(10).await.len(), 10);
        proxy.cut();
        let again = inbox.take(10).await;
        assert!(again.iter().all(|delivery| delivery.count >= Some(2)));
        assert!(inbox.ack_all(&again).await.iter().all(Result::is_ok));
    });
}

#[test]
fn another_group_name_is_an_error() {
    run(async {
        let server = Server::start().await;
        daprs_consumer(&server).await;
        let bus = open(&server.url(), &[("durableName", "D"), ("queueGroupName", "others")]).await;
        let refused = bus.try_subscribe("orders", "app", options(1)).await.err().unwrap();
        assert!(
            matches!(&refused, Failure::Invalid(text) if text.contains("queueGroupName") && text.contains("workers")),
            "{refused:?}"
        );
        assert_eq!(server.api("CONSUMER.NAMES.S", json!({})).await["total"], 1);
    });
}
