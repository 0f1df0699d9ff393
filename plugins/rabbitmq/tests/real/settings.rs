//! Opening: credentials, permissions, virtual hosts, addresses of something else, brokers that are not there yet.

use super::harness::*;
use std::time::{Duration, Instant};
use whimbrel_rabbitmq::Rabbitmq;
use whimbrel_sdk::{Adapter, Failure, Status, StatusSink};

async fn refused(url: &str, settings: &[(&str, &str)]) -> Failure {
    let since = Instant::now();
    let Err(failure) = try_open(url, settings).await else { panic!("it opened: {settings:?}") };
    assert!(since.elapsed() < Duration::from_secs(3), "not at once");
    assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    failure
}

#[test]
fn credentials() {
    run(async {
        let port = Broker::shared().port;
        for login in ["guest:hunter2", "nobody:hunter2", "nobody"] {
            let failure = refused(&format!("amqp://{login}@127.0.0.1:{port}"), &[]).await;
            assert!(
                matches!(&failure, Failure::Unauthorized(text) if text.contains("connectionString")),
                "{failure:?}"
            );
        }
        let host = format!("127.0.0.1:{port}");
        let bus = open("", &[("hostname", &host), ("username", "guest"), ("password", "guest")]).await;
        bus.adapter.ping().await.unwrap();
        bus.close().await;
    });
}

#[test]
fn virtual_hosts() {
    run(async {
        let broker = Broker::shared();
        let failure = refused(&format!("{}/nowhere", broker.url()), &[]).await;
        assert!(matches!(&failure, Failure::Invalid(text) if text.contains("\"nowhere\"")), "{failure:?}");
        broker.control(&["add_vhost", "a/b"]);
        let failure = refused(&format!("{}/a%2Fb", broker.url()), &[]).await;
        assert!(matches!(&failure, Failure::Unauthorized(text) if text.contains("\"a/b\"")), "{failure:?}");
        broker.control(&["set_permissions", "-p", "a/b", "guest", ".*", ".*", ".*"]);
        let bus = open(&format!("{}/a%2Fb", broker.url()), &[]).await;
        let topic = topic("vhost");
        let inbox = bus.subscribe(&topic, "app", 10).await;
        bus.publish(&topic, b"1").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        let client = broker.client().await;
        assert_eq!(client.ready(&format!("app-{topic}")).await, None, "another virtual host");
    });
}

