//! Publishing: each topic's exchange is declared, messages are written in one go, and answered when RabbitMQ has confirmed.
//!
//! A broker that refuses a message (no permission, too large) ends the channel it came on, and nobody knows what became
//! of all others in flight there. So there are three: one for what the broker has taken before, one for topics that it has
//! not confirmed a message for, and one for messages larger than any it has confirmed. Who may not publish, or publishes
//! what is too large, harms nobody else.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use futures::lock::Mutex;
use futures::pin_mut;
use whimbrel_sdk::{Failure, Message, timer};

use crate::bell::Bell;
use crate::call::Call;
use crate::channel::{Channel, Event};
use crate::config::Settings;
use crate::confirms::Confirms;
use crate::failure::{Lost, is_missing, is_refused, names_exchange, of_closed, size_limit};
use crate::health::Health;
use crate::live::Live;
use crate::message::{Outgoing, outgoing, own_id};
use crate::protocol::{Declare, FRAME_MIN_BYTES, MESSAGE_MAX_BYTES, Publish, Request, publish};
use crate::signal::Signal;
use crate::topics::{Topic, Topics};
use crate::wire::Wire;

/// Messages of one channel that may wait for their confirmation, about: one call may go beyond.
const UNCONFIRMED_MAX: usize = 4096;

/// How often it is looked for calls whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);

/// How long a write may go on once it was answered.
const WRITE_WAIT: Duration = Duration::from_secs(1);

/// A message of so many bytes is taken for one that any broker takes.
const SIZE_PROVEN_BYTES: usize = 64 << 10;

/// One result for each message.
pub(crate) type Results = Vec<Result<(), Failure>>;

/// A message that was sent.
#[derive(Debug)]
struct Sent {
    call: Rc<Call>,
    index: usize,
    topic: Rc<Topic>,
    id: Id,
    bytes: usize,
    /// No queue took it.
    returned: bool,
}

/// Which channel a message goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// What the broker has taken before.
    Proven,
    /// A topic it has not.
    NewTopic,
    /// A size it has not.
    NewSize,
}

const WAYS: [Way; 3] = [Way::Proven, Way::NewTopic, Way::NewSize];

/// What the message is called. Ids that we give are made from a number when they are needed.
#[derive(Debug, PartialEq, Eq)]
enum Id {
    Ours(u64),
    Given(String),
}

/// A channel to publish on.
#[derive(Debug)]
struct Lane {
    channel: Rc<Channel>,
    serial: u64,
    book: Rc<Book>,
}

#[derive(Debug, Default)]
struct Book {
    confirms: RefCell<Confirms<Sent>>,
    room: Bell,
}

/// A message that waits to be sent.
#[derive(Debug)]
struct Letter {
    index: usize,
    topic: Rc<Topic>,
    out: Outgoing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Publisher {
    settings: Rc<Settings>,
    wire: Rc<Wire>,
    health: Rc<Health>,
    topics: Topics,
    declaring: Mutex<Option<Rc<Channel>>>,
    /// By [`Way`].
    lanes: [Mutex<Option<Rc<Lane>>>; 3],
    calls: RefCell<Vec<Weak<Call>>>,
    calling: Signal,
    /// The most bytes of a message that the broker takes, as far as is known.
    size_max: Cell<usize>,
    /// The most bytes of a message that it has taken.
    size_proven: Cell<usize>,
    nonce: String,
    number: Cell<u64>,
}

impl Publisher {
    /// A publisher on a wire.
    pub(crate) fn new(settings: Rc<Settings>, wire: Rc<Wire>, health: Rc<Health>) -> Rc<Self> {
        Rc::new(Self {
            settings,
            wire,
            health,
            topics: Topics::default(),
            declaring: Mutex::default(),
            lanes: Default::default(),
            calls: RefCell::default(),
            calling: Signal::default(),
            size_max: Cell::new(MESSAGE_MAX_BYTES),
            size_proven: Cell::new(SIZE_PROVEN_BYTES),
            nonce: format!("{:012x}", fastrand::u64(..) >> 16),
            number: Cell::new(1),
        })
    }

    /// Publishes, and returns when RabbitMQ has confirmed each message, or its time is over.
    pub(crate) async fn publish(self: &Rc<Self>, messages: Vec<Message>, deadline: Duration) -> Results {
        let until = timer::now() + deadline;
        let call = Call::new(messages.len(), until);
        let mut letters = self.letters(&call, messages);
        while !letters.is_empty() {
            if let Err(failure) = self.send(&call, &mut letters).await {
                for letter in letters.drain(..) {
                    call.settle(letter.index, Err(failure.clone()));
                }
            } else if !letters.is_empty() && call.until <= timer::now() {
                for letter in letters.drain(..) {
                    call.settle(letter.index, Err(Failure::Transient("not sent to RabbitMQ in time".to_owned())));
                }
            }
        }
        call.results().await
    }

