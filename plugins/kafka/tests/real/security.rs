//! Opening: passwords, ways to show them, brokers that are not there yet. TLS is the host's part, and tested there.

use super::harness::*;
use std::time::{Duration, Instant};
use whimbrel_kafka::Kafka;
use whimbrel_sdk::{Adapter, Failure, Status, StatusSink};

const USER: [&str; 2] = ["--auth", "app:right"];

/// Settings with a password, over a network that needs no TLS.
fn login<'a>(password: &'a str, mechanism: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("authType", "password"),
        ("saslUsername", "app"),
        ("saslPassword", password),
        ("saslMechanism", mechanism),
        ("disableTls", "true"),
    ]
}

async fn refused(server: &Server, settings: &[(&str, &str)]) -> Failure {
    let since = Instant::now();
    let Err(failure) = Bus::try_open(&server.host(), "i", settings).await else { panic!("it opened: {settings:?}") };
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    failure
}

async fn works(server: &Server, settings: &[(&str, &str)]) {
    let bus = Bus::open(&server.host(), "i", settings).await;
    let inbox = bus.subscribe("orders", "app", 10).await;
    bus.publish("orders", b"x").await.unwrap();
    inbox.ack(&inbox.next().await).await;
    bus.close().await;
}

#[test]
fn a_password() {
    run(async {
        let server = Server::own(&[&USER[..], &["--sasl", "plain"]].concat()).await;
        works(&server, &login("right", "PLAINTEXT")).await;
        let failure = refused(&server, &login("hunter2", "PLAINTEXT")).await;
        assert!(matches!(&failure, Failure::Unauthorized(text) if text.contains("saslPassword")), "{failure:?}");
        let failure = refused(&server, &login("right", "SHA-256")).await;
        let names = |text: &str| text.contains("saslMechanism") && text.contains("PLAIN");
        assert!(matches!(&failure, Failure::Invalid(text) if names(text)), "{failure:?}");

        // Without a password, the broker hangs up at the first question.
        let (sink, mut news) = StatusSink::channel();
        let host = server.host();
        let opening = Kafka::open(config(&host, "i", &[]), sink);
        assert!(tokio::time::timeout(Duration::from_secs(2), opening).await.is_err(), "it opened");
        let mut told = Vec::new();
        while let Ok(Some(status)) = tokio::time::timeout(Duration::ZERO, futures::StreamExt::next(&mut news)).await {
            told.push(format!("{status:?}"));
        }
        assert!(told.iter().any(|status| status.contains("authType")), "{told:?}");
        assert!(told.len() < 15, "{told:?}");
    });
}

#[test]
fn a_password_that_is_proven() {
    run(async {
        let server = Server::own(&[&USER[..], &["--sasl", "scram"]].concat()).await;
        for mechanism in ["SHA-256", "SHA-512"] {
            works(&server, &login("right", mechanism)).await;
            let failure = refused(&server, &login("hunter2", mechanism)).await;
            assert!(matches!(&failure, Failure::Unauthorized(text) if text.contains("saslPassword")), "{failure:?}");
        }
        let failure = refused(&server, &login("right", "PLAINTEXT")).await;
        assert!(matches!(&failure, Failure::Invalid(text) if text.contains("SCRAM-SHA-512")), "{failure:?}");
    });
}

#[test]
fn a_password_where_none_is_asked_for() {
    run(async {
        let server = Server::start(&[]).await;
        let failure = refused(&server, &login("hunter2", "PLAINTEXT")).await;
        assert!(matches!(&failure, Failure::Invalid(text) if text.contains("authType")), "{failure:?}");
    });
}

#[test]
fn an_invalid_setting() {
    run(async {
        let server = Server::start(&[]).await;
        let failure = refused(&server, &[("maxMessageBytes", "hunter2")]).await;
        assert!(matches!(&failure, Failure::Invalid(text) if text.contains("maxMessageBytes")), "{failure:?}");
    });
}

#[test]
fn a_broker_that_comes_later() {
    run(async {
        let server = Server::own(&["--partitions", "1"]).await;
        server.kill().await;
        let host = server.host();
        let (opened, ()) = tokio::join!(Bus::try_open(&host, "i", &[]), server.restart());
        let bus = opened.unwrap();
        bus.hears("trying", |status| matches!(status, Status::Connecting(why) if why.is_empty())).await;
        bus.hears("ready", |status| matches!(status, Status::Ready)).await;
        bus.adapter.ping().await.unwrap();
    });
}

#[test]
fn one_of_several_addresses_will_do() {
    run(async {
        let server = Server::start(&[]).await;
        let hosts = format!("127.0.0.1:1,{}", server.host());
        works_at(&hosts).await;
    });
}

async fn works_at(hosts: &str) {
    let bus = Bus::open(hosts, "i", &[]).await;
    bus.publish("orders", b"x").await.unwrap();
    bus.close().await;
}
