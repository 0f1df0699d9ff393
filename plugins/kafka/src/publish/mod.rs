//! Publishing: messages become records, records wait for their partition, batches go out and are confirmed.
//!
//! `partitioner` says which partition, `call` is what one publish waits for, `appender` writes to one partition, in
//! `window` it remembers what is under way, `identity` makes writing twice storing once.
//!
//! Absent on purpose: a timer that holds messages back to make larger batches. What waits while others are on their way
//! is the next batch.

mod appender;
mod call;
mod identity;
mod partitioner;
#[cfg(test)]
mod tests;
mod window;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use whimbrel_sdk::{Failure, Message, task, timer};

use self::appender::Appender;
use self::call::{Call, Pending};
use self::identity::Identity;
use self::partitioner::Partitioning;
use crate::cluster::{Cluster, PartitionInfo};
use crate::records::{BATCH_HEADER_BYTES, record_size, to_record};

/// Bytes that wait to be published or confirmed, at most.
const QUEUE_MAX_BYTES: usize = 32 << 20;

/// So often is looked for calls whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_millis(50);

/// How long one look for a topic takes, before those who wait are told why.
const LOOKUP_WAIT: Duration = Duration::from_secs(5);

/// What a record and its batch take besides the message, for a message with a few headers.
const OVERHEAD_BYTES: usize = 128;

/// Those that write, by topic and partition.
type Appenders = HashMap<(Rc<str>, i32), Rc<Appender>>;

/// See the module.
pub(crate) struct Producer {
    pub(crate) cluster: Rc<Cluster>,
    pub(crate) identity: Identity,
    appenders: RefCell<Appenders>,
    /// Messages of topics that are not known yet.
    waiting: RefCell<HashMap<Rc<str>, Vec<Addressed>>>,
    /// Those that wait for their messages.
    calls: RefCell<Vec<Rc<Call>>>,
    is_watching: Cell<bool>,
    partitioning: Partitioning,
    queued_bytes: Rc<Cell<usize>>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("queued_bytes", &self.queued_bytes).finish_non_exhaustive()
    }
}

/// A message whose partition is not known yet.
struct Addressed {
    pending: Pending,
    /// The partition that its publisher asks for.
    partition: Option<i32>,
}

impl Producer {
    pub(crate) fn new(cluster: Rc<Cluster>) -> Rc<Self> {
        let partitioning = Partitioning::new(cluster.settings().partitioner);
        let identity = Identity::new(Rc::clone(&cluster));
        Rc::new(Self {
            cluster,
            identity,
            appenders: RefCell::default(),
            waiting: RefCell::default(),
            calls: RefCell::default(),
            is_watching: Cell::new(false),
            partitioning,
            queued_bytes: Rc::default(),
        })
    }

    /// The most bytes one message may have, data and metadata together.
    pub(crate) fn message_max_bytes(&self) -> usize {
        self.cluster.settings().max_message_bytes.saturating_sub(OVERHEAD_BYTES)
    }

    /// Publishes, and returns when the brokers have confirmed each, or at the deadline.
    pub(crate) async fn publish(
        self: &Rc<Self>,
        messages: Vec<Message>,
        patience: Duration,
    ) -> Vec<Result<(), Failure>> {
        let call = Call::of(messages.len(), timer::now() + patience);
        for (topic, messages) in self.sort(messages, &call) {
            self.hand_over(&topic, messages);
        }
        if !call.is_done() {
            self.watch(&call);
        }
        call.wait().await
    }

    /// Sees to it that a call ends in time. One task looks after all of them: a timer for each would cost as much as
    /// publishing does.
    fn watch(self: &Rc<Self>, call: &Rc<Call>) {
        self.calls.borrow_mut().push(Rc::clone(call));
        if self.is_watching.replace(true) {
            return;
        }
        let producer = Rc::clone(self);
        task::spawn(async move {
            while !producer.calls.borrow().is_empty() {
                timer::sleep(EXPIRE_EVERY).await;
                let now = timer::now();
                producer.calls.borrow_mut().retain(|call| !call.is_done() && !call.is_late(now));
            }
            producer.is_watching.set(false);
        });
    }

    /// Sorts what can be published by topic, in the order given; answers for the rest.
    fn sort(&self, messages: Vec<Message>, call: &Rc<Call>) -> Vec<(Rc<str>, Vec<Addressed>)> {
        let now = millis_since_1970();
        let mut by_topic: Vec<(Rc<str>, Vec<Addressed>)> = Vec::new();
        for (index, mut message) in messages.into_iter().enumerate() {
            let topic = std::mem::take(&mut message.topic);
            match self.address(message, index, now, call) {
                Err(failure) => call.resolve(index, Err(failure)),
                Ok(addressed) => match by_topic.iter_mut().find(|(known, _)| **known == *topic) {
                    Some((_, list)) => list.push(addressed),
                    None => by_topic.push((topic.into(), vec![addressed])),
                },
            }
        }
        by_topic
    }

