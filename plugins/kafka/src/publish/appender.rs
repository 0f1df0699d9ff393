//! Writes to one partition: takes what waits, a batch at a time, several batches on their way at once.
//!
//! Its task lives while there is something to write: it begins in the publish that finds none.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::pin_mut;
use futures::stream::{FuturesOrdered, StreamExt};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{task, timer};

use super::Producer;
use super::call::Pending;
use super::window::{Turn, Window};
use crate::cluster::{CallError, Lane, Link, To};
use crate::config::Acks;
use crate::failure::error;
use crate::records::{BATCH_HEADER_BYTES, encode};
use whimbrel_sdk::signal::Signal;

/// Messages of one batch, at most.
const BATCH_MAX: usize = 10_000;

/// A broker that asks for a pause gets one, up to this.
const THROTTLE_MAX: Duration = Duration::from_secs(30);

/// A pause after trouble that is no connection's: an election takes about so long.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long one try to reach the leader takes, before those who wait are told why.
const REACH_WAIT: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Appender {
    topic: Rc<str>,
    partition: i32,
    queue: RefCell<VecDeque<Pending>>,
    more: Signal,
    is_running: Cell<bool>,
    /// Where the partition is, while no task has it.
    window: RefCell<Option<Window>>,
    /// Fewer bytes than the settings allow: the broker refused a batch of more.
    batch_bytes: Cell<usize>,
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

type Answers<'a> =
    FuturesOrdered<std::pin::Pin<Box<dyn Future<Output = Result<Option<ProduceResponse>, CallError>> + 'a>>>;

impl Appender {
    pub(super) fn new(topic: &Rc<str>, partition: i32) -> Self {
        Self {
            topic: Rc::clone(topic),
            partition,
            queue: RefCell::default(),
            more: Signal::default(),
            is_running: Cell::new(false),
            window: RefCell::default(),
            batch_bytes: Cell::new(usize::MAX),
        }
    }

    /// One more message waits. [`start`](Self::start) sees to it.
    pub(super) fn push(&self, message: Pending) {
        self.queue.borrow_mut().push_back(message);
    }

    /// Sees to it that what waits is written.
    pub(super) fn start(self: &Rc<Self>, producer: &Rc<Producer>) {
        if self.is_running.replace(true) {
            self.more.raise();
            return;
        }
        let (appender, producer) = (Rc::clone(self), Rc::clone(producer));
        task::spawn(async move {
            appender.run(&producer).await;
            appender.is_running.set(false);
        });
    }

    async fn run(&self, producer: &Rc<Producer>) {
        let mut backoff = Backoff::default();
        let kept = self.window.take();
        let Some(mut window) = (match kept {
            Some(window) => Some(window),
            None => self.begin(producer, &mut backoff).await,
        }) else {
            return;
        };
        while !(self.queue.borrow().is_empty() && window.flights.is_empty()) {
            let trouble = self.serve(producer, &mut window, &mut backoff).await;
            let back = window.take_back();
            self.put_back(back);
            if let Some(why) = trouble.filter(|why| !why.is_empty()) {
                self.pause(&window, &why, &mut backoff).await;
            }
        }
        // One that lacks a number for want of a permission is not kept: the next one may get it.
        if window.is_numbered() || !producer.identity.is_refused() {
            self.window.replace(Some(window));
        }
    }

    /// What was on its way goes before what waits; what nobody waits for any more goes away.
    fn put_back(&self, back: Vec<Pending>) {
        let mut queue = self.queue.borrow_mut();
        back.into_iter().rev().for_each(|message| queue.push_front(message));
        queue.retain(|message| !message.is_given_up());
    }

    /// The first time, the brokers must know us.
    async fn begin(&self, producer: &Rc<Producer>, backoff: &mut Backoff) -> Option<Window> {
        loop {
            match producer.identity.get(REACH_WAIT).await {
                Ok(id) => return Some(Window::new(id)),
                Err(failure) => {
                    let why = crate::failure::text(&failure).to_owned();
                    self.queue.borrow_mut().retain(|message| !message.is_given_up());
                    if self.queue.borrow().is_empty() {
                        return None;
                    }
                    self.pause(&Window::new(None), &why, backoff).await;
                }
            }
        }
    }

    async fn pause(&self, window: &Window, why: &str, backoff: &mut Backoff) {
        window.waits_for(why);
        self.queue.borrow().iter().for_each(|message| message.waits_for(why));
        timer::sleep(backoff.next_wait().min(PAUSE_MAX)).await;
    }

    /// Writes over one connection, until there is nothing more to write or there is trouble; returns which.
    async fn serve(&self, producer: &Rc<Producer>, window: &mut Window, backoff: &mut Backoff) -> Option<String> {
        let to = To::Leader { topic: self.topic.to_string(), partition: self.partition };
        let link = match producer.cluster.reach(&to, Lane::Main, timer::now() + REACH_WAIT).await {
            Ok(link) => link,
            Err(CallError::Unsent(why) | CallError::Unanswered(why)) => return Some(why),
            Err(CallError::Failure(failure)) => {
                // The topic is gone, or forbidden.
                self.queue.borrow_mut().drain(..).for_each(|message| message.resolve(Err(failure.clone())));
                return Some(crate::failure::text(&failure).to_owned());
            }
        };
        let mut answers = Answers::new();
        for index in 0..window.flights.len() {
            self.send(producer, &link, window, index, &mut answers);
        }
        loop {
            while window.has_room() && self.load(producer, window) {
                self.send(producer, &link, window, window.flights.len() - 1, &mut answers);
            }
            if answers.is_empty() {
                return None;
            }
            let next = answers.next();
            let more = self.more.wait();
            pin_mut!(more);
            let Either::Left((Some(answer), _)) = select(next, more).await else { continue };
            match self.take_answer(window, 0, answer).await {
                Turn::Good => backoff.reset(),
                Turn::Again { why, moved } => {
                    self.hear_out(window, answers).await;
                    if moved {
                        producer.cluster.forget(&to);
                    }
                    return Some(why);
                }
            }
        }
    }

    /// Takes the answers to what is still on its way.
    async fn hear_out(&self, window: &mut Window, mut answers: Answers<'_>) {
        let mut index = window.flights.len().saturating_sub(answers.len());
        while let Some(answer) = answers.next().await {
            let before = window.flights.len();
            self.take_answer(window, index, answer).await;
            // Those that are done at the front are gone.
            index = (index + 1).saturating_sub(before - window.flights.len());
        }
    }

    /// Makes a batch of what waits. Whether there was anything.
    fn load(&self, producer: &Producer, window: &mut Window) -> bool {
        let settings = producer.cluster.settings();
        let limit = self.batch_bytes.get().min(settings.max_message_bytes.saturating_sub(BATCH_HEADER_BYTES));
        let (mut records, mut messages, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut queue = self.queue.borrow_mut();
        while let Some(mut message) = queue.pop_front() {
            if message.is_given_up() {
                continue;
            }
            if !messages.is_empty() && (bytes + message.size > limit || messages.len() >= BATCH_MAX) {
                queue.push_front(message);
                break;
            }
            bytes += message.size;
            records.push(std::mem::take(&mut message.record));
            messages.push(message);
        }
        drop(queue);
        if messages.is_empty() {
            return false;
        }
        let encoded = encode(&records, settings.codec);
        for (message, record) in messages.iter_mut().zip(records) {
            // Kept, for it may have to go into another batch.
            message.record = record;
        }
        match encoded {
            Ok(batch) => window.push(batch, messages),
            Err(why) => {
                let failure = whimbrel_sdk::Failure::Permanent(format!("metadata compression: {why}"));
                messages.iter().for_each(|message| message.resolve(Err(failure.clone())));
            }
        }
        true
    }

    fn send<'a>(
        &self,
        producer: &Producer,
        link: &'a Rc<Link>,
        window: &mut Window,
        index: usize,
        answers: &mut Answers<'a>,
    ) {
        let settings = producer.cluster.settings();
        let Some(bytes) = window.send(index) else { return };
        let partition = PartitionProduceData::default().with_index(self.partition).with_records(Some(bytes));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(self.topic.to_string())))
            .with_partition_data(vec![partition]);
        let timeout = i32::try_from((settings.read_wait * 3 / 4).as_millis()).unwrap_or(i32::MAX);
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(settings.acks.number())
            .with_timeout_ms(timeout)
            .with_topic_data(vec![topic]);
        // Asked here and not when it is polled: the order is that of the calls.
        match link.version::<ProduceRequest>() {
            Err(error) => answers.push_back(Box::pin(async move { Err(error) })),
            Ok(version) if settings.acks == Acks::Nobody => {
                let told = link.tell(&request, version);
                answers.push_back(Box::pin(async move { told.await.map(|()| None) }));
            }
            Ok(version) => {
                let asked = link.ask(&request, version, settings.read_wait);
                answers.push_back(Box::pin(async move { asked.await.map(Some) }));
            }
        }
    }

    async fn take_answer(
        &self,
        window: &mut Window,
        index: usize,
        answer: Result<Option<ProduceResponse>, CallError>,
    ) -> Turn {
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => return window.stored(index),
            Err(CallError::Unsent(why)) => return window.unsent(index, why),
            Err(CallError::Unanswered(why)) => return window.unanswered(index, why),
            Err(CallError::Failure(failure)) => return window.unsent(index, crate::failure::text(&failure).to_owned()),
        };
        let throttle = Duration::from_millis(u64::try_from(answer.throttle_time_ms).unwrap_or(0)).min(THROTTLE_MAX);
        let told = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        let turn = match told.into_iter().find(|told| told.index == self.partition) {
            None => window.unanswered(index, "the broker says nothing about the partition".to_owned()),
            Some(told) => match error(told.error_code) {
                None => window.stored(index),
                Some(error) => self.take_refusal(window, index, error, told),
            },
        };
        if !throttle.is_zero() {
            timer::sleep(throttle).await;
        }
        turn
    }

    fn take_refusal(
        &self,
        window: &mut Window,
        index: usize,
        error: kafka_protocol::error::ResponseError,
        told: &PartitionProduceResponse,
    ) -> Turn {
        use kafka_protocol::error::ResponseError as E;
        if matches!(error, E::MessageTooLarge | E::RecordListTooLarge)
            && let Some(flight) = window.flights.get(index)
        {
            // Smaller ones from here on; one message is a batch, whatever the limit.
            self.batch_bytes.set(flight.batch.len() / 2);
        }
        let broken: Vec<usize> =
            told.record_errors.iter().filter_map(|record| usize::try_from(record.batch_index).ok()).collect();
        window.refused(index, error, &broken, &self.topic)
    }
}
