//! Several members of one group: ours, and those of another client.

use super::consume::nanos;
use super::harness::*;
use super::oracle::{self, Foreigner};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::channel;
use whimbrel_sdk::{Delivery, SettleFailure, Verdict};

/// Takes and acknowledges, and writes down what it had, until it is told to end.
pub(crate) struct Worker {
    pub(crate) inbox: Rc<Inbox>,
    task: tokio::task::JoinHandle<()>,
}

/// Who had which message, in order.
pub(crate) type Log = Rc<RefCell<Vec<(&'static str, Delivery)>>>;

impl Worker {
    pub(crate) fn start(name: &'static str, inbox: Inbox, log: &Log) -> Self {
        let inbox = Rc::new(inbox);
        let (served, log) = (Rc::clone(&inbox), Rc::clone(log));
        let task = tokio::task::spawn_local(async move {
            loop {
                let list = served.list().await;
                // A short piece of work, so that there is always something in hand.
                tokio::time::sleep(Duration::from_millis(2)).await;
                let results = served.ack_all(&list).await;
                for (delivery, result) in list.into_iter().zip(results) {
                    if result.is_ok() {
                        log.borrow_mut().push((name, delivery));
                    }
                }
            }
        });
        Self { inbox, task }
    }

    /// It stops in good order.
    pub(crate) async fn leave(self) {
        self.inbox.stop().await;
        self.task.abort();
    }
}

pub(crate) fn numbers(log: &Log) -> BTreeSet<u32> {
    log.borrow().iter().map(|(_, delivery)| number(delivery)).collect()
}

/// How often a message was acknowledged that had been acknowledged before.
pub(crate) fn duplicates(log: &Log) -> usize {
    log.borrow().len() - numbers(log).len()
}

pub(crate) fn share(log: &Log, name: &str) -> usize {
    log.borrow().iter().filter(|(who, _)| *who == name).count()
}

#[test]
fn two_members_share_and_one_that_leaves_is_replaced_at_once() {
    run(async {
        let server = Server::start(&[]).await;
        let (one, two) = (Bus::open(&server.host(), "1", &[]).await, Bus::open(&server.host(), "2", &[]).await);
        let log = Log::default();
        let first = Worker::start("one", one.subscribe("orders", "app", 20).await, &log);
        let second = Worker::start("two", two.subscribe("orders", "app", 20).await, &log);
        one.publish_keyed("orders", 0..1000, 50).await;
        until("all is done", async || log.borrow().len() >= 1000).await;
        assert_eq!(duplicates(&log), 0);
        assert!(share(&log, "one") >= 100 && share(&log, "two") >= 100, "{}", share(&log, "one"));
        second.leave().await;
        let since = Instant::now();
        one.publish_keyed("orders", 1000..1100, 50).await;
        until("the other took over", async || numbers(&log).len() == 1100).await;
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        assert_eq!(duplicates(&log), 0);
        first.leave().await;
    });
}

#[test]
fn two_subscriptions_of_one_connection_share_a_topic() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let log = Log::default();
        let first = Worker::start("one", bus.subscribe("orders", "app", 20).await, &log);
        let second = Worker::start("two", bus.subscribe("orders", "app", 20).await, &log);
        bus.publish_keyed("orders", 0..400, 50).await;
        until("all is done", async || log.borrow().len() >= 400).await;
        assert_eq!((numbers(&log).len(), duplicates(&log)), (400, 0));
        assert!(share(&log, "one") > 0 && share(&log, "two") > 0);
        first.leave().await;
        second.leave().await;
    });
}

/// All topics of a group and connection are one member.
#[test]
fn many_topics_are_one_member() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let topics = ["a", "b", "c", "d", "e"];
        let since = Instant::now();
        let inboxes = futures::future::join_all(topics.iter().map(|topic| bus.subscribe(topic, "app", 10))).await;
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        assert_eq!(oracle::members(&server, "app"), 1);
        for (topic, inbox) in topics.iter().zip(&inboxes) {
            bus.publish_numbers(topic, 0..10).await;
            let taken = inbox.take(10).await;
            assert!(taken.iter().all(|delivery| delivery.message.topic == real(topic)));
            inbox.ack_all(&taken).await;
        }
        // One topic less does not disturb the others, and one more neither.
        let mut inboxes = inboxes.into_iter();
        inboxes.next().unwrap().stop().await;
        let rest: Vec<Inbox> = inboxes.collect();
        let more = bus.subscribe("f", "app", 10).await;
        for (topic, inbox) in topics[1..].iter().zip(&rest) {
            bus.publish_numbers(topic, 10..15).await;
            assert!(inbox.take(5).await.iter().all(|delivery| number(delivery) >= 10), "{topic}");
        }
        bus.publish_numbers("f", 0..5).await;
        assert_eq!(more.take(5).await.len(), 5);
    });
}

