//! What is under way, through every answer there is.

use std::rc::Rc;
use std::time::Instant;

use kafka_protocol::error::ResponseError as E;
use whimbrel_sdk::Failure;

use super::call::{Call, Pending};
use super::window::{FLIGHTS_MAX, Turn, Window};
use super::{QUEUE_MAX_BYTES, Room};
use crate::config::Codec;
use crate::records::{Record, encode};

/// A window, and a call with a message for each batch that may be pushed.
struct Bench {
    window: Window,
    call: Rc<Call>,
    pushed: usize,
}

impl Bench {
    fn new(producer: Option<i64>) -> Self {
        Self { window: Window::new(producer), call: Call::of(10, Instant::now()), pushed: 0 }
    }

    /// One batch is stored, and so many more are under way.
    fn with(flights: usize) -> Self {
        let mut bench = Self::new(Some(7));
        bench.push(1);
        assert_eq!(bench.window.stored(0), Turn::Good);
        (0..flights).for_each(|_| bench.push(1));
        bench
    }

    fn push(&mut self, count: usize) {
        assert!(self.window.has_room());
        let messages: Vec<Pending> = (0..count).map(|at| self.pending(self.pushed + at)).collect();
        self.pushed += count;
        let records: Vec<Record> = messages.iter().map(|message| message.record.clone()).collect();
        self.window.push(encode(&records, Codec::None).unwrap(), messages);
        self.sent(self.window.flights.len() - 1);
    }

    fn pending(&self, index: usize) -> Pending {
        let room = Room::take(&Rc::default(), 1).unwrap();
        Pending { record: Record::default(), size: 1, index, call: Rc::clone(&self.call), _room: room }
    }

    /// Epoch and first number of a batch, as it is sent.
    fn sent(&mut self, index: usize) -> (i16, i32) {
        let bytes = self.window.send(index).unwrap();
        let epoch = i16::from_be_bytes(bytes[51..53].try_into().unwrap());
        (epoch, i32::from_be_bytes(bytes[53..57].try_into().unwrap()))
    }

    fn refuse(&mut self, index: usize, error: E) -> Turn {
        self.window.refused(index, error, &[], "orders")
    }

    fn back(&mut self) -> Vec<usize> {
        self.window.take_back().into_iter().map(|message| message.index).collect()
    }

    fn results(&self) -> Vec<String> {
        let short = |result: Result<(), Failure>| match result {
            Ok(()) => "ok",
            Err(Failure::Transient(_)) => "transient",
            Err(Failure::Unknown(_)) => "unknown",
            Err(Failure::Invalid(_)) => "invalid",
            Err(_) => "other",
        };
        self.call.results().into_iter().take(self.pushed).map(short).map(str::to_owned).collect()
    }
}

fn is_again(turn: &Turn) -> bool {
    matches!(turn, Turn::Again { .. })
}

#[test]
fn one_batch_until_the_broker_knows_us_then_several() {
    let mut bench = Bench::new(Some(7));
    bench.push(3);
    assert!(!bench.window.has_room());
    bench.window.stored(0);
    for number in 0..FLIGHTS_MAX {
        assert!(bench.window.has_room());
        bench.push(1);
        assert_eq!(bench.sent(number), (0, 3 + i32::try_from(number).unwrap()));
    }
    assert!(!bench.window.has_room());
}

#[test]
fn what_is_not_answered_is_sent_again_as_it_was() {
    let mut bench = Bench::with(3);
    for index in 0..3 {
        assert!(is_again(&bench.window.unanswered(index, "cut".into())));
    }
    assert_eq!(bench.back(), [0usize; 0]);
    assert_eq!([bench.sent(0), bench.sent(1), bench.sent(2)], [(0, 1), (0, 2), (0, 3)]);
    // It had been stored after all.
    assert_eq!(bench.refuse(0, E::DuplicateSequenceNumber), Turn::Good);
    assert_eq!(bench.sent(0), (0, 2));
    assert_eq!(bench.results(), ["ok", "ok", "unknown", "unknown"]);
}

#[test]
fn what_is_not_stored_is_taken_back_in_order() {
    let mut bench = Bench::with(3);
    assert!(is_again(&bench.refuse(0, E::NotEnoughReplicas)));
    assert!(is_again(&bench.refuse(1, E::OutOfOrderSequenceNumber)));
    assert!(is_again(&bench.window.unanswered(2, "cut".into())));
    // The broker cannot have stored the third without the first.
    assert_eq!(bench.back(), [1, 2, 3]);
    bench.push(1);
    assert_eq!(bench.sent(0), (0, 1), "the numbers go on where they are stored");
    assert_eq!(bench.results()[1..4], ["transient", "transient", "transient"]);
}

