//! What breaks: the broker, the connection, other instances, this one.

use super::harness::*;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;
use whimbrel_sdk::{Adapter, Failure, SettleFailure, Status, Verdict};

const TYPES: [&str; 2] = ["classic", "quorum"];

#[test]
fn old_tokens_mean_nothing_after_a_reconnect() {
    run(async {
        for kind in TYPES {
            let proxy = Proxy::start(Broker::shared().port).await;
            let bus = open(&url(proxy.port), &[("queueType", kind)]).await;
            let topic = topic("stale");
            let inbox = bus.subscribe(&topic, "app", 50).await;
            bus.publish_numbers(&topic, 0..50).await;
            let old = inbox.take(50).await;
            proxy.cut();
            let new = inbox.take(50).await;
            assert!(new.iter().all(|delivery| delivery.count == Some(2)), "{:?}", new[0].count);
            assert_eq!(inbox.ack_all(&old).await, vec![Err(SettleFailure::Stale); 50]);
            assert_eq!(bus.adapter.stale_settlements(), 50);
            // Had one of them been sent, the broker would have closed the channel, or settled others.
            assert!(inbox.is_quiet().await);
            assert!(inbox.ack_all(&new).await.iter().all(Result::is_ok));
            bus.close().await;
            let client = Broker::shared().client().await;
            until("all is settled", async || client.ready(&format!("app-{topic}")).await == Some(0)).await;
        }
    });
}

/// A wait that the host asked for outlasts the connection, and so does the count.
#[test]
fn retries_outlast_a_reconnect() {
    run(async {
        for kind in TYPES {
            let proxy = Proxy::start(Broker::shared().port).await;
            let bus = open(&url(proxy.port), &[("queueType", kind)]).await;
            let topic = topic("patience");
            let inbox = bus.subscribe(&topic, "app", 50).await;
            bus.publish(&topic, b"1").await.unwrap();
            inbox.settle(inbox.next().await.token, retry(Duration::ZERO)).await.unwrap();
            let second = inbox.next().await;
            let (since, wait) = (Instant::now(), Duration::from_millis(2500));
            inbox.settle(second.token, retry(wait)).await.unwrap();
            proxy.cut();
            let again = inbox.next().await;
            assert!(since.elapsed() >= wait, "{:?}", since.elapsed());
            assert_eq!(again.count, Some(3));
            inbox.ack(&again).await;
        }
    });
}

#[test]
fn a_swallowed_confirm_is_unknown() {
    run(async {
        let client = Broker::shared().client().await;
        let proxy = Proxy::start(Broker::shared().port).await;
        let bus = open(&url(proxy.port), &[]).await;
        let topic = topic("confirm");
        let queue = client.listen(&topic).await;
        for number in [b"0", b"1"] {
            bus.publish(&topic, number).await.unwrap();
        }
        proxy.mute(true);
        let publishing = bus.publish(&topic, b"2");
        let cutting = async {
            until("the broker has it", async || client.ready(&queue).await == Some(3)).await;
            proxy.cut();
            proxy.mute(false);
        };
        let (result, ()) = tokio::join!(publishing, cutting);
        assert!(matches!(result, Err(Failure::Unknown(_))), "{result:?}");
        bus.publish(&topic, b"3").await.unwrap();
        assert_eq!(client.drain(&queue).await, [b"0", b"1", b"2", b"3"]);
    });
}

/// Cut in the middle of frames, wherever that is: what was confirmed is there, and everything goes on.
#[test]
fn cuts_at_any_byte() {
    run(async {
        let client = Broker::shared().client().await;
        let mut rng = fastrand::Rng::with_seed(11);
        let proxy = Proxy::start(Broker::shared().port).await;
        let bus = open(&url(proxy.port), &[]).await;
        let topic = topic("cuts");
        let queue = client.listen(&topic).await;
        let inbox = bus.subscribe(&topic, "app", 100).await;
        let (mut confirmed, mut seen) = (HashSet::new(), HashSet::new());
        for round in 0..25u32 {
            proxy.cut_after(rng.usize(1..600));
            for number in round * 10..round * 10 + 10 {
                if bus.publish(&topic, number.to_string().as_bytes()).await.is_ok() {
                    confirmed.insert(number);
                }
            }
            while let Some(delivery) = inbox.within(Duration::from_millis(5)).await {
                seen.insert(number(&delivery));
                // One that was on its way when the channel was lost may count or not: then the message may come again.
                inbox.settle(delivery.token, Verdict::Ack).await.ok();
            }
        }
        while !confirmed.is_subset(&seen) {
            let delivery = inbox.next().await;
            seen.insert(number(&delivery));
            inbox.settle(delivery.token, Verdict::Ack).await.ok();
        }
        // Without further cuts all is acknowledged, and nothing comes back.
        proxy.cut_after(usize::MAX);
        let own = format!("app-{topic}");
        until("the queue is empty", async || {
            inbox.ack_all(&inbox.rest().await).await;
            client.ready(&own).await == Some(0)
        })
        .await;
        bus.close().await;
        until("nothing comes back", async || client.ready(&own).await == Some(0)).await;
        let stored: HashSet<u32> =
            client.drain(&queue).await.iter().map(|data| std::str::from_utf8(data).unwrap().parse().unwrap()).collect();
        assert!(confirmed.is_subset(&stored), "confirmed and not stored");
        assert!(confirmed.len() > 100 && confirmed.len() < 250, "{} confirmed: this proves nothing", confirmed.len());
    });
}

