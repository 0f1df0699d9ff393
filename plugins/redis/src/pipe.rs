//! The main connection: everything but blocking reads goes through it, pipelined, and its replies come back in order.
//!
//! Requests wait in a bounded queue while the connection is down. It is made again for ever; what was written when it
//! broke is answered as lost, what was not goes to the next one.
//!
//! Whoever has a request writes it, with all that is queued, unless somebody is writing already: to wake another task for
//! that is a round through the host.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::net::{Reader, Writer};
use whimbrel_sdk::{Failure, timer};

use crate::config::Settings;
use crate::connection::{Link, Progress, Why, dial, next};
use crate::failure::Lost;
use crate::health::Standing;
use crate::protocol::{Decoder, Reply, command};
use whimbrel_sdk::signal::Signal;

/// Requests that wait to be written or answered, at most.
const QUEUE_MAX: usize = 4096;

/// Bytes of requests that wait to be written, at most. One request is taken however large it is.
const QUEUE_MAX_BYTES: usize = 32 << 20;

/// Requests are written together up to about this many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// While the connection is down, the queue is searched this often for requests whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_millis(50);

/// A connection over which nothing went for so many periods of `readTimeout` is asked for a sign of life.
const QUIET_PERIODS: u32 = 5;

/// What becomes of a request.
pub(crate) enum Answer<'a> {
    /// One reply.
    Reply(Reply<'a>),
    /// No more replies.
    Lost(Lost),
}

/// Is called once for each reply, or once with the reason why there are no more. It must not call the pipe.
pub(crate) type Taker = Box<dyn FnMut(Answer<'_>)>;

/// Commands that are written together.
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// How many replies belong to it. At least 1.
    pub(crate) replies: usize,
    pub(crate) taker: Taker,
    /// When it is of no more use, if it still waits to be written.
    pub(crate) deadline: Instant,
}