    fn letters(&self, call: &Rc<Call>, messages: Vec<Message>) -> Vec<Letter> {
        let frame_max = self.wire.current().map_or(FRAME_MIN_BYTES as usize, |live| live.agreed.frame_max);
        let mut letters: Vec<Letter> = Vec::with_capacity(messages.len());
        for (index, message) in messages.into_iter().enumerate() {
            match outgoing(&self.settings, frame_max, message).and_then(|sound| self.check_size(sound)) {
                Err(failure) => call.settle(index, Err(failure)),
                Ok((name, out)) => {
                    let topic = match letters.last() {
                        Some(last) if last.topic.name == name => Rc::clone(&last.topic),
                        _ => self.topics.get(&name),
                    };
                    letters.push(Letter { index, topic, out });
                }
            }
        }
        letters
    }

    fn check_size(&self, (topic, out): (String, Outgoing)) -> Result<(String, Outgoing), Failure> {
        if out.body.len() > self.size_max.get() {
            Err(too_large(out.body.len(), self.size_max.get()))
        } else {
            Ok((topic, out))
        }
    }

    /// Tries to send; what is left in the list has to be tried again.
    async fn send(self: &Rc<Self>, call: &Rc<Call>, letters: &mut Vec<Letter>) -> Result<(), Failure> {
        let live = self.wire.live(call.until).await?;
        self.declare_all(&live, call, letters).await?;
        if let Some(why) = live.blocked() {
            let over = || Failure::Throttled((format!("RabbitMQ takes no messages at present: {why}"), 0));
            return in_time(call.until, live.change()).await.ok_or_else(over);
        }
        let lanes = self.lanes(&live, call, letters).await?;
        if !live.has_room() {
            return Err(Failure::Throttled(("too much waits to be written to RabbitMQ".to_owned(), 0)));
        }
        // Nothing is waited for from here on until all is in the buffer.
        if live.is_ended() || live.blocked().is_some() || lanes.iter().flatten().any(|lane| !lane.channel.is_open()) {
            return Ok(());
        }
        self.watch(call);
        let mut left = Vec::new();
        for letter in letters.drain(..) {
            match &lanes[self.way(&letter) as usize] {
                Some(lane) => self.write(&live, lane, call, letter),
                // The broker has confirmed the like of it just now.
                None => left.push(letter),
            }
        }
        *letters = left;
        self.flush(&live, call).await;
        Ok(())
    }

    fn way(&self, letter: &Letter) -> Way {
        match letter.out.body.len() {
            size if size > self.size_proven.get() => Way::NewSize,
            _ if letter.topic.proven.get() => Way::Proven,
            _ => Way::NewTopic,
        }
    }

    /// The channels that these letters need, with room in each.
    async fn lanes(
        self: &Rc<Self>,
        live: &Rc<Live>,
        call: &Call,
        letters: &[Letter],
    ) -> Result<[Option<Rc<Lane>>; 3], Failure> {
        let mut lanes = [None, None, None];
        for way in WAYS.into_iter().filter(|way| letters.iter().any(|letter| self.way(letter) == *way)) {
            let lane = self.lane(live, way, call.until).await?;
            let full = || Failure::Throttled(("too many messages wait to be confirmed by RabbitMQ".to_owned(), 0));
            in_time(call.until, lane.room()).await.ok_or_else(full)?;
            lanes[way as usize] = Some(lane);
        }
        Ok(lanes)
    }

    fn write(&self, live: &Live, lane: &Lane, call: &Rc<Call>, letter: Letter) {
        let Letter { index, topic, out: Outgoing { routing_key, mut properties, body } } = letter;
        let id = match &properties.message_id {
            Some(given) => Id::Given(given.clone()),
            None => {
                let number = self.number.replace(self.number.get() + 1);
                properties.message_id = Some(own_id(&self.nonce, number));
                Id::Ours(number)
            }
        };
        // A message that comes back is as large as it was: nobody needs to hear of the same topic again and again.
        let mandatory = !self.settings.allow_unroutable || !topic.is_warned(self.wire.about_now());
        let sent = Sent { call: Rc::clone(call), index, topic, id, bytes: body.len(), returned: false };
        let message = Publish {
            exchange: &sent.topic.name,
            routing_key: &routing_key,
            properties: &properties,
            body: &body,
            mandatory,
        };
        live.push(|bytes| publish(bytes, lane.channel.number, live.agreed.frame_max, &message));
        lane.book.confirms.borrow_mut().push(sent);
    }

