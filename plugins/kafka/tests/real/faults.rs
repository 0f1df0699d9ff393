//! What breaks: the broker, the connection, other instances, this one.

use super::consume::nanos;
use super::groups::{Log, Worker, duplicates, numbers};
use super::harness::*;
use super::load::{Load, ledger};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;
use whimbrel_sdk::{SettleFailure, Status, Verdict};

/// An event loop of its own, for somebody who dies with it.
fn alone<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, life)
}

#[test]
fn what_a_dead_member_held_comes_to_another_and_what_it_acknowledged_does_not() {
    let server = alone(Server::start(&[]));
    let host = server.host();
    let held: BTreeSet<u32> = alone(async {
        let bus = Bus::open(&host, "dead", &[]).await;
        let inbox = bus.subscribe("orders", "app", 100).await;
        bus.publish_numbers("orders", 0..100).await;
        let taken = inbox.take(100).await;
        // Of each partition the first ones: of what is acknowledged beyond a hole the broker may not know yet.
        let mut open = BTreeSet::new();
        for delivery in &taken {
            if number(delivery).is_multiple_of(2) && open.insert(metadata(delivery, "__partition").to_owned()) {
                continue;
            }
        }
        let (acked, kept): (Vec<_>, Vec<_>) = taken.into_iter().partition(|one| offset(one) < 10);
        assert!(inbox.ack_all(&acked).await.iter().all(Result::is_ok));
        kept.iter().map(number).collect()
    });
    run(async {
        let bus = Bus::open(&host, "alive", &[]).await;
        let since = Instant::now();
        let inbox = bus.subscribe("orders", "app", 100).await;
        let again: BTreeSet<u32> = inbox.take(held.len()).await.iter().map(number).collect();
        // The dead one's session runs out first.
        assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
        assert_eq!(again, held);
        assert!(inbox.is_quiet().await);
    });
}