/// A leader says that it is none also of what it has appended, and the next leader may have that: another batch under the
/// same number would be taken for it.
#[test]
fn a_number_stays_with_its_batch_when_the_leader_moves() {
    for error in [E::NotLeaderOrFollower, E::UnknownTopicOrPartition] {
        let mut bench = Bench::with(2);
        assert!(is_again(&bench.refuse(0, error)));
        assert!(is_again(&bench.refuse(1, E::OutOfOrderSequenceNumber)));
        assert_eq!(bench.results(), ["ok", "unknown", "transient"], "{error}");
        bench.call = Call::of(10, Instant::now());
        bench.back();
        assert!(bench.window.flights.is_empty(), "nobody waits for it any more");
        bench.push(1);
        assert_eq!(bench.sent(0), (1, 0), "{error}");
    }
}

#[test]
fn what_may_be_stored_stays() {
    let mut bench = Bench::with(2);
    bench.refuse(0, E::NotEnoughReplicasAfterAppend);
    bench.window.stored(1);
    assert_eq!(bench.back(), [0usize; 0]);
    assert_eq!(bench.window.flights.len(), 1);
    assert_eq!(bench.sent(0), (0, 1));
    assert_eq!(bench.results(), ["ok", "unknown", "ok"]);
}

#[test]
fn a_broker_that_has_forgotten_us_begins_anew() {
    for error in [E::OutOfOrderSequenceNumber, E::UnknownProducerId, E::InvalidProducerEpoch] {
        let mut bench = Bench::with(2);
        assert!(is_again(&bench.refuse(0, error)));
        assert!(is_again(&bench.refuse(1, E::OutOfOrderSequenceNumber)));
        assert_eq!(bench.back(), [1, 2], "{error}");
        bench.push(1);
        assert_eq!(bench.sent(0).1, 0);
        assert!(bench.sent(0).0 >= 1);
        assert!(!bench.window.has_room(), "until it knows us again");
    }
}

#[test]
fn nobody_waits_any_more() {
    let mut bench = Bench::with(2);
    bench.refuse(0, E::NotEnoughReplicas);
    assert_eq!(bench.results(), ["ok", "transient", "unknown"]);
    bench.window.unanswered(1, "cut".into());
    // What was said not to be stored never is.
    assert_eq!(bench.back(), [0usize; 0]);
    assert!(bench.window.flights.is_empty());

    let mut bench = Bench::with(2);
    bench.window.unanswered(0, "cut".into());
    bench.window.unanswered(1, "cut".into());
    assert_eq!(bench.results(), ["ok", "unknown", "unknown"]);
    assert_eq!(bench.back(), [0usize; 0]);
    assert!(bench.window.flights.is_empty());
    bench.call = Call::of(10, Instant::now());
    bench.push(1);
    assert_eq!(bench.sent(0), (1, 0), "what is still on its way is refused under the old epoch");
}

#[test]
fn what_will_never_be_taken() {
    let mut bench = Bench::with(2);
    bench.refuse(0, E::MessageTooLarge);
    bench.refuse(1, E::OutOfOrderSequenceNumber);
    assert_eq!(bench.back(), [2]);
    assert_eq!(bench.results(), ["ok", "invalid", "transient"]);

    // Of several in a batch, those that the broker names; or smaller batches.
    let mut bench = Bench::with(0);
    bench.push(3);
    bench.window.refused(0, E::InvalidRecord, &[1], "orders");
    assert_eq!(bench.back(), [1, 3]);
    bench.push(3);
    bench.refuse(0, E::MessageTooLarge);
    assert_eq!(bench.back(), [4, 5, 6]);
    assert_eq!(bench.results(), ["ok", "transient", "invalid", "transient", "transient", "transient", "transient"]);
}

#[test]
fn without_a_number_nothing_is_sent_twice() {
    let mut bench = Bench::new(None);
    bench.push(1);
    assert_eq!(bench.sent(0), (-1, -1));
    bench.window.unanswered(0, "cut".into());
    assert_eq!(bench.back(), [0usize; 0]);
    bench.push(1);
    bench.refuse(0, E::RequestTimedOut);
    bench.back();
    bench.push(1);
    bench.refuse(0, E::NotLeaderOrFollower);
    assert_eq!(bench.back(), [2]);
    assert_eq!(bench.results(), ["unknown", "unknown", "transient"]);
}

#[test]
fn room_is_given_back() {
    let all = Rc::default();
    let first = Room::take(&all, QUEUE_MAX_BYTES);
    assert!(first.is_some() && Room::take(&all, 1).is_none());
    drop(first);
    assert!(Room::take(&all, 1).is_some());
}
