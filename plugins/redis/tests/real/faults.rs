//! What breaks: the server, the connection, other instances, this one.

use super::harness::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;
use whimbrel_sdk::{Adapter, Failure, SettleFailure, Status, Verdict};

/// Leases that run out while a test waits.
const SHORT: [(&str, &str); 2] = [("processingTimeout", "1s"), ("redeliverInterval", "200ms")];

/// What an instance leaves behind that dies without a word: it holds these messages, and its connections close.
fn die_holding(server: &Server, instance: &str, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let host = server.host();
    LocalSet::new().block_on(&runtime, async {
        let bus = open(&host, instance, &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish_numbers("orders", 0..u32::try_from(count).unwrap()).await;
        assert_eq!(inbox.take(count).await.len(), count);
    });
}

#[test]
fn the_same_instance_takes_up_what_it_held() {
    let (server, runtime) = outside();
    die_holding(&server, "i", 30);
    LocalSet::new().block_on(&runtime, async {
        let bus = open(&server.host(), "i", &[]).await;
        // Less credit than is pending: the rest comes as credit comes back, and nothing new before it.
        let inbox = bus.subscribe("orders", "app", 7).await;
        bus.publish_numbers("orders", 30..40).await;
        let mut seen = Vec::new();
        while seen.len() < 40 {
            let delivery = inbox.next().await;
            let expected = if seen.len() < 30 { 2 } else { 1 };
            assert_eq!(delivery.count, Some(expected));
            seen.push(number(&delivery));
            inbox.ack(&delivery).await;
        }
        assert!(seen.iter().copied().eq(0..40), "{seen:?}");
        assert_eq!(server.pending("orders", "app"), 0);
    });
}

/// A server whose test needs several event loops, one after the other.
fn outside() -> (Server, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    (runtime.block_on(Server::start(&[])), runtime)
}

#[test]
fn what_a_dead_instance_held_is_claimed() {
    let (server, runtime) = outside();
    die_holding(&server, "dead", 30);
    LocalSet::new().block_on(&runtime, async {
        let bus = open(&server.host(), "alive", &SHORT).await;
        let inbox = bus.subscribe("orders", "app", 7).await;
        let mut seen = HashSet::new();
        while seen.len() < 30 {
            let delivery = inbox.next().await;
            assert_eq!(delivery.count, Some(2));
            assert!(seen.insert(number(&delivery)));
            inbox.ack(&delivery).await;
        }
        assert_eq!(server.pending("orders", "app"), 0);
    });
}

#[test]
fn a_long_handler_keeps_its_message() {
    run(async {
        let server = Server::start(&[]).await;
        let busy = open(&server.host(), "busy", &SHORT).await;
        let other = open(&server.host(), "other", &SHORT).await;
        let inbox = busy.subscribe("orders", "app", 10).await;
        busy.publish_numbers("orders", 0..3).await;
        let held = inbox.take(3).await;
        // One of them waits for another attempt: its lease is kept, too.
        let long = u64::try_from(Duration::from_secs(3600).as_nanos()).unwrap();
        inbox.settle(held[2].token, Verdict::Retry(long)).await.unwrap();
        let others = other.subscribe("orders", "app", 10).await;
        assert!(others.within(Duration::from_secs(3)).await.is_none(), "the lease ran out");
        assert!(inbox.ack_all(&held[..2]).await.iter().all(Result::is_ok));
        assert_eq!(server.pending("orders", "app"), 1);
    });
}

#[test]
fn old_tokens_mean_nothing_after_a_reconnect() {
    run(async {
        let server = Server::start(&[]).await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&proxy.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 50).await;
        bus.publish_numbers("orders", 0..50).await;
        let old = inbox.take(50).await;
        proxy.cut();
        let new = inbox.take(50).await;
        assert!(new.iter().all(|delivery| delivery.count == Some(2)), "{:?}", new[0].count);
        assert_eq!(inbox.ack_all(&old).await, vec![Err(SettleFailure::Stale); 50]);
        assert_eq!(bus.adapter.stale_settlements(), 50);
        assert_eq!(server.pending("orders", "app"), 50);
        assert!(inbox.ack_all(&new).await.iter().all(Result::is_ok));
        assert_eq!(server.pending("orders", "app"), 0);
        assert!(inbox.is_quiet().await);
    });
}

/// A wait that the host asked for outlasts the connection.
#[test]
fn retries_outlast_a_reconnect() {
    run(async {
        let server = Server::start(&[]).await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&proxy.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 50).await;
        bus.publish("orders", b"1").await.unwrap();
        let since = Instant::now();
        let wait = Duration::from_millis(1500);
        let verdict = Verdict::Retry(u64::try_from(wait.as_nanos()).unwrap());
        inbox.settle(inbox.next().await.token, verdict).await.unwrap();
        proxy.cut();
        bus.adapter.ping().await.ok();
        let again = inbox.next().await;
        assert!(since.elapsed() >= wait, "{:?}", since.elapsed());
        assert_eq!(again.count, Some(2));
        inbox.ack(&again).await;
    });
}

#[test]
fn a_swallowed_confirm_is_unknown() {
    run(async {
        let server = Server::start(&[]).await;
        let proxy = Proxy::start(server.port).await;
        let bus = open(&proxy.host(), "i", &[]).await;
        bus.publish("orders", b"1").await.unwrap();
        proxy.mute(true);
        let publishing = bus.publish("orders", b"2");
        let cutting = async {
            until("the server has it", async || server.ask::<u64>("XLEN orders") == 2).await;
            proxy.cut();
            proxy.mute(false);
        };
        let (result, ()) = tokio::join!(publishing, cutting);
        assert!(matches!(result, Err(Failure::Unknown(_))), "{result:?}");
        bus.publish("orders", b"3").await.unwrap();
        assert_eq!(server.ask::<u64>("XLEN orders"), 3);
    });
}

