//! A broker that asks for permissions (ACLs): what each lacks, what is enough, and what is granted and taken away meanwhile.

use super::harness::*;
use super::oracle::{self, Grant};
use std::time::{Duration, Instant};
use whimbrel_sdk::Failure;
use whimbrel_sdk::testing::Proxy;

/// How long a refusal may take. The host waits 5 s for `open`, and longer for whatever comes after it.
const REFUSED_MAX: Duration = Duration::from_secs(5);

/// How long all of it may take. Most of that is the Python of who grants and reads.
const WHOLE_MAX: Duration = Duration::from_secs(300);

/// How often each refused thing is tried.
const TRIES: u32 = 3;

const READS: Grant<'_> = ("READ", "topic", "orders");
const WRITES: Grant<'_> = ("WRITE", "topic", "orders");
const JOINS: Grant<'_> = ("READ", "group", "app");

/// Exactly what the reference page asks for.
const ENOUGH: &[Grant<'_>] = &[WRITES, READS, JOINS];

/// The same for a topic that does not exist, and may be made.
const ENOUGH_TO_MAKE: &[Grant<'_>] =
    &[("CREATE", "topic", "made"), ("WRITE", "topic", "made"), ("READ", "topic", "made"), JOINS];

const ALL_BUT_CREATE: &[Grant<'_>] = &[("WRITE", "topic", "missing"), ("READ", "topic", "missing"), JOINS];

const DESCRIBES_GROUP: Grant<'_> = ("DESCRIBE", "group", "app");

/// One broker, for it takes its time to start. A proxy counts the connections, and loses answers.
async fn guarded() -> (Server, Proxy) {
    let (server, proxy) = Server::behind_proxy(&["--acls", "--sasl", "scram", "--auth", "kit:x"]).await;
    server.prepare("orders").await;
    oracle::allow(
        &server,
        &[
            ("nobody", &[]),
            ("reader", &[READS, JOINS]),
            ("writer", &[WRITES, JOINS]),
            ("loner", &[READS, WRITES]),
            ("watcher", &[READS, DESCRIBES_GROUP]),
            ("modest", ALL_BUT_CREATE),
            ("worker", ENOUGH),
            ("maker", ENOUGH_TO_MAKE),
        ],
    );
    (server, proxy)
}

async fn open_as(user: &str, proxy: &Proxy) -> Bus {
    let login = [
        ("authType", "password"),
        ("saslUsername", user),
        ("saslPassword", "x"),
        ("saslMechanism", "SHA-256"),
        ("disableTls", "true"),
    ];
    Bus::open(&proxy.host(), user, &login).await
}

/// What is tried.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Publish,
    Subscribe,
}

/// A user does something again and again: each time it hears in time what must be granted, and nothing runs hot.
async fn denied(proxy: &Proxy, user: &str, deed: Deed, topic: &str, says: &[&str]) {
    let bus = open_as(user, proxy).await;
    let before = proxy.accepted();
    for _ in 0..TRIES {
        let since = Instant::now();
        let refused = match deed {
            Deed::Publish => bus.publish(topic, b"x").await,
            Deed::Subscribe => bus.try_subscribe(topic, "app", 10, None).await.map(|_| ()),
        };
        let named = |text: &str| text.contains("saslUsername") && says.iter().all(|word| text.contains(word));
        let is_told = matches!(&refused, Err(Failure::Unauthorized(text)) if named(text));
        assert!(is_told, "{user}, {deed:?} {topic}: {refused:?}");
        assert!(since.elapsed() < REFUSED_MAX, "{user}, {deed:?} {topic}: {:?}", since.elapsed());
    }
    // A membership has a connection of its own.
    let made = proxy.accepted() - before;
    assert!(made <= TRIES + 1, "{user}, {deed:?} {topic}: {made} connections");
    bus.close().await;
}

async fn works(server: &Server, proxy: &Proxy, user: &str, topic: &str) {
    let bus = open_as(user, proxy).await;
    bus.publish(topic, b"x").await.unwrap();
    let inbox = bus.subscribe(topic, "app", 10).await;
    inbox.ack(&inbox.next().await).await;
    inbox.stop().await;
    assert_eq!(oracle::lag(server, topic, "app"), 0, "{user}");
    bus.close().await;
}

/// Publishes while answers are lost. True: it was tried again under its number, and is stored once.
async fn is_numbered(server: &Server, proxy: &Proxy, bus: &Bus, text: &str) -> bool {
    let copies = async || server.read("orders").await.iter().filter(|stored| stored.text() == text).count();
    // A connection is there, or nothing could be sent.
    bus.publish("orders", b"sound").await.unwrap();
    proxy.mute(true);
    let losing = async {
        while copies().await == 0 {}
        proxy.cut();
        proxy.mute(false);
    };
    let (result, ()) = tokio::join!(bus.publish("orders", text.as_bytes()), losing);
    assert_eq!(copies().await, 1, "{result:?}");
    assert!(matches!(result, Ok(()) | Err(Failure::Unknown(_))), "{result:?}");
    result.is_ok()
}

/// What was denied is granted while the component is open, without another start.
async fn granted_later(server: &Server, proxy: &Proxy) {
    let bus = open_as("reader", proxy).await;
    assert!(bus.publish("orders", b"x").await.is_err());
    oracle::allow(server, &[("reader", ENOUGH)]);
    bus.publish("orders", b"granted").await.unwrap();
    let mut tries = 0;
    let since = Instant::now();
    while !is_numbered(server, proxy, &bus, &format!("try {tries}")).await {
        tries += 1;
        assert!(since.elapsed() < SOON, "the messages are not numbered after {tries} tries");
    }
    bus.close().await;
}

/// A subscription outlasts a permission that is taken away and given back.
async fn taken_away(server: &Server, proxy: &Proxy) {
    let bus = open_as("worker", proxy).await;
    let inbox = bus.subscribe("orders", "app", 100).await;
    inbox.ack_all(&inbox.rest().await).await;
    oracle::allow(server, &[("worker", &[WRITES, JOINS])]);
    // What was asked for before still comes.
    inbox.rest().await;
    let before = proxy.accepted();
    bus.publish("orders", b"meanwhile").await.unwrap();
    assert!(inbox.is_quiet().await);
    oracle::allow(server, &[("worker", ENOUGH)]);
    assert_eq!(inbox.next().await.message.data, b"meanwhile");
    assert!(proxy.accepted() - before <= 2, "{} connections", proxy.accepted() - before);
    inbox.stop().await;
    bus.close().await;
}

#[test]
fn what_is_lacking_is_named_and_what_is_documented_is_enough() {
    run_within(WHOLE_MAX, async {
        let (server, proxy) = guarded().await;
        let topic = real("orders");
        for (user, deed, topic, says) in [
            ("nobody", Deed::Publish, "orders", &[topic.as_str(), "WRITE"][..]),
            ("nobody", Deed::Subscribe, "orders", &[&topic, "READ"]),
            ("reader", Deed::Publish, "orders", &[&topic, "WRITE on the topic"]),
            ("writer", Deed::Subscribe, "orders", &[&topic, "READ on the topic"]),
            ("loner", Deed::Subscribe, "orders", &[&real("app"), "READ on the group"]),
            ("watcher", Deed::Subscribe, "orders", &[&real("app"), "READ on the group"]),
            ("modest", Deed::Publish, "missing", &[&real("missing"), "does not exist", "CREATE"]),
            ("modest", Deed::Subscribe, "missing", &[&real("missing"), "does not exist", "CREATE"]),
        ] {
            denied(&proxy, user, deed, topic, says).await;
        }
        works(&server, &proxy, "worker", "orders").await;
        works(&server, &proxy, "maker", "made").await;
        // Nobody has IDEMPOTENT_WRITE: from Kafka 2.8 on, WRITE is enough.
        let bus = open_as("worker", &proxy).await;
        assert!(is_numbered(&server, &proxy, &bus, "numbered").await);
        bus.close().await;
        granted_later(&server, &proxy).await;
        taken_away(&server, &proxy).await;
    });
}