#[test]
fn every_strategy_shares_and_hands_over() {
    for strategy in ["cooperative-sticky", "range", "roundrobin", "sticky"] {
        run(async {
            let server = Server::start(&["--partitions", "6"]).await;
            let settings = [("consumerGroupRebalanceStrategy", strategy)];
            let (one, two) =
                (Bus::open(&server.host(), "1", &settings).await, Bus::open(&server.host(), "2", &settings).await);
            let log = Log::default();
            let first = Worker::start("one", one.subscribe("orders", "app", 20).await, &log);
            one.publish_keyed("orders", 0..200, 50).await;
            let second = Worker::start("two", two.subscribe("orders", "app", 20).await, &log);
            until("all is done", async || numbers(&log).len() == 200).await;
            let before = share(&log, "two");
            one.publish_keyed("orders", 200..600, 50).await;
            until("all is done", async || numbers(&log).len() == 600).await;
            assert!(share(&log, "two") - before >= 50, "{strategy}: {}", share(&log, "two") - before);
            first.leave().await;
            one.publish_keyed("orders", 600..700, 50).await;
            until("all is done", async || numbers(&log).len() == 700).await;
            assert!(duplicates(&log) <= 20, "{strategy}: {}", duplicates(&log));
            second.leave().await;
        });
    }
}

#[test]
fn members_come_and_go_under_load_and_nothing_is_lost_or_out_of_order() {
    run(async {
        let server = Server::start(&["--partitions", "8"]).await;
        let stays = Bus::open(&server.host(), "stays", &[]).await;
        let log = Log::default();
        let worker = Worker::start("stays", stays.subscribe("orders", "app", 30).await, &log);
        let publisher = Bus::open(&server.host(), "publisher", &[]).await;
        let publishing = async {
            for begin in (0..6000).step_by(50) {
                publisher.publish_keyed("orders", begin..begin + 50, 100).await;
                tokio::time::sleep(Duration::from_millis(80)).await;
            }
        };
        let joining = async {
            for guest in ["one", "two", "three", "four"] {
                let bus = Bus::open(&server.host(), guest, &[]).await;
                let worker = Worker::start(guest, bus.subscribe("orders", "app", 30).await, &log);
                tokio::time::sleep(Duration::from_millis(1200)).await;
                worker.leave().await;
                bus.close().await;
            }
        };
        tokio::join!(publishing, joining);
        until("all is done", async || numbers(&log).len() == 6000).await;
        assert_eq!(duplicates(&log), 0, "everybody left in good order");
        let mut last: BTreeMap<Option<String>, u32> = BTreeMap::new();
        for (who, delivery) in log.borrow().iter() {
            let number = number(delivery);
            let before = last.insert(delivery.message.key.clone(), number);
            assert!(before.is_none_or(|before| before < number), "{who}: {number} after {before:?}");
        }
        for guest in ["one", "two", "three", "four"] {
            assert!(share(&log, guest) > 0, "{guest} had nothing to do");
        }
        worker.leave().await;
    });
}

/// Dapr's issue 4580: a message that fails again and again kept a group from being rebalanced for hours.
#[test]
fn a_message_that_is_retried_does_not_hold_up_the_group() {
    run(async {
        let server = Server::start(&[]).await;
        let (one, two) = (Bus::open(&server.host(), "1", &[]).await, Bus::open(&server.host(), "2", &[]).await);
        let first = one.subscribe("orders", "app", 100).await;
        one.publish_keyed("orders", 0..100, 50).await;
        for delivery in first.take(100).await {
            let long = Verdict::Retry(nanos(Duration::from_secs(3600)));
            let verdict = if number(&delivery).is_multiple_of(10) { long } else { Verdict::Ack };
            first.settle(delivery.token, verdict).await.unwrap();
        }
        let since = Instant::now();
        let second = two.subscribe("orders", "app", 100).await;
        // Its part of what is retried comes to the other one, and nothing that was acknowledged.
        let delivery = second.next().await;
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        assert_eq!(number(&delivery) % 10, 0);
        while let Some(delivery) = second.within(A_WHILE).await {
            assert_eq!(number(&delivery) % 10, 0);
        }
        one.close().await;
        let mut rest = 0;
        while rest < 10 {
            let Some(delivery) = second.within(Duration::from_secs(5)).await else { break };
            assert_eq!(number(&delivery) % 10, 0);
            rest += 1;
        }
        assert!(rest > 0, "what the first one kept comes to the second one, too");
    });
}

