use super::*;
use futures::channel::mpsc::Receiver;
use futures::{FutureExt, StreamExt};
use std::future::Future;
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

const LONG: Duration = Duration::from_secs(60);

/// Turns of the executor after which nothing more happens by itself.
const SETTLED_TURNS: usize = 50;

/// One bus, on a paused clock: time passes only when everybody waits.
fn run<F: Future<Output = ()>>(case: impl FnOnce(Rc<Bus>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(LocalSet::new().run_until(case(Rc::default())));
}

async fn quiet() {
    for _ in 0..SETTLED_TURNS {
        yield_now().await;
    }
}

struct Sub {
    live: Option<Live>,
    lists: Receiver<Vec<Delivery>>,
}

fn subscribe(bus: &Bus, topic: &str) -> Sub {
    let (sink, lists, _) = DeliverySink::channel();
    Sub { live: Some(bus.subscribe(topic.into(), sink).expect(topic)), lists }
}

impl Sub {
    /// What arrived by now, as its text; `None` if nothing.
    async fn arrived(&mut self) -> Option<(u64, String)> {
        quiet().await;
        let mut list = self.lists.next().now_or_never()??;
        let delivery = list.pop().filter(|_| list.is_empty()).expect("lists of one");
        Some((delivery.token, String::from_utf8(delivery.message.data).expect("text")))
    }

    /// The text of what arrived; `-` if nothing.
    async fn text(&mut self) -> String {
        self.arrived().await.map_or_else(|| "-".into(), |(_, text)| text)
    }

    fn settle(&self, token: u64, verdict: Verdict) -> Result<(), SettleFailure> {
        self.live.as_ref().expect("live").settle(vec![Settlement { token, verdict }]).remove(0)
    }

    /// Handles what arrived: its text, acknowledged.
    async fn handle(&mut self) -> String {
        let Some((token, text)) = self.arrived().await else { return "-".into() };
        assert_eq!(self.settle(token, Verdict::Ack), Ok(()));
        text
    }

    fn stop(&mut self) {
        self.live.take().expect("live").stop();
    }
}

fn message(topic: &str, text: &str) -> Message {
    Message { topic: topic.into(), key: None, data: text.into(), metadata: vec![("a".into(), text.into())] }
}

type Publishing = JoinHandle<Vec<Result<(), Failure>>>;

/// Publishes the words of a text, in one call.
fn publish_within(bus: &Rc<Bus>, topic: &str, words: &str, deadline: Duration) -> Publishing {
    let messages = words.split(' ').map(|word| message(topic, word)).collect();
    let bus = Rc::clone(bus);
    spawn_local(async move { bus.publish(messages, deadline).await })
}

fn publish(bus: &Rc<Bus>, topic: &str, words: &str) -> Publishing {
    publish_within(bus, topic, words, LONG)
}

/// How far a publish is: `...` while it waits, else a letter for each result.
async fn state(publishing: &mut Publishing) -> String {
    quiet().await;
    let Some(results) = publishing.now_or_never() else { return "...".into() };
    let letter = |result: Result<(), Failure>| match result {
        Ok(()) => 'o',
        Err(Failure::Transient(_)) => 't',
        Err(Failure::Permanent(_)) => 'p',
        Err(Failure::Throttled(_)) => 'l',
        Err(_) => '?',
    };
    results.expect("a publish does not panic").into_iter().map(letter).collect()
}

#[test]
fn a_message_nobody_wants_is_published_and_gone() {
    run(async |bus| {
        assert_eq!(state(&mut publish(&bus, "t", "1 2 3")).await, "ooo");
        let mut late = subscribe(&bus, "t");
        assert_eq!(late.text().await, "-");
    });
}

#[test]
fn every_subscription_gets_a_copy_with_its_metadata() {
    run(async |bus| {
        let (mut one, mut two, mut other) = (subscribe(&bus, "t"), subscribe(&bus, "t"), subscribe(&bus, "u"));
        assert_eq!(state(&mut publish(&bus, "t", "1")).await, "o");
        assert_eq!((one.text().await, two.text().await, other.text().await), ("1".into(), "1".into(), "-".into()));
        assert_eq!(state(&mut publish(&bus, "u", "2")).await, "o");
        let list = other.lists.next().await.expect("a delivery");
        assert_eq!(list[0].message, message("u", "2"));
        assert_eq!(list[0].count, None);
    });
}

#[test]
fn publish_waits_for_the_message_before() {
    run(async |bus| {
        let mut sub = subscribe(&bus, "t");
        assert_eq!(state(&mut publish(&bus, "t", "1")).await, "o", "the first is handed over at once");
        let mut second = publish(&bus, "t", "2");
        assert_eq!(state(&mut second).await, "...");
        let (token, text) = sub.arrived().await.expect("the first");
        assert_eq!((text.as_str(), sub.text().await.as_str()), ("1", "-"), "one at a time");
        assert_eq!(state(&mut second).await, "...", "taken is not settled");
        assert_eq!(sub.settle(token, Verdict::Ack), Ok(()));
        assert_eq!(state(&mut second).await, "o");
        assert_eq!(sub.text().await, "2");
    });
}

#[test]
fn publish_waits_for_the_slowest_and_then_reaches_all_at_once() {
    run(async |bus| {
        let (mut fast, mut slow) = (subscribe(&bus, "t"), subscribe(&bus, "t"));
        assert_eq!(state(&mut publish(&bus, "t", "1")).await, "o");
        let mut second = publish(&bus, "t", "2");
        assert_eq!(fast.handle().await, "1");
        assert_eq!((state(&mut second).await, fast.text().await), ("...".into(), "-".into()));
        assert_eq!(slow.handle().await, "1");
        assert_eq!(state(&mut second).await, "o");
        assert_eq!((fast.text().await, slow.text().await), ("2".into(), "2".into()));
    });
}

#[test]
fn the_order_of_a_topic_is_kept_within_a_call_and_between_calls() {
    run(async |bus| {
        let mut sub = subscribe(&bus, "t");
        let mut calls = [publish(&bus, "t", "1 2 3"), publish(&bus, "t", "4"), publish(&bus, "t", "5")];
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(sub.handle().await);
        }
        // Three calls share one topic: each keeps its order, and none is overtaken within its wait.
        assert_eq!(seen.len(), 5);
        let of_first: Vec<_> = seen.iter().filter(|text| ["1", "2", "3"].contains(&text.as_str())).collect();
        assert_eq!(of_first, ["1", "2", "3"]);
        assert!(seen.iter().position(|text| text == "4") < seen.iter().position(|text| text == "5"));
        for call in &mut calls {
            assert!(!state(call).await.contains(['t', 'p', '.']));
        }
    });
}

