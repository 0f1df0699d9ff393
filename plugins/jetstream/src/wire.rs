//! The connection to the broker: publishes, requests, acknowledgements and deliveries all go over it, pipelined.
//!
//! Each request carries the subject that its answers come to, with a number in it, so that answers may come in any order. What
//! must not get lost waits in a bounded queue while the connection is down; it is made again for ever. What was written when it
//! broke is answered as lost, what was not goes to the next one.
//!
//! Whoever has a request writes it, with all that is queued, unless somebody is writing already: to wake another task for
//! that is a round through the host.

mod gather;
mod serve;

pub(crate) use gather::gather;
pub(crate) use serve::Watcher;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::net::Writer;
use whimbrel_sdk::timer;

use crate::config::{Server, Settings};
use crate::connection::Why;
use crate::failure::Lost;
use crate::protocol::{Info, Msg, publish, subscribe, unsubscribe};
use whimbrel_sdk::signal::Signal;

/// Requests that wait to be written or answered, at most.
const REQUESTS_MAX: usize = 8192;

/// Bytes that wait to be written, at most. One request is taken however large it is.
const QUEUE_MAX_BYTES: usize = 32 << 20;

/// What waits is written together up to about this many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// How long a write may still take once its answers are there.
const WRITE_WAIT: Duration = Duration::from_secs(3);

/// Bytes of a message that headers may need besides the metadata itself.
const HEADER_BYTES: usize = 1024;