/// What a user may not do is an error that says so, and harms nobody who may.
#[test]
fn permissions() {
    run(async {
        let broker = Broker::shared();
        broker.control(&["add_user", "limited", "right"]);
        // Declare: mine.*; write: mine.sound.*; read: mine.*.
        broker.control(&[
            "set_permissions",
            "limited",
            "^(app-)?mine\\..*",
            "^(app-)?mine\\.sound.*",
            "^(app-)?mine\\..*",
        ]);
        let bus = open(&format!("amqp://limited:right@127.0.0.1:{}", broker.port), &[]).await;
        let sound = topic("mine.sound");
        let inbox = bus.subscribe(&sound, "app", 100).await;
        bus.publish(&sound, b"0").await.unwrap();
        let since = Instant::now();
        for number in 1..20 {
            let text = number.to_string();
            let list = vec![message(&sound, text.as_bytes()), message("mine.refused", b"x"), message("yours", b"x")];
            let results = bus.adapter.publish(list, SOON).await;
            assert!(results[0].is_ok(), "{results:?}");
            let unauthorized = |result: &Result<(), Failure>, name: &str| matches!(result, Err(Failure::Unauthorized(text)) if text.contains("permission") && text.contains(name));
            assert!(unauthorized(&results[1], "mine.refused") && unauthorized(&results[2], "yours"), "{results:?}");
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
        assert!(inbox.take(20).await.iter().map(number).eq(0..20));
        let failure = bus.try_subscribe("yours", "app", with(10, &[])).await.err();
        assert!(matches!(&failure, Some(Failure::Unauthorized(text)) if text.contains("yours")), "{failure:?}");
        bus.publish(&sound, b"20").await.unwrap();
        assert_eq!(number(&inbox.next().await), 20);
    });
}

/// A peer that is not RabbitMQ: what it is asked is told as the reason, and it is not asked ever faster.
#[test]
fn addresses_of_something_else() {
    run(async {
        let peers: [(&[u8], &str); 3] = [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMQP"),
            (b"-ERR unknown command\r\n", "does not speak AMQP"),
            (b"AMQP\x03\x01\x00\x00", "not version 0-9-1"),
        ];
        for (answer, says) in peers {
            let (port, connections) = super::hostile::peer(answer, b"").await;
            let (sink, mut news) = StatusSink::channel();
            let opening = Rabbitmq::open(config(&url(port), "i", &[]), sink);
            assert!(tokio::time::timeout(Duration::from_secs(2), opening).await.is_err(), "it opened");
            assert!((1..=30).contains(&connections.get()), "{} connections", connections.get());
            let mut told = Vec::new();
            while let Ok(Some(status)) = tokio::time::timeout(Duration::ZERO, futures::StreamExt::next(&mut news)).await
            {
                told.push(format!("{status:?}"));
            }
            // The first try, and why it failed; later ones fail for the same reason.
            assert!(told.len() == 2 && told[1].contains(says), "{told:?}");
        }
    });
}

#[test]
fn a_silent_peer() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sink, mut news) = StatusSink::channel();
        let config = config(&url(listener.local_addr().unwrap().port()), "i", &[]);
        let opening = Rabbitmq::open(config, sink);
        assert!(tokio::time::timeout(Duration::from_millis(1500), opening).await.is_err(), "it opened");
        let mut reason = String::new();
        while let Ok(Some(status)) = tokio::time::timeout(Duration::ZERO, futures::StreamExt::next(&mut news)).await {
            reason = format!("{status:?}");
        }
        assert!(reason.contains("no answer to the greeting"), "{reason}");
    });
}

#[test]
fn a_broker_that_comes_later() {
    run(async {
        let broker = Broker::start(&[]);
        broker.kill();
        let url = broker.url();
        let starting = tokio::task::spawn_blocking(move || broker.restart());
        let (opened, started) = tokio::join!(try_open(&url, &[("dialTimeout", "2s")]), starting);
        started.unwrap();
        let bus = opened.unwrap();
        bus.hears("trying", |status| matches!(status, Status::Connecting(why) if why.is_empty())).await;
        bus.hears("ready", |status| matches!(status, Status::Ready)).await;
        bus.adapter.ping().await.unwrap();
    });
}

#[test]
fn an_invalid_setting() {
    run(async {
        let failure = refused(&Broker::shared().url(), &[("queueType", "hunter2")]).await;
        assert!(matches!(&failure, Failure::Invalid(text) if text.contains("queueType")), "{failure:?}");
        let failure = refused("amqp://x", &[("saslExternal", "true")]).await;
        assert!(matches!(&failure, Failure::Invalid(text) if text.contains("saslExternal")), "{failure:?}");
    });
}

/// Both sides show that they live, so that a broker without anything to say is not left, and none that hangs is kept.
#[test]
fn heartbeats() {
    run(async {
        let proxy = Proxy::start(Broker::shared().port).await;
        let bus = open(&url(proxy.port), &[("heartBeat", "1s"), ("dialTimeout", "1s")]).await;
        let topic = topic("heart");
        let inbox = bus.subscribe(&topic, "app", 10).await;
        bus.hears("ready", |status| matches!(status, Status::Ready)).await;
        // Longer than RabbitMQ waits for one.
        assert!(inbox.within(Duration::from_secs(4)).await.is_none());
        bus.publish(&topic, b"1").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        proxy.mute(true);
        bus.hears("left", |status| matches!(status, Status::Connecting(why) if why.contains("no sign of life"))).await;
        proxy.cut();
        proxy.mute(false);
        bus.hears("ready", |status| matches!(status, Status::Ready)).await;
        bus.publish(&topic, b"2").await.unwrap();
        assert_eq!(number(&inbox.next().await), 2);
    });
}