    /// Writes, unless the call is over before that.
    async fn flush(&self, live: &Live, call: &Call) {
        let writing = live.flush();
        let over = call.over();
        pin_mut!(writing);
        pin_mut!(over);
        if let Either::Left(((), writing)) = select(over, writing).await {
            // Mostly all was written, and only the news of that is on its way: to drop the write would break the connection.
            timer::timeout(WRITE_WAIT, writing).await;
        }
    }

    async fn declare_all(&self, live: &Rc<Live>, call: &Call, letters: &mut Vec<Letter>) -> Result<(), Failure> {
        let mut refused: Vec<(Rc<Topic>, Failure)> = Vec::new();
        for at in 0..letters.len() {
            let topic = Rc::clone(&letters[at].topic);
            let known = |(known, _): &(Rc<Topic>, Failure)| Rc::ptr_eq(known, &topic);
            if topic.declared.get() == live.serial || refused.iter().any(known) {
                continue;
            }
            let over = || Failure::Transient(format!("topic {:?}: its exchange was not declared in time", topic.name));
            match in_time(call.until, self.declare(live, &topic)).await.ok_or_else(over)? {
                Ok(()) => {}
                // Another try, on another connection.
                Err(_) if live.is_ended() => return Ok(()),
                Err(failure) => refused.push((topic, failure)),
            }
        }
        for (topic, failure) in refused {
            letters.retain(|letter| {
                let refused = Rc::ptr_eq(&letter.topic, &topic);
                if refused {
                    call.settle(letter.index, Err(failure.clone()));
                }
                !refused
            });
        }
        Ok(())
    }

    async fn declare(&self, live: &Rc<Live>, topic: &Topic) -> Result<(), Failure> {
        let mut channel = self.declaring.lock().await;
        if topic.declared.get() == live.serial {
            return Ok(());
        }
        if let Some(failure) = topic.refused(timer::now()) {
            return Err(failure);
        }
        let what = format!("topic {:?}", topic.name);
        let usable = channel.take().filter(|channel| channel.live().is_ok_and(|other| Rc::ptr_eq(&other, live)));
        let usable = match usable {
            Some(usable) => usable,
            None => live.open(Box::new(|_| ())).await.map_err(|lost| lost.failure(&what))?,
        };
        let declared = &self.settings.declared;
        let declare = Declare { durable: declared.durable, auto_delete: declared.auto_delete };
        let request = Request::Exchange { name: &topic.name, kind: declared.exchange_kind, declare };
        let answer = usable.call(request).await;
        match answer {
            Ok(()) => topic.declared.set(live.serial),
            Err(lost) => {
                let failure = lost.failure(&what);
                if matches!(lost, Lost::Closed(_)) {
                    topic.refuse(timer::now(), failure.clone());
                }
                return Err(failure);
            }
        }
        *channel = Some(usable);
        Ok(())
    }

    /// A channel; opens it.
    async fn lane(self: &Rc<Self>, live: &Rc<Live>, way: Way, until: Instant) -> Result<Rc<Lane>, Failure> {
        let opening = async {
            let mut lane = self.lanes[way as usize].lock().await;
            match lane.as_ref().filter(|lane| lane.serial == live.serial && lane.channel.is_open()) {
                Some(lane) => Ok(Rc::clone(lane)),
                None => {
                    let opened = self.open_lane(live).await.map_err(|lost| lost.failure("publishing"))?;
                    Ok(Rc::clone(lane.insert(opened)))
                }
            }
        };
        let over = || Failure::Transient("no channel to publish on was opened in time".to_owned());
        in_time(until, opening).await.ok_or_else(over)?
    }

    async fn open_lane(self: &Rc<Self>, live: &Rc<Live>) -> Result<Rc<Lane>, Lost> {
        let book = Rc::new(Book::default());
        let (kept, publisher) = (Rc::clone(&book), Rc::downgrade(self));
        let listener = move |event| {
            if let Some(publisher) = publisher.upgrade() {
                publisher.hear(&kept, event);
            }
        };
        let channel = live.open(Box::new(listener)).await?;
        channel.call(Request::ConfirmSelect).await?;
        Ok(Rc::new(Lane { channel, serial: live.serial, book }))
    }