#[test]
fn a_slow_subscriber_holds_up_its_own_topic_only() {
    run(async |bus| {
        let (mut slow, mut quick) = (subscribe(&bus, "slow"), subscribe(&bus, "quick"));
        assert_eq!(state(&mut publish(&bus, "slow", "1")).await, "o");
        let mut stuck = publish(&bus, "slow", "2");
        for word in ["a", "b", "c"] {
            assert_eq!(state(&mut publish(&bus, "quick", word)).await, "o");
            assert_eq!(quick.handle().await, word);
        }
        assert_eq!(state(&mut stuck).await, "...");
        assert_eq!(slow.handle().await, "1");
        assert_eq!(state(&mut stuck).await, "o");
    });
}

#[test]
fn past_the_deadline_nothing_is_handed_over() {
    run(async |bus| {
        let mut sub = subscribe(&bus, "t");
        assert_eq!(state(&mut publish(&bus, "t", "1")).await, "o");
        let mut late = publish_within(&bus, "t", "2 3", Duration::from_secs(5));
        let mut patient = publish(&bus, "t", "4");
        assert_eq!(state(&mut late).await, "...");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(state(&mut late).await, "tt");
        assert_eq!(state(&mut patient).await, "...");
        assert_eq!(sub.handle().await, "1");
        assert_eq!(state(&mut patient).await, "o", "what was given up holds up nobody");
        assert_eq!((sub.handle().await, sub.handle().await), ("4".into(), "-".into()));
        assert_eq!(bus.0.waiting.get(), 0);
        assert!(bus.0.lines.borrow().is_empty());
    });
}

#[test]
fn the_deadline_is_one_for_the_whole_call() {
    run(async |bus| {
        let mut sub = subscribe(&bus, "t");
        let mut call = publish_within(&bus, "t", "1 2 3 4", Duration::from_secs(5));
        for word in ["1", "2"] {
            quiet().await;
            tokio::time::advance(Duration::from_secs(2)).await;
            assert_eq!(sub.handle().await, word);
        }
        quiet().await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(state(&mut call).await, "ooot");
        assert_eq!((sub.handle().await, sub.handle().await), ("3".into(), "-".into()));
    });
}