    fn address(&self, message: Message, index: usize, now: i64, call: &Rc<Call>) -> Result<Addressed, Failure> {
        let partition = self.check(&message)?;
        let record = to_record(message, now, self.cluster.settings());
        let (size, limit) = (record_size(&record), self.cluster.settings().max_message_bytes);
        if size + BATCH_HEADER_BYTES > limit {
            return Err(Failure::Invalid(format!(
                "the message needs {size} bytes with all its headers: metadata maxMessageBytes is {limit}"
            )));
        }
        let room = Room::take(&self.queued_bytes, size)
            .ok_or_else(|| Failure::Throttled(("too much waits to be published".to_owned(), 0)))?;
        let pending = Pending { record, size, index, call: Rc::clone(call), _room: room };
        Ok(Addressed { pending, partition })
    }

    /// What can be checked without a broker. Returns the partition that the publisher names.
    fn check(&self, message: &Message) -> Result<Option<i32>, Failure> {
        let metadata: usize = message.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        let (size, max) = (message.data.len() + metadata, self.message_max_bytes());
        if size > max {
            let limit = self.cluster.settings().max_message_bytes;
            return Err(Failure::Invalid(format!(
                "the message has {size} bytes, and at most {max} may be published: metadata maxMessageBytes is {limit}, \
                 and {OVERHEAD_BYTES} of it are for what Kafka adds"
            )));
        }
        partitioner::named(message)
    }

    /// Gives messages to their partitions. Where the topic is not known yet, they wait, and so do those that come after
    /// them: nobody overtakes.
    fn hand_over(self: &Rc<Self>, topic: &Rc<str>, messages: Vec<Addressed>) {
        if let Some(waiting) = self.waiting.borrow_mut().get_mut(topic) {
            waiting.extend(messages);
            return;
        }
        if let Some(partitions) = self.cluster.known(topic) {
            self.queue(topic, messages, &partitions);
            return;
        }
        self.waiting.borrow_mut().insert(Rc::clone(topic), messages);
        let (producer, topic) = (Rc::clone(self), Rc::clone(topic));
        task::spawn(async move { producer.find(&topic).await });
    }

    /// Finds a topic for those who wait for that.
    async fn find(self: &Rc<Self>, topic: &Rc<str>) {
        loop {
            let found = self.cluster.partitions(topic, LOOKUP_WAIT).await;
            if let Some(waiting) = self.waiting.borrow_mut().get_mut(topic) {
                waiting.retain(|message| !message.pending.is_given_up());
                match &found {
                    Err(Failure::Transient(why)) if !waiting.is_empty() => {
                        waiting.iter().for_each(|message| message.pending.waits_for(why));
                        continue;
                    }
                    _ => {}
                }
            }
            let waiting = self.waiting.borrow_mut().remove(topic).unwrap_or_default();
            return match found {
                Ok(partitions) => self.queue(topic, waiting, &partitions),
                Err(failure) => waiting.iter().for_each(|message| message.pending.resolve(Err(failure.clone()))),
            };
        }
    }

    fn queue(self: &Rc<Self>, topic: &Rc<str>, messages: Vec<Addressed>, partitions: &[PartitionInfo]) {
        let bytes: usize = messages.iter().map(|message| message.pending.size).sum();
        let sticky = self.partitioning.sticky(topic, partitions, bytes);
        let mut woken: Vec<Rc<Appender>> = Vec::new();
        for Addressed { pending, partition } in messages {
            match self.partitioning.choose(&pending.record, partition, partitions, sticky) {
                Err(failure) => pending.resolve(Err(failure)),
                Ok(partition) => {
                    let appender = self.appender(topic, partition);
                    appender.push(pending);
                    if !woken.iter().any(|known| Rc::ptr_eq(known, &appender)) {
                        woken.push(appender);
                    }
                }
            }
        }
        woken.into_iter().for_each(|appender| appender.start(self));
    }

    fn appender(&self, topic: &Rc<str>, partition: i32) -> Rc<Appender> {
        let mut appenders = self.appenders.borrow_mut();
        let new = || Rc::new(Appender::new(topic, partition));
        Rc::clone(appenders.entry((Rc::clone(topic), partition)).or_insert_with(new))
    }
}

/// A part of the queue's bound, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    all: Rc<Cell<usize>>,
    size: usize,
}

impl Room {
    /// `None`: there is none.
    fn take(all: &Rc<Cell<usize>>, size: usize) -> Option<Self> {
        let taken = all.get() + size;
        (taken <= QUEUE_MAX_BYTES).then(|| {
            all.set(taken);
            Self { all: Rc::clone(all), size }
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.set(self.all.get().saturating_sub(self.size));
    }
}

fn millis_since_1970() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