#[test]
fn a_server_that_hangs_is_left() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[("readTimeout", "300ms"), ("dialTimeout", "300ms")]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish("orders", b"1").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        server.freeze(true);
        let since = Instant::now();
        let result = bus.publish("orders", b"2").await;
        assert!(matches!(result, Err(Failure::Unknown(_))), "{result:?}");
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        server.freeze(false);
        bus.publish("orders", b"3").await.unwrap();
        let mut seen = HashSet::new();
        while !seen.contains(&3) {
            let delivery = inbox.next().await;
            seen.insert(number(&delivery));
            // A token may have become stale meanwhile; the message comes again then.
            inbox.settle(delivery.token, Verdict::Ack).await.ok();
        }
    });
}

#[test]
fn a_deleted_stream_begins_again() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[("readTimeout", "300ms")]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        let bystander = bus.subscribe("other", "app", 10).await;
        bus.publish("orders", b"1").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        let check = async |command: &str, expected: &[u32]| {
            server.ask::<u64>(command);
            bus.publish("orders", b"2").await.unwrap();
            for expected in expected {
                let delivery = inbox.next().await;
                assert_eq!(number(&delivery), *expected, "{command}");
                inbox.ack(&delivery).await;
            }
            bus.hears("data loss", |status| matches!(status, Status::DataLoss(text) if text.contains("orders"))).await;
        };
        check("DEL orders", &[2]).await;
        // The group begins at the oldest message, for nobody knows any more what was acknowledged.
        check("XGROUP DESTROY orders app", &[2, 2]).await;
        bus.publish("other", b"7").await.unwrap();
        assert_eq!(number(&bystander.next().await), 7);
    });
}

#[test]
fn a_stream_that_becomes_something_else_ends_its_subscription_only() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = open(&server.host(), "i", &[("readTimeout", "300ms")]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        let bystander = bus.subscribe("other", "app", 10).await;
        server.ask::<u64>("DEL orders");
        until("the key is a text", async || {
            server.ask::<()>("SET orders x");
            server.ask::<String>("TYPE orders") == "string"
        })
        .await;
        let reason = inbox.why_ended().await;
        assert!(matches!(&reason, Failure::Permanent(text) if text.contains("orders")), "{reason:?}");
        bus.publish("other", b"7").await.unwrap();
        assert_eq!(number(&bystander.next().await), 7);
        let again = bus.try_subscribe("orders", "app", options(10)).await.err();
        assert!(matches!(again, Some(Failure::Permanent(_))), "{again:?}");
    });
}

#[test]
fn what_was_deleted_while_pending_is_let_go_and_told() {
    let (server, runtime) = outside();
    die_holding(&server, "i", 3);
    let entries: Vec<(String, Vec<String>)> = server.ask("XRANGE orders - +");
    server.ask::<u64>(&format!("XDEL orders {} {}", entries[0].0, entries[1].0));
    LocalSet::new().block_on(&runtime, async {
        let bus = open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        assert_eq!(number(&inbox.next().await), 2);
        bus.hears("data loss", |status| matches!(status, Status::DataLoss(text) if text.contains("2 messages"))).await;
        until("they are let go", async || server.pending("orders", "app") == 1).await;
        // The same for one that waits for another attempt.
        bus.publish("orders", b"9").await.unwrap();
        let held = inbox.next().await;
        inbox.settle(held.token, Verdict::Retry(300_000_000)).await.unwrap();
        server.ask::<u64>(&format!("XDEL orders {}", held.id));
        bus.hears("data loss", |status| matches!(status, Status::DataLoss(text) if text.contains("1 messages"))).await;
        until("it is let go", async || server.pending("orders", "app") == 1).await;
    });
}

/// Publishes and consumes while something breaks again and again, and then compares.
async fn nothing_is_lost(server: &Server, host: &str, faults: u32, fault: impl AsyncFn(u32)) {
    let settings = [("readTimeout", "500ms"), ("processingTimeout", "2s"), ("redeliverInterval", "300ms")];
    let mut traffic = Traffic::start(open(host, "i", &settings).await, "orders", "app").await;
    for round in 0..faults {
        traffic.passes(1000).await;
        fault(round).await;
    }
    traffic.arrives().await;
    until("nothing is pending", async || server.pending("orders", "app") == 0).await;
    let account = traffic.end().await;
    let stored: Vec<(String, Vec<String>)> = server.ask("XRANGE orders - +");
    let stored: HashSet<u32> = stored.iter().map(|(_, fields)| fields[1].parse().unwrap()).collect();
    account.compare(&stored);
    assert!(account.seen.borrow().is_subset(&stored), "delivered and never stored");
}

#[test]
fn nothing_is_lost_when_the_server_is_killed() {
    run(async {
        let server = Server::start(&[]).await;
        nothing_is_lost(&server, &server.host(), 4, async |_| {
            server.kill();
            server.restart().await;
        })
        .await;
    });
}

#[test]
fn nothing_is_lost_when_connections_are_cut() {
    run(async {
        let server = Server::start(&[]).await;
        let proxy = Proxy::start(server.port).await;
        nothing_is_lost(&server, &proxy.host(), 10, async |round| {
            // Every other time the answers are swallowed for a moment first.
            proxy.mute(round % 2 == 0);
            tokio::time::sleep(Duration::from_millis(u64::from(round))).await;
            proxy.cut();
            proxy.mute(false);
        })
        .await;
    });
}
