//! What breaks: the server, the connection, other instances, this one.

use super::harness::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;
use whimbrel_sdk::{Adapter, Failure, SettleFailure, Status, Verdict};

/// Leases that run out while a test waits.
const SHORT: [(&str, &str); 1] = [("ackWait", "1s")];

#[test]
fn what_a_dead_instance_held_goes_to_others() {
    let runtime = runtime();
    let server = runtime.block_on(Server::start());
    // It dies without a word: it holds these messages, and its connection closes.
    LocalSet::new().block_on(&runtime, async {
        let bus = open(&server.url(), &SHORT).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish_numbers("orders", 0..30).await;
        assert_eq!(inbox.take(30).await.len(), 30);
    });
    LocalSet::new().block_on(&runtime, async {
        let bus = open(&server.url(), &SHORT).await;
        let inbox = bus.subscribe("orders", "app", 7).await;
        let since = Instant::now();
        let mut seen = HashSet::new();
        while seen.len() < 30 {
            let delivery = inbox.next().await;
            assert_eq!(delivery.count, Some(2));
            assert!(seen.insert(number(&delivery)));
            inbox.ack(&delivery).await;
        }
        assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
        assert_eq!(server.unacked("orders", "app").await, 0);
    });
}

#[test]
fn old_tokens_mean_nothing_after_a_reconnect() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &SHORT).await;
        let inbox = bus.subscribe("orders", "app", 50).await;
        bus.publish_numbers("orders", 0..50).await;
        let old = inbox.take(50).await;
        proxy.cut();
        bus.is_away().await;
        bus.is_back().await;
        assert_eq!(inbox.ack_all(&old).await, vec![Err(SettleFailure::Stale); 50]);
        assert_eq!(bus.adapter.stale_settlements(), 50);
        let new = inbox.take(50).await;
        assert!(new.iter().all(|delivery| delivery.count == Some(2)), "{:?}", new[0].count);
        assert_eq!(server.unacked("orders", "app").await, 50);
        assert!(inbox.ack_all(&new).await.iter().all(Result::is_ok));
        assert_eq!(server.unacked("orders", "app").await, 0);
        assert!(inbox.is_quiet().await);
    });
}

/// A wait that the host asked for outlasts the connection.
#[test]
fn retries_outlast_a_reconnect() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &[]).await;
        let inbox = bus.subscribe("orders", "app", 50).await;
        bus.publish("orders", b"1").await.unwrap();
        let (since, wait) = (Instant::now(), Duration::from_millis(1500));
        inbox.settle(inbox.next().await.token, retry(wait)).await.unwrap();
        proxy.cut();
        let again = inbox.next().await;
        assert!(since.elapsed() >= wait, "{:?}", since.elapsed());
        assert_eq!(again.count, Some(2));
        inbox.ack(&again).await;
    });
}

#[test]
fn a_swallowed_confirm_is_unknown() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &[]).await;
        bus.publish("orders", b"1").await.unwrap();
        let event = br#"{"specversion":"1.0","id":"7","source":"a","type":"t"}"#;
        proxy.mute(true);
        let publishing = bus.publish("orders", event);
        let cutting = async {
            until("it is stored", async || server.stored("orders").await.len() == 2).await;
            proxy.cut();
            proxy.mute(false);
        };
        let (result, ()) = tokio::join!(publishing, cutting);
        assert!(matches!(result, Err(Failure::Unknown(_))), "{result:?}");
        // Whoever tries again stores it once.
        bus.publish("orders", event).await.unwrap();
        assert_eq!(server.stored("orders").await.len(), 2);
    });
}

#[test]
fn a_confirm_that_does_not_come_in_time_is_unknown() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &[]).await;
        bus.publish("orders", b"1").await.unwrap();
        proxy.mute(true);
        let since = Instant::now();
        let results = bus.adapter.publish(vec![message("orders", b"2")], Duration::from_millis(400)).await;
        assert!(matches!(results[..], [Err(Failure::Unknown(_))]), "{results:?}");
        assert!(since.elapsed() < Duration::from_secs(2));
    });
}