    fn hear(&self, book: &Book, event: Event) {
        match event {
            Event::Confirmed { tag, multiple, ok } => {
                let answered = book.confirms.borrow_mut().take(tag, multiple);
                for sent in answered {
                    self.size_proven.set(self.size_proven.get().max(sent.bytes));
                    sent.answered(ok);
                }
            }
            Event::Returned { exchange, content, .. } => {
                let id = content.properties.message_id.unwrap_or_default();
                self.returned(book, &exchange, &id);
            }
            Event::Lost(lost) => {
                let left = book.confirms.borrow_mut().take_all();
                left.into_iter().for_each(|sent| self.lost(sent, &lost));
            }
            Event::Delivered { .. } | Event::Cancelled => {}
        }
        book.room.ring();
    }

    /// No queue took a message.
    fn returned(&self, book: &Book, exchange: &str, id: &str) {
        if self.settings.allow_unroutable {
            let topic = self.topics.get(exchange);
            if !topic.is_warned(self.wire.about_now()) {
                topic.warn(self.wire.about_now());
                self.health.data_loss(format!(
                    "topic {exchange:?} has no queue that takes what is published to it: such messages are gone \
                     (metadata allowUnroutable: false makes that an error)"
                ));
            }
            return;
        }
        let is_it = |sent: &&mut Sent| match &sent.id {
            Id::Given(given) => given == id,
            Id::Ours(number) => own_id(&self.nonce, *number) == id,
        };
        book.confirms.borrow_mut().iter_mut().filter(is_it).for_each(|sent| sent.returned = true);
    }

    /// The channel is gone, and nobody will ever know whether the message was stored.
    fn lost(&self, sent: Sent, lost: &Lost) {
        let Sent { call, index, topic, bytes, .. } = sent;
        let unknown = Failure::Unknown(format!("sent to RabbitMQ, but not confirmed: {}", lost.why()));
        let failure = match lost {
            Lost::Closed(closed) if names_exchange(closed, &topic.name) && is_refused(closed) => {
                let failure = of_closed(closed, &format!("topic {:?}", topic.name));
                topic.refuse(timer::now(), failure.clone());
                failure
            }
            Lost::Closed(closed) if names_exchange(closed, &topic.name) && is_missing(closed) => {
                topic.forget();
                unknown
            }
            Lost::Closed(closed) => match size_limit(closed) {
                Some(max) if bytes > max => {
                    self.size_max.set(max);
                    too_large(bytes, max)
                }
                _ => unknown,
            },
            Lost::Broken(_) => unknown,
        };
        call.settle(index, Err(failure));
    }

    fn watch(&self, call: &Rc<Call>) {
        let mut calls = self.calls.borrow_mut();
        calls.push(Rc::downgrade(call));
        if calls.len() == 1 {
            self.calling.raise();
        }
    }

    /// Gives up on calls whose time is over, for as long as anybody publishes.
    pub(crate) async fn expire(this: Weak<Self>) {
        loop {
            let Some(publisher) = this.upgrade() else { return };
            if publisher.calls.borrow().is_empty() {
                publisher.calling.wait().await;
            }
            drop(publisher);
            timer::sleep(EXPIRE_EVERY).await;
            let Some(publisher) = this.upgrade() else { return };
            let now = timer::now();
            publisher.calls.borrow_mut().retain(|call| call.upgrade().is_some_and(|call| call.is_pending(now)));
        }
    }

    /// Ends [`expire`](Self::expire).
    pub(crate) fn close(&self) {
        self.calling.raise();
    }
}

impl Lane {
    async fn room(&self) {
        while self.book.confirms.borrow().span() >= UNCONFIRMED_MAX && self.channel.is_open() {
            self.book.room.wait().await;
        }
    }
}

impl Sent {
    fn answered(self, ok: bool) {
        let Self { call, index, topic, returned, .. } = self;
        let name = &topic.name;
        let result = match (ok, returned) {
            (true, false) => Ok(()),
            (true, true) => Err(Failure::Transient(format!(
                "no-queue: topic {name:?} has no queue that takes this message, and nobody would get it \
                 (metadata allowUnroutable: true takes that for a success)"
            ))),
            (false, _) => Err(Failure::Throttled((
                format!("RabbitMQ refuses messages for topic {name:?}: one of its queues is full, or cannot write"),
                0,
            ))),
        };
        topic.proven.set(true);
        call.settle(index, result);
    }
}

fn too_large(bytes: usize, max: usize) -> Failure {
    Failure::Invalid(format!(
        "the message has {bytes} bytes, more than the {max} that RabbitMQ takes (its max_message_size)"
    ))
}

/// What the future answers, unless the time is over before.
async fn in_time<T>(until: Instant, future: impl Future<Output = T>) -> Option<T> {
    pin_mut!(future);
    // Mostly there is nothing to wait for, and then no timer is needed.
    match futures::poll!(future.as_mut()) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => timer::timeout(until.saturating_duration_since(timer::now()), future).await,
    }
}