/// What an instance held that died without a word goes to the next.
#[test]
fn what_a_dead_instance_held_goes_to_others() {
    for kind in TYPES {
        let topic = topic("dead");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let bus = shared(&[("queueType", kind)]).await;
            let inbox = bus.subscribe(&topic, "app", 100).await;
            bus.publish_numbers(&topic, 0..30).await;
            assert_eq!(inbox.take(30).await.len(), 30);
        });
        drop(runtime);
        run(async {
            let bus = shared(&[("queueType", kind)]).await;
            let inbox = bus.subscribe(&topic, "app", 7).await;
            let mut seen = HashSet::new();
            while seen.len() < 30 {
                let delivery = inbox.next().await;
                assert_eq!(delivery.count, Some(2), "{kind}");
                assert!(seen.insert(number(&delivery)));
                inbox.ack(&delivery).await;
            }
        });
    }
}

/// Publishes and consumes while something breaks again and again, and then compares.
async fn nothing_is_lost(broker: &Broker, url: &str, kind: &str, faults: u32, fault: impl AsyncFn(u32)) {
    let topic = topic("loss");
    let queue = broker.client().await.listen(&topic).await;
    let bus = open(url, &[("queueType", kind), ("heartBeat", "2s"), ("dialTimeout", "2s")]).await;
    let mut traffic = Traffic::start(bus, &topic, "app").await;
    for round in 0..faults {
        traffic.passes(500).await;
        fault(round).await;
    }
    traffic.arrives().await;
    let (client, own) = (broker.client().await, format!("app-{topic}"));
    until("the queue is empty", async || client.ready(&own).await == Some(0)).await;
    let account = traffic.end().await;
    until("nothing comes back", async || client.ready(&own).await == Some(0)).await;
    let stored = client.drain(&queue).await;
    account.compare(&stored.iter().map(|data| std::str::from_utf8(data).unwrap().parse().unwrap()).collect());
}

#[test]
fn nothing_is_lost_when_the_broker_is_killed_or_restarted() {
    run(async {
        let broker = Arc::new(Broker::start(&[]));
        for kind in TYPES {
            nothing_is_lost(&broker, &broker.url(), kind, 2, async |round| {
                // Not on this thread: what is in flight must be so when it happens.
                let broker = Arc::clone(&broker);
                let fault = move || {
                    if round % 2 == 0 {
                        broker.kill()
                    } else {
                        broker.stop()
                    }
                    broker.restart();
                };
                tokio::task::spawn_blocking(fault).await.unwrap();
            })
            .await;
        }
    });
}

#[test]
fn nothing_is_lost_when_connections_are_cut() {
    run(async {
        let broker = Broker::shared();
        for kind in TYPES {
            let proxy = Proxy::start(broker.port).await;
            nothing_is_lost(broker, &url(proxy.port), kind, 8, async |round| {
                // Every other time the answers are swallowed for a moment first.
                proxy.mute(round % 2 == 0);
                tokio::time::sleep(Duration::from_millis(u64::from(round))).await;
                proxy.cut();
                proxy.mute(false);
            })
            .await;
        }
    });
}

#[test]
fn news_tell_how_the_connection_stands() {
    run(async {
        let proxy = Proxy::start(Broker::shared().port).await;
        let bus = open(&url(proxy.port), &[]).await;
        bus.hears("ready", |status| matches!(status, Status::Ready)).await;
        proxy.cut();
        bus.hears("why", |status| matches!(status, Status::Connecting(why) if !why.is_empty())).await;
        bus.hears("ready again", |status| matches!(status, Status::Ready)).await;
        bus.adapter.ping().await.unwrap();
    });
}