#[test]
fn a_broker_that_is_killed_under_load_costs_no_message() {
    run(async {
        let server = Server::own(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let log = Log::default();
        let worker = Worker::start("one", bus.subscribe("orders", "app", 30).await, &log);
        bus.publish_numbers("orders", 0..500).await;
        until("some are done", async || log.borrow().len() > 100).await;
        server.kill().await;
        bus.hears("trouble", |status| matches!(status, Status::Connecting(_))).await;
        server.restart().await;
        bus.hears("recovery", |status| matches!(status, Status::Ready)).await;
        bus.publish_numbers("orders", 500..600).await;
        until("all is done", async || numbers(&log).len() == 600).await;
        assert!(duplicates(&log) <= 60, "{}", duplicates(&log));
        worker.leave().await;
    });
}

/// Three brokers start again in this one, each in turn.
const TURNS_MAX: Duration = Duration::from_secs(400);

/// Each of three brokers is killed and comes back, and the next one goes, while messages are published and read: what was
/// confirmed is there once, in order, and arrives.
#[test]
fn three_brokers_that_die_in_turn_under_load_cost_no_message() {
    run_within(TURNS_MAX, async {
        let server = Server::own(&["--nodes", "3", "--partitions", "6"]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let (log, load) = (Log::default(), Load::default());
        let worker = Worker::start("one", bus.subscribe("orders", "app", 30).await, &log);
        let killing = async {
            for node in 1..=3 {
                load.goes_on(200).await;
                server.kill_node(node).await;
                load.goes_on(200).await;
                server.restart().await;
            }
            load.goes_on(200).await;
            load.end();
        };
        tokio::join!(load.run(&bus, "orders"), killing);
        assert_eq!(ledger(&server.read("orders").await), (load.numbers(), 0, true));
        until_within(TURNS_MAX, "all is done", async || numbers(&log) == load.numbers()).await;
        // What was on its way to be committed, at each death.
        assert!(duplicates(&log) <= 300, "{}", duplicates(&log));
        worker.leave().await;
    });
}

#[test]
fn connections_that_are_cut_cost_no_message() {
    run(async {
        let (server, proxy) = Server::behind_proxy(&[]).await;
        let bus = Bus::open(&proxy.host(), "i", &[]).await;
        let log = Log::default();
        let worker = Worker::start("one", bus.subscribe("orders", "app", 30).await, &log);
        let elsewhere = Bus::open(&server.internal(), "publisher", &[]).await;
        for round in 0..10 {
            elsewhere.publish_numbers("orders", round * 100..(round + 1) * 100).await;
            until("some are done", async || log.borrow().len() > round as usize * 100).await;
            proxy.cut();
        }
        until("all is done", async || numbers(&log).len() == 1000).await;
        assert!(duplicates(&log) <= 300, "{}", duplicates(&log));
        worker.leave().await;
    });
}

/// The membership outlasts the connection, and so do its tokens: nothing is delivered twice because of a cut.
#[test]
fn a_cut_that_is_mended_in_time_voids_no_token() {
    run(async {
        let (_server, proxy) = Server::behind_proxy(&[]).await;
        let bus = Bus::open(&proxy.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 50).await;
        bus.publish_numbers("orders", 0..50).await;
        let held = inbox.take(50).await;
        proxy.cut();
        let results = inbox.ack_all(&held).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert!(inbox.is_quiet().await);
        inbox.stop().await;
        let inbox = bus.subscribe("orders", "app", 50).await;
        assert!(inbox.is_quiet().await);
    });
}

/// A member that the group has given up for dead notices when it comes back: its tokens mean nothing, and what they
/// stood for comes again.
#[test]
fn a_member_that_was_given_up_begins_anew() {
    run(async {
        let (server, proxy) = Server::behind_proxy(&[]).await;
        let bus = Bus::open(&proxy.host(), "slow", &[]).await;
        let other = Bus::open(&server.internal(), "other", &[]).await;
        let inbox = bus.subscribe("orders", "app", 50).await;
        other.publish_numbers("orders", 0..50).await;
        let held = inbox.take(50).await;
        proxy.refuse(true);
        proxy.cut();
        let others = other.subscribe("orders", "app", 50).await;
        let taken = others.take(50).await;
        proxy.refuse(false);
        assert!(others.ack_all(&taken).await.iter().all(Result::is_ok));
        let results = inbox.ack_all(&held).await;
        assert_eq!(results, vec![Err(SettleFailure::Stale); 50]);
        other.publish_keyed("orders", 100..200, 50).await;
        // It is a member again, and both get their part.
        assert!(number(&inbox.next().await) >= 100);
        assert!(number(&others.next().await) >= 100);
    });
}

#[test]
fn a_retry_outlasts_a_cut() {
    run(async {
        let (_server, proxy) = Server::behind_proxy(&[]).await;
        let bus = Bus::open(&proxy.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 5).await;
        bus.publish_numbers("orders", 0..1).await;
        let wait = Duration::from_millis(1500);
        let since = Instant::now();
        inbox.settle(inbox.next().await.token, Verdict::Retry(nanos(wait))).await.unwrap();
        proxy.cut();
        let again = inbox.next().await;
        assert!(since.elapsed() >= wait, "{:?}", since.elapsed());
        assert_eq!(again.count, Some(2));
        inbox.ack(&again).await;
    });
}

#[test]
fn a_frozen_broker_holds_up_settling_for_a_while_and_no_longer() {
    run(async {
        let server = Server::own(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish_numbers("orders", 0..10).await;
        let held = inbox.take(10).await;
        server.freeze(true).await;
        let since = Instant::now();
        let results = inbox.ack_all(&held).await;
        assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
        assert!(results.iter().any(|result| matches!(result, Err(SettleFailure::Failed(_)))), "{results:?}");
        server.freeze(false).await;
        bus.publish_numbers("orders", 10..20).await;
        let mut seen = BTreeSet::new();
        while !(10..20).all(|number| seen.contains(&number)) {
            let delivery = inbox.next().await;
            seen.insert(number(&delivery));
            inbox.ack(&delivery).await;
        }
    });
}

/// Two live on while a third is killed again and again.
#[test]
fn many_kills_lose_nothing() {
    let server = alone(Server::start(&["--partitions", "6"]));
    let host = server.host();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let victim = {
        let host = host.clone();
        std::thread::spawn(move || {
            let mut kills = 0;
            while stopped.try_recv().is_err() {
                kills += 1;
                alone(async {
                    let bus =
                        Bus::open(&host, "victim", &[("sessionTimeout", "1s"), ("heartbeatInterval", "200ms")]).await;
                    let inbox = bus.subscribe("orders", "app", 20).await;
                    // It dies with messages in hand, acknowledged or not.
                    let until = Instant::now() + Duration::from_millis(700);
                    while Instant::now() < until {
                        if let Some(delivery) = inbox.within(Duration::from_millis(100)).await
                            && number(&delivery).is_multiple_of(2)
                        {
                            break;
                        }
                    }
                });
            }
            kills
        })
    };
    run(async {
        let settings = [("sessionTimeout", "1s"), ("heartbeatInterval", "200ms")];
        let (one, two) = (Bus::open(&host, "1", &settings).await, Bus::open(&host, "2", &settings).await);
        let log = Log::default();
        let first = Worker::start("one", one.subscribe("orders", "app", 30).await, &log);
        let second = Worker::start("two", two.subscribe("orders", "app", 30).await, &log);
        for begin in (0..4000).step_by(20) {
            one.publish_keyed("orders", begin..begin + 20, 100).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.send(()).unwrap();
        until_within(Duration::from_secs(40), "all is done", async || numbers(&log).len() == 4000).await;
        first.leave().await;
        second.leave().await;
    });
    let kills = victim.join().unwrap();
    assert!(kills >= 4, "only {kills} were killed");
}