/// See the module.
pub(crate) struct Pipe {
    settings: Rc<Settings>,
    name: String,
    queue: RefCell<VecDeque<Request>>,
    queue_bytes: Cell<usize>,
    sent: RefCell<VecDeque<Request>>,
    /// The open connection's writing half, while nobody writes.
    writer: RefCell<Option<Writer>>,
    /// How many connections have ended; a writer of one of them is of no use.
    connections: Cell<u64>,
    /// Why writing failed, for the task that serves the connection.
    broken: RefCell<Option<Why>>,
    work: Signal,
    progress: Progress,
    /// Why it is down.
    why: RefCell<Why>,
    closing: Cell<bool>,
    connected: Cell<bool>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl Pipe {
    /// A pipe without a connection: [`run`](Self::run) serves it.
    pub(crate) fn new(settings: Rc<Settings>, name: String) -> Rc<Self> {
        Rc::new(Self {
            settings,
            name,
            queue: RefCell::default(),
            queue_bytes: Cell::new(0),
            sent: RefCell::default(),
            writer: RefCell::default(),
            connections: Cell::new(0),
            broken: RefCell::default(),
            work: Signal::default(),
            progress: Progress::default(),
            why: RefCell::default(),
            closing: Cell::new(false),
            connected: Cell::new(false),
        })
    }

    /// Queues a request for the task that serves the connection. Its taker is called at once if there is no room.
    pub(crate) fn submit(&self, request: Request) {
        self.enqueue(request);
        self.work.raise();
    }

    /// Queues a request, writes it if nobody else does, and waits for what its taker tells.
    pub(crate) async fn ask<T>(&self, request: Request, answered: oneshot::Receiver<T>) -> Option<T> {
        self.enqueue(request);
        let connection = self.connections.get();
        let writing = self.flush();
        pin_mut!(writing);
        match select(answered, writing).await {
            Either::Right(((), answered)) => answered.await.ok(),
            Either::Left((answer, writing)) => {
                // Unless the connection has ended, all was written, for this request was the last of it, and only the news
                // of that is on its way: to drop the write now would break a sound connection.
                if connection == self.connections.get() {
                    timer::timeout(self.settings.read_wait, writing).await;
                }
                answer.ok()
            }
        }
    }

    fn enqueue(&self, mut request: Request) {
        let (waiting, bytes) = (self.queue.borrow().len() + self.sent.borrow().len(), self.queue_bytes.get());
        let full = waiting >= QUEUE_MAX || (bytes > 0 && bytes + request.bytes.len() > QUEUE_MAX_BYTES);
        if full || self.closing.get() {
            let why = if full { "too much waits to be sent" } else { "the connection is closing" };
            (request.taker)(Answer::Lost(Lost::Unsent(why.to_owned())));
            return;
        }
        self.queue_bytes.set(bytes + request.bytes.len());
        self.queue.borrow_mut().push_back(request);
    }

    /// Writes what is queued now, if there is a connection and nobody else writes. What is queued meanwhile is for the task
    /// that serves the connection: nobody's answer waits for the requests of others.
    async fn flush(&self) {
        let Some(writer) = self.writer.take() else { return };
        let mut turn = Turn { pipe: self, connection: self.connections.get(), writer: Some(writer) };
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

    /// Sends one command, and returns what `read` makes of its reply.
    ///
    /// # Errors
    /// There is no reply.
    pub(crate) async fn call<T: 'static>(
        &self,
        bytes: Vec<u8>,
        patience: Duration,
        read: impl FnOnce(Reply<'_>) -> T + 'static,
    ) -> Result<T, Lost> {
        let (sender, answered) = oneshot::channel();
        let mut once = Some((sender, read));
        let taker: Taker = Box::new(move |answer| {
            let Some((sender, read)) = once.take() else { return };
            let result = match answer {
                Answer::Reply(reply) => Ok(read(reply)),
                Answer::Lost(lost) => Err(lost),
            };
            // Whoever asked may be gone.
            sender.send(result).ok();
        });
        let answer =
            self.ask(Request { bytes, replies: 1, taker, deadline: Instant::now() + patience }, answered).await;
        answer.unwrap_or_else(|| Err(Lost::Unanswered("the connection is closing".to_owned())))
    }

    /// Serves until [`close`](Self::close). `lost` is called each time a connection is lost.
    pub(crate) async fn run(&self, first: Link, standing: Standing, lost: impl Fn()) {
        let mut backoff = Backoff::default();
        let mut link = Some(first);
        loop {
            let link = match link.take() {
                Some(link) => link,
                None => match self.reconnect(&mut backoff, &standing).await {
                    Some(link) => link,
                    None => break,
                },
            };
            standing.is_up();
            self.connected.set(true);
            let since = Instant::now();
            let why = self.serve(link).await;
            self.connected.set(false);
            if self.closing.get() {
                break;
            }
            // A server that accepts and hangs up at once must not be asked ever faster.
            backoff.lived(since.elapsed());
            self.why.replace(why.clone());
            standing.is_down(&why);
            self.lose_sent(&why);
            lost();
        }
        self.lose_sent("the connection was closed");
        self.expire(None);
    }

    /// Takes nothing more, says goodbye after what is queued, and lets the connection end.
    pub(crate) async fn close(&self, patience: Duration) {
        if self.connected.get() {
            let mut bytes = Vec::new();
            command(&mut bytes, &[b"QUIT"]);
            let (sender, answered) = oneshot::channel::<()>();
            let mut sender = Some(sender);
            let taker: Taker = Box::new(move |_| drop(sender.take()));
            self.submit(Request { bytes, replies: 1, taker, deadline: Instant::now() + patience });
            self.closing.set(true);
            self.work.raise();
            // A server that does not answer is left.
            timer::timeout(patience, answered).await;
        }
        self.closing.set(true);
        self.work.raise();
    }

    async fn reconnect(&self, backoff: &mut Backoff, standing: &Standing) -> Option<Link> {
        let dialling = async {
            loop {
                timer::sleep(backoff.next_wait()).await;
                if self.closing.get() {
                    return None;
                }
                match dial(&self.settings, &self.name, self.settings.dial_wait).await {
                    Ok(link) => return Some(link),
                    Err(failure) => {
                        let why = text(failure);
                        standing.is_down(&why);
                        self.why.replace(why);
                    }
                }
            }
        };
        let expiring = async {
            loop {
                timer::sleep(EXPIRE_EVERY).await;
                self.expire(Some(Instant::now()));
            }
        };
        pin_mut!(dialling);
        pin_mut!(expiring);
        match select(dialling, expiring).await {
            Either::Left((link, _)) => link,
            Either::Right(((), _)) => None,
        }
    }

    /// Serves one connection, and returns why it ended.
    async fn serve(&self, link: Link) -> Why {
        let Link { reader, writer, decoder, .. } = link;
        let mut quiet = 0;
        let reading = self.read(reader, decoder);
        let writing = self.write(writer);
        let watching = self.progress.watch(self.settings.read_wait, || {
            quiet += 1;
            if quiet % QUIET_PERIODS == 0 {
                self.ask_for_life();
            }
        });
        pin_mut!(reading);
        pin_mut!(writing);
        pin_mut!(watching);
        let traffic = select(reading, writing);
        let why = match select(traffic, watching).await {
            Either::Left((Either::Left((why, _)) | Either::Right((why, _)), _)) | Either::Right((why, _)) => why,
        };
        // Whoever still writes on it has lost its turn.
        self.connections.set(self.connections.get() + 1);
        self.writer.take();
        why
    }

    fn ask_for_life(&self) {
        let mut bytes = Vec::new();
        command(&mut bytes, &[b"PING"]);
        let deadline = Instant::now() + self.settings.read_wait;
        self.submit(Request { bytes, replies: 1, taker: Box::new(|_| ()), deadline });
    }

    /// Writes what nobody waits for, and returns why the connection ended.
    async fn write(&self, writer: Writer) -> Why {
        self.broken.take();
        self.writer.replace(Some(writer));
        loop {
            self.flush().await;
            if let Some(why) = self.broken.take() {
                return why;
            }
            let all_written = self.queue.borrow().is_empty() && self.sent.borrow().is_empty();
            if self.closing.get() && all_written {
                return "closed".to_owned();
            }
            self.work.wait().await;
        }
    }

    /// Moves requests from those that wait to those that wait for replies, and returns their bytes.
    fn take_queued(&self) -> Vec<u8> {
        let mut queue = self.queue.borrow_mut();
        let mut sent = self.sent.borrow_mut();
        let mut bytes = Vec::new();
        while bytes.len() < WRITE_BYTES {
            let Some(mut request) = queue.pop_front() else { break };
            self.queue_bytes.set(self.queue_bytes.get() - request.bytes.len());
            if bytes.is_empty() {
                // Mostly there is only one: nothing is copied then.
                bytes = std::mem::take(&mut request.bytes);
            } else {
                bytes.extend_from_slice(&std::mem::take(&mut request.bytes));
            }
            sent.push_back(request);
        }
        self.progress.waiting.set(!sent.is_empty());
        bytes
    }

    async fn read(&self, mut reader: Reader, mut decoder: Decoder) -> Why {
        loop {
            match next(&mut reader, &mut decoder).await {
                Err(why) => return why,
                Ok(parsed) => {
                    if !self.take_reply(decoder.reply(&parsed)) {
                        return "Redis answered what nobody asked".to_owned();
                    }
                }
            }
        }
    }

    fn take_reply(&self, reply: Reply<'_>) -> bool {
        let mut sent = self.sent.borrow_mut();
        let Some(request) = sent.front_mut() else { return false };
        self.progress.one_more();
        (request.taker)(Answer::Reply(reply));
        request.replies -= 1;
        if request.replies == 0 {
            sent.pop_front();
            self.progress.waiting.set(!sent.is_empty());
            if self.closing.get() {
                self.work.raise();
            }
        }
        true
    }

    fn lose_sent(&self, why: &str) {
        self.progress.waiting.set(false);
        for mut request in self.sent.take() {
            (request.taker)(Answer::Lost(Lost::Unanswered(why.to_owned())));
        }
    }

    /// Gives up on requests that were not written in time; on all, without a time.
    fn expire(&self, now: Option<Instant>) {
        let is_over = |request: &Request| now.is_none_or(|now| request.deadline <= now);
        let (over, queue): (VecDeque<_>, VecDeque<_>) = self.queue.take().into_iter().partition(is_over);
        self.queue_bytes.set(queue.iter().map(|request| request.bytes.len()).sum());
        self.queue.replace(queue);
        for mut request in over {
            (request.taker)(Answer::Lost(Lost::Unsent(self.why.borrow().clone())));
        }
    }
}

/// The right to write on a connection. Given up in the middle of a write, it takes the connection along: nobody knows how
/// much of a command has gone out.
struct Turn<'a> {
    pipe: &'a Pipe,
    connection: u64,
    writer: Option<Writer>,
}

impl Turn<'_> {
    /// It is written; the next one may. A connection that has ended meanwhile has nothing to write with any more.
    fn end(&mut self) {
        let writer = self.writer.take();
        if self.connection == self.pipe.connections.get() {
            self.pipe.writer.replace(writer);
            if !self.pipe.queue.borrow().is_empty() {
                self.pipe.work.raise();
            }
        }
    }

    fn fail(&mut self, why: Why) {
        self.writer = None;
        if self.connection == self.pipe.connections.get() {
            self.pipe.broken.replace(Some(why));
            self.pipe.work.raise();
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

/// What a failure says.
pub(crate) fn text(failure: Failure) -> String {
    match failure {
        Failure::Transient(text)
        | Failure::Unknown(text)
        | Failure::Permanent(text)
        | Failure::Throttled((text, _))
        | Failure::Unauthorized(text)
        | Failure::Invalid(text) => text,
    }
}