#[test]
fn a_publisher_that_is_gone_is_not_handed_over() {
    run(async |bus| {
        let mut sub = subscribe(&bus, "t");
        assert_eq!(state(&mut publish(&bus, "t", "1")).await, "o");
        let mut gone = publish(&bus, "t", "2");
        assert_eq!(state(&mut gone).await, "...");
        gone.abort();
        quiet().await;
        assert_eq!((sub.handle().await, sub.handle().await), ("1".into(), "-".into()));
        assert_eq!(bus.0.waiting.get(), 0);
    });
}

#[test]
fn a_refused_message_is_gone() {
    run(async |bus| {
        let mut sub = subscribe(&bus, "t");
        assert_eq!(state(&mut publish(&bus, "t", "1")).await, "o");
        let (token, _) = sub.arrived().await.expect("a delivery");
        assert_eq!(sub.settle(token, Verdict::Retry(0)), Ok(()));
        assert_eq!(sub.text().await, "-");
        assert_eq!(sub.settle(token, Verdict::Ack), Err(SettleFailure::Stale), "settled before");
        assert_eq!(state(&mut publish(&bus, "t", "2")).await, "o");
        assert_eq!(sub.text().await, "2");
    });
}

#[test]
fn a_subscription_that_ends_releases_its_publishers() {
    // By its own stop, because the host went, or because the connection is closed.
    let check = |end: fn(&Bus, &mut Sub), expected: &'static str| {
        run(async move |bus| {
            let mut sub = subscribe(&bus, "t");
            assert_eq!(state(&mut publish(&bus, "t", "1")).await, "o");
            let mut waiting = [publish(&bus, "t", "2"), publish(&bus, "t", "3")];
            for publish in &mut waiting {
                assert_eq!(state(publish).await, "...");
            }
            end(&bus, &mut sub);
            for publish in &mut waiting {
                assert_eq!(state(publish).await, expected);
            }
            assert_eq!(state(&mut publish(&bus, "t", "4")).await, expected);
            assert_eq!(bus.0.waiting.get(), 0);
        });
    };
    check(|_, sub| sub.stop(), "o");
    check(|bus, _| bus.close(), "p");
}

#[test]
fn a_stopped_subscription_ends_its_stream_and_leaves_the_others_alone() {
    run(async |bus| {
        let (mut first, mut second) = (subscribe(&bus, "t"), subscribe(&bus, "t"));
        first.stop();
        quiet().await;
        assert_eq!(first.lists.next().now_or_never(), Some(None));
        assert_eq!(state(&mut publish(&bus, "t", "1")).await, "o");
        assert_eq!(second.text().await, "1");
    });
}

#[test]
fn a_host_that_hangs_up_ends_the_subscription() {
    run(async |bus| {
        let sub = subscribe(&bus, "t");
        drop(sub.lists);
        assert_eq!(state(&mut publish(&bus, "t", "1")).await, "o");
        assert_eq!(state(&mut publish(&bus, "t", "2")).await, "o");
        assert_eq!(bus.0.subscribers.borrow().count(), 0);
    });
}

#[test]
fn a_paused_subscription_keeps_its_publishers_waiting() {
    run(async |bus| {
        let mut sub = subscribe(&bus, "t");
        sub.live.as_ref().expect("live").pause();
        let mut publishing = publish(&bus, "t", "1");
        assert_eq!((state(&mut publishing).await, sub.text().await), ("...".into(), "-".into()));
        sub.live.as_ref().expect("live").resume();
        assert_eq!((state(&mut publishing).await, sub.text().await), ("o".into(), "1".into()));
    });
}

#[test]
fn a_wildcard_subscriber_takes_turns_between_topics() {
    run(async |bus| {
        let (mut wild, mut narrow) = (subscribe(&bus, "o*"), subscribe(&bus, "o1"));
        assert_eq!(state(&mut publish(&bus, "o1", "1")).await, "o");
        let (mut first, mut second) = (publish(&bus, "o1", "2"), publish(&bus, "o2", "3"));
        assert_eq!((state(&mut first).await, state(&mut second).await), ("...".into(), "...".into()));
        assert_eq!(wild.handle().await, "1");
        assert_eq!(state(&mut first).await, "...", "the narrow one is still busy");
        assert_eq!(state(&mut second).await, "o", "and holds up nobody else");
        assert_eq!((wild.handle().await, narrow.handle().await), ("3".into(), "1".into()));
        assert_eq!(state(&mut first).await, "o");
        assert_eq!((wild.text().await, narrow.text().await), ("2".into(), "2".into()));
        assert_eq!(state(&mut publish(&bus, "o", "4")).await, "o", "the bare prefix reaches nobody");
    });
}