/// Where a partition moves while everybody reads on, it waits for what is in hand; others join meanwhile, and are held up
/// by nothing.
#[test]
fn what_a_member_holds_stays_its_own_until_it_is_settled() {
    run(async {
        let server = Server::start(&["--partitions", "6"]).await;
        let (one, two, three) = (
            Bus::open(&server.host(), "1", &[]).await,
            Bus::open(&server.host(), "2", &[]).await,
            Bus::open(&server.host(), "3", &[]).await,
        );
        let log = Log::default();
        let first = one.subscribe("orders", "app", 100).await;
        one.publish_keyed("orders", 0..100, 50).await;
        let held = first.take(100).await;
        let second = two.subscribe("orders", "app", 20).await;
        let third = three.subscribe("orders", "app", 20).await;
        until("all three are members", async || oracle::members(&server, "app") == 3).await;
        assert_eq!((second.rest().await.len(), third.rest().await.len()), (0, 0));
        let results = first.ack_all(&held).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(one.adapter.stale_settlements(), 0);
        let workers = [("one", first), ("two", second), ("three", third)];
        let workers = workers.map(|(name, inbox)| Worker::start(name, inbox, &log));
        let (mut sent, give_up) = (100, Instant::now() + SOON);
        while share(&log, "two") == 0 || share(&log, "three") == 0 {
            assert!(Instant::now() < give_up, "the others never got their partitions");
            one.publish_keyed("orders", sent..sent + 50, 50).await;
            sent += 50;
            until("all is done", async || numbers(&log).len() as u32 == sent - 100).await;
        }
        assert_eq!(duplicates(&log), 0);
        for worker in workers {
            worker.leave().await;
        }
    });
}

/// Where everybody stands still for a rebalance, what is in hand is not waited for without end.
#[test]
fn what_a_member_holds_too_long_is_given_up_and_its_tokens_are_stale() {
    run(async {
        let server = Server::start(&[]).await;
        let eager = [("consumerGroupRebalanceStrategy", "range")];
        let (one, two) = (Bus::open(&server.host(), "1", &eager).await, Bus::open(&server.host(), "2", &eager).await);
        let first = one.subscribe("orders", "app", 100).await;
        one.publish_keyed("orders", 0..100, 50).await;
        let held = first.take(100).await;
        let second = two.subscribe("orders", "app", 100).await;
        let moved = second.next().await;
        let moved: BTreeSet<u32> = std::iter::once(moved).chain(second.rest().await).map(|one| number(&one)).collect();
        // It gave up all of it, and what was not moved came to it again.
        let results = first.ack_all(&held).await;
        assert!(results.iter().all(|result| *result == Err(SettleFailure::Stale)), "{results:?}");
        assert_eq!(one.adapter.stale_settlements(), 100);
        assert!(moved.len() < 100 && !moved.is_empty());
        let back: BTreeSet<u32> = first.take(100 - moved.len()).await.iter().map(number).collect();
        assert!(back.is_disjoint(&moved));
    });
}

/// Reads on what the other client says, in the background. What it got.
fn listen(foreigner: &mut Foreigner) -> Rc<RefCell<BTreeSet<u32>>> {
    let got: Rc<RefCell<BTreeSet<u32>>> = Rc::default();
    let (seen, mut lines) = (Rc::clone(&got), std::mem::replace(&mut foreigner.lines, channel(1).1));
    tokio::task::spawn_local(async move {
        while let Some(line) = lines.recv().await {
            if let Some(number) = line.strip_prefix("got ") {
                seen.borrow_mut().insert(number.parse().unwrap());
            }
        }
    });
    got
}

/// As Dapr's component does (`range`), and the ways in which librdkafka shares.
#[test]
fn a_group_is_shared_with_another_client() {
    for strategy in ["range", "roundrobin", "cooperative-sticky"] {
        run(shared_with_another_client(strategy));
    }
}

async fn shared_with_another_client(strategy: &str) {
    let server = Server::start(&["--partitions", "6"]).await;
    let bus = Bus::open(&server.host(), "i", &[]).await;
    let log = Log::default();
    let worker = Worker::start("ours", bus.subscribe("orders", "app", 20).await, &log);
    bus.publish_keyed("orders", 0..100, 50).await;
    until("ours alone", async || numbers(&log).len() == 100).await;
    let mut foreigner = Foreigner::join(&server, "orders", "app", strategy);
    let assigned = async {
        while let Some(line) = foreigner.lines.recv().await {
            // With the cooperative one, it gets nothing at first.
            if line.starts_with("assigned ") && line != "assigned 0" {
                return line;
            }
        }
        panic!("{strategy}: the other client has ended");
    };
    let assigned = tokio::time::timeout(SOON, assigned).await.expect("the other client gets no partitions");
    assert_eq!(assigned, "assigned 3", "{strategy}");
    let theirs = listen(&mut foreigner);
    bus.publish_keyed("orders", 100..400, 50).await;
    let all = || numbers(&log).union(&theirs.borrow()).count();
    until("both together", async || all() == 400).await;
    assert!(theirs.borrow().len() > 50, "{strategy}: the other client got {}", theirs.borrow().len());
    let both = numbers(&log).intersection(&theirs.borrow()).count();
    assert!(both <= 20, "{strategy}: {both} came to both");
    // It dies, and ours goes on where it was.
    foreigner.kill();
    bus.publish_keyed("orders", 400..500, 50).await;
    until("ours alone again", async || all() == 500).await;
    let both = numbers(&log).intersection(&theirs.borrow()).count();
    assert!(both <= 21, "{strategy}: {both} came to both");
    worker.leave().await;
}
