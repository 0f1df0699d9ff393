//! What is under way to one partition: batches in their order, numbered without gaps.
//!
//! The broker stores a batch only in its turn, and tells one that it has already from one that it has not. So whatever
//! goes wrong, the answer is the same: hear out the rest, and send again what is not stored, in the same order, under
//! the same numbers. Knows no connection.

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use whimbrel_sdk::Failure;

use super::call::Pending;
use crate::failure::{may_not_write, of_topic};
use crate::records::{Batch, Stamp};

/// Batches under way, at most: a broker remembers so many of each producer.
pub(super) const FLIGHTS_MAX: usize = 5;

/// A batch under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) batch: Batch,
    pub(super) messages: Vec<Pending>,
    sequence: i32,
    /// Some attempt may have been stored.
    maybe_stored: bool,
    is_done: bool,
}

/// What an answer means for the rest.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    /// Go on.
    Good,
    /// Hear out the rest, and send again after a pause, or at once where no reason is given. The leader may be another.
    Again { why: String, moved: bool },
}

/// Where a partition is: who wrote to it, and how far.
#[derive(Debug)]
pub(super) struct Window {
    /// `None`: nothing is numbered, and what was written is not written again.
    producer: Option<i64>,
    epoch: i16,
    next: i32,
    /// The broker has stored something under this epoch. Before, it would take batches in any order.
    is_known: bool,
    pub(super) flights: VecDeque<Flight>,
}

impl Window {
    pub(super) fn new(producer: Option<i64>) -> Self {
        Self { producer, epoch: 0, next: 0, is_known: false, flights: VecDeque::new() }
    }

