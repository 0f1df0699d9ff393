//! Publishing: each topic's exchange is declared, messages are written in one go, and answered when RabbitMQ has confirmed.
//!
//! A broker that refuses a message (no permission, too large) ends the channel it came on, and nobody knows what became
//! of all others in flight there. So there are three: one for what the broker has taken before, one for topics that it has
//! not confirmed a message for, and one for messages larger than any it has confirmed. Who may not publish, or publishes
//! what is too large, harms nobody else.

mod answers;
mod declare;
mod lane;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use futures::lock::Mutex;
use futures::pin_mut;
use whimbrel_sdk::{Failure, Message, timer};

use self::lane::{Book, Id, Lane, Sent, WAYS, Way};
use crate::call::Call;
use crate::channel::Channel;
use crate::config::Settings;
use crate::failure::Lost;
use crate::live::Live;
use crate::message::{Outgoing, outgoing, own_id};
use crate::protocol::{FRAME_MIN_BYTES, MESSAGE_MAX_BYTES, Publish, Request, publish};
use crate::topics::{Topic, Topics};
use crate::wire::Wire;
use whimbrel_sdk::health::Health;
use whimbrel_sdk::signal::Signal;

/// How long a write may go on once it was answered.
const WRITE_WAIT: Duration = Duration::from_secs(1);

/// A message of so many bytes is taken for one that any broker takes.
const SIZE_PROVEN_BYTES: usize = 64 << 10;

/// One result for each message.
pub(crate) type Results = Vec<Result<(), Failure>>;

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