/// What becomes of a request.
pub(crate) enum Answer<'a> {
    /// An answer, and to which of the request's parts.
    Msg(usize, Msg<'a>),
    /// The user may not publish to this subject, which some of the parts may be for.
    Denied(&'a str),
    /// No more answers.
    Lost(Lost),
}

/// Is called with each answer, and says whether that was the last. It must not call the wire.
pub(crate) type Taker = Box<dyn FnMut(Answer<'_>) -> bool>;

/// What is done with the messages of a subscription. It must not wait.
pub(crate) type Route = Rc<dyn Fn(Msg<'_>)>;

/// Lines that are written together, and whose answers come to the subjects that [`Wire::number`] gave.
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) taker: Taker,
    /// When nobody waits for answers any more.
    pub(crate) deadline: Instant,
}

/// A request that still wants answers.
struct Asked {
    taker: Taker,
    deadline: Instant,
    written: bool,
}

/// Bytes to be written.
struct Waiting {
    bytes: Vec<u8>,
    /// The request they belong to. None: they mean something on this connection only.
    number: Option<u64>,
}

/// See the module.
pub(crate) struct Wire {
    settings: Rc<Settings>,
    /// Where answers come to, without the numbers.
    inbox: String,
    /// Where messages of subscriptions come to, without the number.
    mailbox: String,
    queue: RefCell<VecDeque<Waiting>>,
    queue_bytes: Cell<usize>,
    asked: RefCell<HashMap<u64, Asked>>,
    routes: RefCell<HashMap<u64, Route>>,
    /// Who waits for an answer to `PING`, in order; none: nobody cares.
    pongs: RefCell<VecDeque<Option<oneshot::Sender<()>>>>,
    next: Cell<u64>,
    info: RefCell<Info>,
    /// The servers, those that they told of included. The one in use is the first.
    servers: RefCell<VecDeque<Server>>,
    /// The open connection's writing half, while nobody writes.
    writer: RefCell<Option<Writer>>,
    /// Which connection this is, counted from 1.
    epoch: Cell<u64>,
    /// Why writing failed, for the task that serves the connection.
    broken: RefCell<Option<Why>>,
    work: Signal,
    /// There is something to wait for.
    awaited: Signal,
    heard: Cell<bool>,
    /// Why it is down.
    why: RefCell<Why>,
    closing: Cell<bool>,
    connected: Cell<bool>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("connected", &self.connected).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Wire {
    /// A wire without a connection: [`run`](Self::run) serves it.
    pub(crate) fn new(settings: Rc<Settings>) -> Rc<Self> {
        let own = format!("{}.{:016x}", settings.inbox_prefix, fastrand::u64(..));
        let servers = settings.servers.iter().cloned().collect();
        Rc::new(Self {
            settings,
            inbox: format!("{own}.r"),
            mailbox: format!("{own}.m"),
            queue: RefCell::default(),
            queue_bytes: Cell::new(0),
            asked: RefCell::default(),
            routes: RefCell::default(),
            pongs: RefCell::default(),
            next: Cell::new(2),
            info: RefCell::default(),
            servers: RefCell::new(servers),
            writer: RefCell::default(),
            epoch: Cell::new(0),
            broken: RefCell::default(),
            work: Signal::default(),
            awaited: Signal::default(),
            heard: Cell::new(false),
            why: RefCell::default(),
            closing: Cell::new(false),
            connected: Cell::new(false),
        })
    }

    /// Which connection this is. What was handed out on an earlier one means nothing on this one.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// Whether there is a connection.
    pub(crate) fn is_up(&self) -> bool {
        self.connected.get()
    }

    /// The most bytes a message may have, headers included.
    pub(crate) fn max_payload(&self) -> usize {
        self.info.borrow().max_payload
    }

    /// The most bytes that the data and metadata of a message may have. 0: not known.
    pub(crate) fn max_message(&self) -> usize {
        self.max_payload().saturating_sub(HEADER_BYTES)
    }

    /// Whether the server says that it has JetStream.
    pub(crate) fn has_jetstream(&self) -> bool {
        self.info.borrow().jetstream
    }

    /// A number for a request or a subscription.
    pub(crate) fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// Writes the subject that the answer to a part of a request comes to.
    pub(crate) fn reply_to(&self, out: &mut String, number: u64, part: usize) {
        out.clear();
        out.push_str(&self.inbox);
        let mut digits = itoa::Buffer::new();
        out.push('.');
        out.push_str(digits.format(number));
        out.push('.');
        out.push_str(digits.format(part));
    }

    /// The subject that messages of a subscription of ours come to.
    pub(crate) fn mailbox(&self, sid: u64) -> String {
        format!("{}.{sid}", self.mailbox)
    }

    /// Queues a request, writes it if nobody else does, and waits for what its taker tells.
    pub(crate) async fn ask<T>(&self, request: Request, answered: oneshot::Receiver<T>) -> Option<T> {
        self.enqueue(request);
        let epoch = self.epoch.get();
        let writing = self.flush();
        pin_mut!(writing);
        match select(answered, writing).await {
            Either::Right(((), answered)) => answered.await.ok(),
            Either::Left((answer, writing)) => {
                // Unless the connection has ended, all was written, for this request was the last of it, and only the news
                // of that is on its way: to drop the write now would break a sound connection.
                if epoch == self.epoch.get() && self.connected.get() {
                    timer::timeout(WRITE_WAIT, writing).await;
                }
                answer.ok()
            }
        }
    }

    /// Asks one thing, and returns what `read` makes of the answer.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn call<T: 'static>(
        &self,
        subject: &str,
        payload: &[u8],
        patience: Duration,
        read: impl Fn(Msg<'_>) -> T + 'static,
    ) -> Result<T, Lost> {
        let number = self.number();
        let (mut reply, mut bytes) = (String::new(), Vec::new());
        self.reply_to(&mut reply, number, 0);
        publish(&mut bytes, subject, Some(&reply), payload);
        let own = subject.to_owned();
        let (taker, answered) = gather(1, move |_, subject| subject == own, move |_, msg| read(msg));
        let request = Request { number, bytes, taker, deadline: timer::now() + patience };
        let answers = self.ask(request, answered).await;
        let closing = || Err(Lost::Unanswered("the connection is closing".to_owned()));
        answers.and_then(|answers| answers.into_iter().next()).unwrap_or_else(closing)
    }

    /// Subscribes, on this connection.
    pub(crate) fn subscribe(&self, sid: u64, subject: &str, group: Option<&str>, route: Route) {
        let mut bytes = Vec::new();
        subscribe(&mut bytes, subject, group, sid);
        self.routes.borrow_mut().insert(sid, route);
        self.say(bytes);
    }

    /// Unsubscribes. What the server has sent before it hears of that still comes, until [`settled`](Self::settled) returns.
    pub(crate) fn unsubscribe(&self, sid: u64) {
        let mut bytes = Vec::new();
        unsubscribe(&mut bytes, sid);
        self.say(bytes);
    }

    /// Takes nothing more for a subscription.
    pub(crate) fn forget(&self, sid: u64) {
        self.routes.borrow_mut().remove(&sid);
    }

    /// Says something that means nothing on another connection.
    pub(crate) fn say(&self, bytes: Vec<u8>) {
        if self.connected.get() {
            self.queue_bytes.set(self.queue_bytes.get() + bytes.len());
            self.queue.borrow_mut().push_back(Waiting { bytes, number: None });
            self.work.raise();
        }
    }

    /// Returns once the server has heard all that was said before, and has said all that it had to say until then. False:
    /// the connection was lost, or it took too long.
    pub(crate) async fn settled(&self, patience: Duration) -> bool {
        if !self.connected.get() {
            return false;
        }
        let (sender, answered) = oneshot::channel();
        self.ping(Some(sender));
        matches!(timer::timeout(patience, answered).await, Some(Ok(())))
    }

    fn ping(&self, who: Option<oneshot::Sender<()>>) {
        self.pongs.borrow_mut().push_back(who);
        self.say(crate::protocol::PING.to_vec());
    }

    fn enqueue(&self, request: Request) {
        let Request { number, bytes, mut taker, deadline } = request;
        let (waiting, queued) = (self.asked.borrow().len(), self.queue_bytes.get());
        let full = waiting >= REQUESTS_MAX || (queued > 0 && queued + bytes.len() > QUEUE_MAX_BYTES);
        if full || self.closing.get() {
            let why = if full { "too much waits to be sent" } else { "the connection is closing" };
            taker(Answer::Lost(Lost::Unsent(why.to_owned())));
            return;
        }
        self.queue_bytes.set(queued + bytes.len());
        self.asked.borrow_mut().insert(number, Asked { taker, deadline, written: false });
        self.queue.borrow_mut().push_back(Waiting { bytes, number: Some(number) });
        if waiting == 0 {
            self.awaited.raise();
        }
    }

    /// Writes what is queued now, if there is a connection and nobody else writes. What is queued meanwhile is for the task
    /// that serves the connection: nobody's answer waits for the requests of others.
    async fn flush(&self) {
        let Some(writer) = self.writer.take() else { return };
        let mut turn = Turn { wire: self, epoch: self.epoch.get(), writer: Some(writer) };
        let bytes = self.take_queued();
        let written = match &mut turn.writer {
            Some(writer) if !bytes.is_empty() => writer.write_all(bytes).await,
            _ => Ok(()),
        };
        match written {
            Ok(()) => turn.end(),
            Err(error) => turn.fail(error.to_string()),
        }
    }

    /// Takes what is to be written next, and notes what is.
    fn take_queued(&self) -> Vec<u8> {
        let mut queue = self.queue.borrow_mut();
        let mut asked = self.asked.borrow_mut();
        let mut bytes = Vec::new();
        while bytes.len() < WRITE_BYTES {
            let Some(waiting) = queue.pop_front() else { break };
            self.queue_bytes.set(self.queue_bytes.get() - waiting.bytes.len());
            if let Some(asked) = waiting.number.and_then(|number| asked.get_mut(&number)) {
                asked.written = true;
            }
            if bytes.is_empty() {
                // Mostly there is only one: nothing is copied then.
                bytes = waiting.bytes;
            } else {
                bytes.extend_from_slice(&waiting.bytes);
            }
        }
        bytes
    }

    /// Tells everyone whose request was written, or all, that there is no answer, and what waits for this connection only is
    /// of no use any more.
    fn lose(&self, why: &str, all: bool) {
        let mut lost = Vec::new();
        self.asked.borrow_mut().retain(|_, asked| {
            let keep = !all && !asked.written;
            if !keep {
                let taker = std::mem::replace(&mut asked.taker, Box::new(|_| true));
                lost.push((taker, asked.written));
            }
            keep
        });
        self.drop_queued(|waiting| waiting.number.is_none() || all);
        self.pongs.take();
        self.routes.borrow_mut().clear();
        for (mut taker, written) in lost {
            let why = why.to_owned();
            taker(Answer::Lost(if written { Lost::Unanswered(why) } else { Lost::Unsent(why) }));
        }
    }

    /// Gives up on requests whose time is over.
    fn expire(&self, now: Instant) {
        let mut asked = self.asked.borrow_mut();
        let over: Vec<u64> =
            asked.iter().filter(|(_, asked)| asked.deadline <= now).map(|(number, _)| *number).collect();
        let over: Vec<(u64, Asked)> =
            over.into_iter().filter_map(|number| Some((number, asked.remove(&number)?))).collect();
        drop(asked);
        if over.is_empty() {
            return;
        }
        let unwritten = |number| over.iter().any(|(other, asked)| *other == number && !asked.written);
        self.drop_queued(|waiting| waiting.number.is_some_and(unwritten));
        for (_, mut asked) in over {
            asked.taker.as_mut()(Answer::Lost(match (asked.written, self.connected.get()) {
                (true, _) => Lost::Unanswered("no answer in time".to_owned()),
                (false, true) => Lost::Unsent("no turn in time".to_owned()),
                (false, false) => Lost::Unsent(self.why.borrow().clone()),
            }));
        }
    }

    fn drop_queued(&self, is_over: impl Fn(&Waiting) -> bool) {
        let mut queue = self.queue.borrow_mut();
        queue.retain(|waiting| !is_over(waiting));
        self.queue_bytes.set(queue.iter().map(|waiting| waiting.bytes.len()).sum());
    }
}

/// The right to write on a connection. Given up in the middle of a write, it takes the connection along: nobody knows how
/// much of a line has gone out.
struct Turn<'a> {
    wire: &'a Wire,
    epoch: u64,
    writer: Option<Writer>,
}

impl Turn<'_> {
    fn is_current(&self) -> bool {
        self.epoch == self.wire.epoch.get() && self.wire.connected.get()
    }

    /// It is written; the next one may. A connection that has ended meanwhile has nothing to write with any more.
    fn end(&mut self) {
        let writer = self.writer.take();
        if self.is_current() {
            self.wire.writer.replace(writer);
            if !self.wire.queue.borrow().is_empty() || self.wire.closing.get() {
                self.wire.work.raise();
            }
        }
    }

    fn fail(&mut self, why: Why) {
        self.writer = None;
        if self.is_current() {
            self.wire.broken.replace(Some(why));
            self.wire.work.raise();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.fail("a write was given up".to_owned());
        }
    }
}