    /// Whether one more batch may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.flights.len() < if self.is_known { FLIGHTS_MAX } else { 1 }
    }

    /// Whether batches carry a number, by which one that is written twice is stored once.
    pub(super) fn is_numbered(&self) -> bool {
        self.producer.is_some()
    }

    /// Takes a batch in, as the last.
    pub(super) fn push(&mut self, batch: Batch, messages: Vec<Pending>) {
        let sequence = self.next;
        self.next = after(sequence, batch.count);
        self.flights.push_back(Flight { batch, messages, sequence, maybe_stored: false, is_done: false });
    }

    /// The bytes of a batch, to be sent now.
    pub(super) fn send(&mut self, index: usize) -> Option<Bytes> {
        let (producer, epoch) = (self.producer, self.epoch);
        let flight = self.flights.get_mut(index)?;
        flight.messages.iter().for_each(|message| message.is_written(true));
        let numbered = |producer| Stamp { producer, epoch, sequence: flight.sequence };
        Some(flight.batch.stamped(producer.map_or(Stamp::NONE, numbered)))
    }

    /// A batch was stored.
    pub(super) fn stored(&mut self, index: usize) -> Turn {
        if let Some(flight) = self.flights.get_mut(index) {
            flight.is_done = true;
            flight.messages.drain(..).for_each(|message| message.resolve(Ok(())));
            self.is_known = true;
        }
        self.forget_done();
        Turn::Good
    }

    /// A batch was not sent.
    pub(super) fn unsent(&mut self, index: usize, why: String) -> Turn {
        self.not_stored(index);
        Turn::Again { why, moved: true }
    }

    /// A batch was sent, and there is no answer.
    pub(super) fn unanswered(&mut self, index: usize, why: String) -> Turn {
        if let Some(flight) = self.flights.get_mut(index) {
            flight.maybe_stored = true;
            if self.producer.is_none() {
                let failure = || Failure::Unknown(format!("sent to Kafka, but not answered: {why}"));
                flight.messages.drain(..).for_each(|message| message.resolve(Err(failure())));
                flight.is_done = true;
            }
        }
        Turn::Again { why, moved: true }
    }

    /// The broker refused a batch. `broken` says which of its messages, if that is known.
    pub(super) fn refused(&mut self, index: usize, error: ResponseError, broken: &[usize], topic: &str) -> Turn {
        use ResponseError as E;
        let is_first = self.flights.iter().take(index).all(|flight| flight.is_done);
        let why = format!("Kafka answered {error}");
        let again = |moved| Turn::Again { why, moved };
        let at_once = Turn::Again { why: String::new(), moved: false };
        match error {
            E::DuplicateSequenceNumber => self.stored(index),
            // It follows one that was not stored.
            E::OutOfOrderSequenceNumber if !is_first => {
                self.not_stored(index);
                again(false)
            }
            E::OutOfOrderSequenceNumber
            | E::UnknownProducerId
            | E::InvalidProducerEpoch
            | E::InvalidProducerIdMapping
            | E::ProducerFenced => {
                self.not_stored(index);
                self.begin_anew();
                again(false)
            }
            E::RequestTimedOut | E::NotEnoughReplicasAfterAppend | E::UnknownServerError | E::KafkaStorageError => {
                if self.producer.is_none() {
                    return self.unanswered(index, format!("Kafka answered {error}"));
                }
                if let Some(flight) = self.flights.get_mut(index) {
                    flight.maybe_stored = true;
                }
                again(error == E::KafkaStorageError)
            }
            // Said of what was appended, too, if leadership ends while the replicas are waited for. Its number is its own
            // until that is known: under the number of a stored batch another one would be taken for it, and be lost.
            E::NotLeaderOrFollower | E::UnknownTopicOrPartition if self.producer.is_some() => {
                if let Some(flight) = self.flights.get_mut(index) {
                    flight.maybe_stored = true;
                }
                again(true)
            }
            error if error.is_retriable() => {
                self.not_stored(index);
                again(error != E::NotEnoughReplicas)
            }
            E::MessageTooLarge | E::RecordListTooLarge if self.is_several(index) => {
                self.not_stored(index);
                at_once
            }
            error => {
                self.fail(index, broken, &refusal(error, topic));
                at_once
            }
        }
    }

    fn is_several(&self, index: usize) -> bool {
        self.flights.get(index).is_some_and(|flight| flight.messages.len() > 1)
    }

    /// An attempt came to nothing. What an earlier one came to is not known by that.
    fn not_stored(&mut self, index: usize) {
        if let Some(flight) = self.flights.get(index).filter(|flight| !flight.maybe_stored) {
            flight.messages.iter().for_each(|message| message.is_written(false));
        }
    }

    /// These messages, or all of the batch, will never be stored.
    fn fail(&mut self, index: usize, broken: &[usize], failure: &Failure) {
        let Some(flight) = self.flights.get_mut(index) else { return };
        let is_meant = |at: usize| broken.is_empty() || broken.contains(&at);
        for (at, message) in flight.messages.iter().enumerate() {
            message.is_written(false);
            if is_meant(at) {
                message.resolve(Err(failure.clone()));
            }
        }
        flight.maybe_stored = false;
    }

    /// Under a new epoch: numbers begin at 0, and what is still under way under the old one is refused by the broker.
    fn begin_anew(&mut self) {
        for flight in &mut self.flights {
            flight.maybe_stored = false;
        }
        self.is_known = false;
        match self.epoch.checked_add(1) {
            Some(epoch) => self.epoch = epoch,
            // So many troubles, and the broker knows what it knows: unnumbered from here on.
            None => self.producer = None,
        }
        let mut next = 0;
        for flight in &mut self.flights {
            flight.sequence = next;
            next = after(next, flight.batch.count);
        }
        self.next = next;
    }

    /// After a trouble, with nothing on its way: what is known not to be stored is taken back, to be sent in new
    /// batches, without those that nobody waits for any more. What may be stored stays, unless nobody waits for it.
    pub(super) fn take_back(&mut self) -> Vec<Pending> {
        self.flights.retain(|flight| !flight.is_done);
        let first = self.flights.iter().position(|flight| !flight.maybe_stored).unwrap_or(self.flights.len());
        if let Some(flight) = self.flights.get(first) {
            self.next = flight.sequence;
        }
        let back: Vec<Pending> = self.flights.drain(first..).flat_map(|flight| flight.messages).collect();
        let nobody_waits = |flight: &Flight| flight.messages.iter().all(Pending::is_given_up);
        if !self.flights.is_empty() && self.flights.iter().all(nobody_waits) {
            self.flights.clear();
            self.begin_anew();
        }
        for message in &back {
            message.is_written(false);
        }
        back.into_iter().filter(|message| !message.is_given_up()).collect()
    }

    fn forget_done(&mut self) {
        while self.flights.front().is_some_and(|flight| flight.is_done) {
            self.flights.pop_front();
        }
    }

    /// Why those under way take so long.
    pub(super) fn waits_for(&self, why: &str) {
        self.flights.iter().flat_map(|flight| &flight.messages).for_each(|message| message.waits_for(why));
    }
}

/// Numbers go round at the end.
fn after(sequence: i32, count: usize) -> i32 {
    let sum = i64::from(sequence) + i64::try_from(count).unwrap_or(0);
    i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or(0)
}

fn refusal(error: ResponseError, topic: &str) -> Failure {
    match error {
        ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge => Failure::Invalid(format!(
            "the message is larger than the topic {topic:?} takes: raise the topic's max.message.bytes, or lower metadata \
             maxMessageBytes so that this is noticed earlier"
        )),
        ResponseError::InvalidRecord => Failure::Invalid(format!(
            "Kafka refuses the record: is the topic {topic:?} compacted, and has the message no key (metadata partitionKey)?"
        )),
        ResponseError::TopicAuthorizationFailed => may_not_write(topic),
        other => of_topic(other, topic),
    }
}