/// A connection that says nothing, and does not end either, is given up.
#[test]
fn a_silent_connection_is_made_anew() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &[("pingInterval", "200ms"), ("ackWait", "1s")]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish("orders", b"1").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        proxy.mute(true);
        bus.is_away().await;
        proxy.mute(false);
        bus.publish("orders", b"2").await.unwrap();
        assert_eq!(number(&inbox.next().await), 2);
    });
}

/// What is asked for while the connection is down is answered when it is back.
#[test]
fn a_lost_acknowledgement_is_told() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&through(&proxy), &[("requestTimeout", "500ms"), ("ackWait", "1s")]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish("orders", b"1").await.unwrap();
        let held = inbox.next().await;
        proxy.mute(true);
        let result = inbox.settle(held.token, Verdict::Ack).await;
        assert!(matches!(result, Err(SettleFailure::Failed(Failure::Unknown(_)))), "{result:?}");
        proxy.mute(false);
        assert_eq!(server.unacked("orders", "app").await, 0, "it was heard all the same");
        bus.publish("orders", b"2").await.unwrap();
        assert_eq!(number(&inbox.next().await), 2, "its credit is free again");
    });
}

#[test]
fn several_servers_are_tried_in_turn() {
    run(async {
        let (one, two) = (Server::start().await, Server::start().await);
        one.kill();
        let bus = open(&format!("{},{}", one.url(), two.url()), &[]).await;
        bus.publish("orders", b"2").await.unwrap();
        one.restart().await;
        two.kill();
        bus.hears("it is away", |status| matches!(status, Status::Connecting(why) if why.contains("lost"))).await;
        bus.publish("orders", b"1").await.unwrap();
        assert_eq!(one.stored("orders").await.len(), 1);
    });
}

/// A server that says it is about to shut down is left while there is another one.
#[test]
fn a_lame_duck_is_left() {
    run(async {
        let (one, two) =
            (Server::with("lame_duck_duration: 30s\nlame_duck_grace_period: 10s", "").await, Server::start().await);
        let urls = format!("{},{}", one.url(), two.url());
        let bus = open(&urls, &[("pingInterval", "200ms")]).await;
        bus.publish("orders", b"1").await.unwrap();
        one.signal(rustix::process::Signal::USR2);
        bus.is_away().await;
        bus.publish("orders", b"2").await.unwrap();
        assert_eq!(two.stored("orders").await.len(), 1);
    });
}

/// Publishes and consumes while something breaks again and again, and then compares.
async fn nothing_is_lost(server: &Server, url: &str, faults: u32, fault: impl AsyncFn(u32)) {
    let bus = open(url, &[("ackWait", "2s"), ("pingInterval", "500ms")]).await;
    let mut traffic = Traffic::start(bus, "orders", "app").await;
    for round in 0..faults {
        traffic.passes(400).await;
        fault(round).await;
    }
    traffic.arrives().await;
    until("nothing is pending", async || server.unacked("orders", "app").await == 0).await;
    let account = traffic.end().await;
    let stored = server.stored("orders").await;
    let stored: HashSet<u32> =
        stored.iter().map(|message| std::str::from_utf8(&message.payload).unwrap().parse().unwrap()).collect();
    account.compare(&stored);
    assert!(account.seen.borrow().is_subset(&stored), "delivered and never stored");
}

#[test]
fn nothing_is_lost_when_the_server_is_killed() {
    run(async {
        let server = Server::start().await;
        nothing_is_lost(&server, &server.url(), 4, async |_| {
            server.kill();
            server.restart().await;
        })
        .await;
    });
}

#[test]
fn nothing_is_lost_when_connections_are_cut() {
    run(async {
        let server = Server::start().await;
        let proxy = Proxy::start(server.port).await;
        nothing_is_lost(&server, &through(&proxy), 10, async |round| {
            // Every other time the answers are swallowed for a moment first.
            proxy.mute(round % 2 == 0);
            tokio::time::sleep(Duration::from_millis(u64::from(round))).await;
            proxy.cut();
            proxy.mute(false);
        })
        .await;
    });
}
