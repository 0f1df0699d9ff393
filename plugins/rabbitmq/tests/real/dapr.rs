//! Data and topology are Dapr's: an independent client does what Dapr's component does (its exchanges, names, arguments and
//! properties, as its source declares them), and either reads what the other wrote.

use super::harness::*;
use futures::StreamExt;
use lapin::options::BasicAckOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use std::collections::HashSet;
use std::time::Duration;
use whimbrel_sdk::Message;

/// What Dapr's component declares for a subscription, with its defaults (`auto_delete`) or those of a careful user.
async fn daprs_topology(client: &Client, topic: &str, auto_delete: bool) -> String {
    let queue = format!("app-{topic}");
    client.exchange(topic, ExchangeKind::Fanout, true, auto_delete).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    client.queue(&queue, true, auto_delete, arguments).await;
    client.bind(&queue, topic, "").await;
    queue
}

/// What Dapr's component publishes. Its client leaves out a delivery mode of 0.
fn daprs_properties(delivery_mode: u8) -> BasicProperties {
    let properties = BasicProperties::default().with_content_type("text/plain".into());
    if delivery_mode == 0 { properties } else { properties.with_delivery_mode(delivery_mode) }
}

#[test]
fn what_dapr_declared_and_wrote_is_read() {
    run(async {
        let client = Broker::shared().client().await;
        for (settings, auto_delete) in [(&[][..], false), (&[("compat", "dapr")][..], true)] {
            let topic = topic("daprs");
            daprs_topology(&client, &topic, auto_delete).await;
            let event = br#"{"specversion":"1.0","id":"1","data":"x"}"#;
            client.publish(&topic, "", event, daprs_properties(0)).await;
            let expiring = daprs_properties(2).with_expiration("3600000".into()).with_priority(3).with_type("t".into());
            client
                .publish(&topic, "", b"2", expiring.with_message_id("m".into()).with_correlation_id("c".into()))
                .await;
            let bus = shared(settings).await;
            let inbox = bus.subscribe(&topic, "app", 10).await;
            let all = inbox.take(2).await;
            assert_eq!(all[0].message.data, event);
            assert_eq!((all[1].message.data.as_slice(), all[1].id.as_str()), (&b"2"[..], "m"));
            let metadata = |at: usize| all[at].message.metadata.clone();
            if auto_delete {
                assert!(metadata(0).is_empty() && metadata(1).is_empty(), "not unless it is asked for");
            } else {
                assert_eq!(metadata(0), pairs(&[("contentType", "text/plain")]));
                let given = [("messageID", "m"), ("correlationID", "c"), ("type", "t"), ("priority", "3")];
                assert_eq!(metadata(1)[1..], pairs(&given));
            }
            assert!(inbox.ack_all(&all).await.iter().all(Result::is_ok));
        }
    });
}

#[test]
fn what_we_declare_and_write_dapr_reads() {
    run(async {
        let client = Broker::shared().client().await;
        for (settings, auto_delete) in [(&[][..], false), (&[("compat", "dapr")][..], true)] {
            let topic = topic("ours");
            let bus = shared(settings).await;
            // The queue is ours first; what Dapr declares must be the same, or its channel would be closed.
            let inbox = bus.subscribe(&topic, "app", 1).await;
            let queue = daprs_topology(&client, &topic, auto_delete).await;
            bus.publish(&topic, b"0").await.unwrap();
            let held = inbox.next().await;
            let metadata =
                pairs(&[("ttlInSeconds", "60"), ("priority", "4"), ("type", "t"), ("messageid", "m"), ("own", "1")]);
            bus.send(Message { metadata, ..message(&topic, b"1") }).await.unwrap();
            let message = client.get(&queue).await.expect("a message").delivery;
            let properties = &message.properties;
            let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
            assert_eq!(message.data, b"1");
            assert_eq!(*properties.delivery_mode(), if auto_delete { None } else { Some(2) });
            assert_eq!(text(properties.content_type()).as_deref(), auto_delete.then_some("text/plain"));
            assert_eq!(text(properties.expiration()).as_deref(), Some("60000"));
            assert_eq!(*properties.priority(), Some(4));
            assert_eq!(
                (text(properties.kind()).as_deref(), text(properties.message_id()).as_deref()),
                (Some("t"), Some("m"))
            );
            let own = properties.headers().as_ref().and_then(|headers| headers.inner().get("own").cloned());
            assert_eq!(own, Some(AMQPValue::LongString("1".into())));
            inbox.ack(&held).await;
        }
    });
}

/// A replica of Dapr's and one of ours compete on one queue: each message goes to one of them.
#[test]
fn replicas_of_both_share_a_queue() {
    run(async {
        let client = Broker::shared().client().await;
        let topic = topic("shared");
        let queue = daprs_topology(&client, &topic, false).await;
        client.channel.basic_qos(10, Default::default()).await.unwrap();
        let mut theirs = client.consume(&queue).await;
        let bus = shared(&[]).await;
        let inbox = bus.subscribe(&topic, "app", 10).await;
        bus.publish_numbers(&topic, 0..200).await;
        let (mut ours, mut other) = (HashSet::new(), HashSet::new());
        while ours.len() + other.len() < 200 {
            if let Some(delivery) = inbox.within(Duration::from_millis(20)).await {
                assert!(ours.insert(number(&delivery)));
                inbox.ack(&delivery).await;
            }
            if let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(20), theirs.next()).await {
                let delivery = delivery.unwrap();
                assert!(other.insert(std::str::from_utf8(&delivery.data).unwrap().parse().unwrap()));
                delivery.ack(BasicAckOptions::default()).await.unwrap();
            }
        }
        assert!(ours.is_disjoint(&other) && ours.len() > 20 && other.len() > 20, "{} {}", ours.len(), other.len());
    });
}

/// As with Dapr, what failed is gone, or goes to the dead-letter queue where there is one.
#[test]
fn what_failed_is_gone_as_with_dapr() {
    run(async {
        let client = Broker::shared().client().await;
        let bus = shared(&[("compat", "dapr"), ("deletedWhenUnused", "false")]).await;
        let topic = topic("failed");
        let inbox = bus.subscribe(&topic, "app", 10).await;
        bus.publish(&topic, b"1").await.unwrap();
        inbox.settle(inbox.next().await.token, retry(Duration::ZERO)).await.unwrap();
        assert!(inbox.is_quiet().await);
        bus.close().await;
        assert_eq!(client.ready(&format!("app-{topic}")).await, Some(0));
    });
}
