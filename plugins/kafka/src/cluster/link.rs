//! One connection to one broker, pipelined: answers come back in the order of the requests.
//!
//! Whoever asks writes, with all that is queued, unless somebody is writing already; what is queued meanwhile is for
//! the connection's own task. A connection ends once and for all: `slots` makes another.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::pin_mut;
use kafka_protocol::protocol::{Request, StrBytes};
use whimbrel_sdk::net::{Reader, Writer};
use whimbrel_sdk::{Failure, task, timer};

use super::CallError;
use super::dial::Dialled;
use super::frame::{self, Frames};
use super::versions::Versions;
use whimbrel_sdk::signal::Signal;

/// Requests that wait to be written or answered, at most.
const QUEUE_MAX: usize = 4096;

/// Bytes that wait to be written, at most. One request is taken however large it is.
const QUEUE_MAX_BYTES: usize = 32 << 20;

/// Requests are written together up to about this many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// A request that is to be written.
struct Queued {
    bytes: Vec<u8>,
    sent: Sent,
}

/// A request whose answer is awaited.
struct Sent {
    correlation: i32,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
    /// Without an answer by then, the broker is gone. `None`: there will be no answer, to be written is enough.
    due: Option<Instant>,
}

/// See the module.
pub(crate) struct Link {
    versions: Versions,
    client_id: StrBytes,
    expires: Option<Instant>,
    queue: RefCell<VecDeque<Queued>>,
    sent: RefCell<VecDeque<Sent>>,
    queued_bytes: Cell<usize>,
    /// The writing half, while nobody writes.
    writer: RefCell<Option<Writer>>,
    asked: Cell<i32>,
    has_answered: Cell<bool>,
    /// Why it ended.
    ended: RefCell<Option<String>>,
    more: Signal,
    busy: Signal,
    over: Signal,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Link {
    /// Takes a connection into service. `lost` is called once, when it has ended, with the reason.
    pub(crate) fn start(dialled: Dialled, client_id: StrBytes, lost: impl FnOnce(&str) + 'static) -> Rc<Self> {
        let Dialled { reader, writer, frames, versions, expires } = dialled;
        let link = Rc::new(Self {
            versions,
            client_id,
            expires,
            queue: RefCell::default(),
            sent: RefCell::default(),
            queued_bytes: Cell::new(0),
            writer: RefCell::new(Some(writer)),
            asked: Cell::new(0),
            has_answered: Cell::new(false),
            ended: RefCell::default(),
            more: Signal::default(),
            busy: Signal::default(),
            over: Signal::default(),
        });
        let served = Rc::clone(&link);
        task::spawn(async move {
            let why = served.serve(reader, frames).await;
            served.end(&why);
            lost(&why);
        });
        link
    }

    /// Whether requests may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.ended.borrow().is_none() && self.expires.is_none_or(|expires| timer::now() < expires)
    }

    /// Whether anything was answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered.get()
    }

    /// The version that a request is sent in.
    ///
    /// # Errors
    /// The broker does not know this request.
    pub(crate) fn version<R: Request>(&self) -> Result<i16, CallError> {
        self.versions.choose::<R>().ok_or_else(|| {
            CallError::Failure(Failure::Permanent(format!(
                "this Kafka broker and this adapter have no version of request {} in common: is it older than 2.1?",
                R::KEY
            )))
        })
    }

    /// Queues a request in its turn, and returns what waits for its answer, which must be polled. Without an answer for
    /// `patience` the connection is given up.
    pub(crate) fn ask<R: Request>(
        self: &Rc<Self>,
        request: &R,
        version: i16,
        patience: Duration,
    ) -> impl Future<Output = Result<R::Response, CallError>> + use<R> {
        let queued = self.queue(request, version, Some(patience));
        let link = Rc::clone(self);
        async move {
            let answer = link.written_and_answered(queued?).await?;
            frame::decode::<R>(answer, version).map_err(|why| {
                link.end(&why);
                CallError::Unanswered(why)
            })
        }
    }

    /// Sends a request that is never answered, and returns once it is handed to the network.
    pub(crate) fn tell<R: Request>(
        self: &Rc<Self>,
        request: &R,
        version: i16,
    ) -> impl Future<Output = Result<(), CallError>> + use<R> {
        let queued = self.queue(request, version, None);
        let link = Rc::clone(self);
        async move { link.written_and_answered(queued?).await.map(|_| ()) }
    }

    fn next_correlation(&self) -> i32 {
        self.asked.set(self.asked.get().wrapping_add(1));
        self.asked.get()
    }

    fn encode<R: Request>(&self, request: &R, version: i16, correlation: i32) -> Result<Vec<u8>, CallError> {
        frame::encode(request, version, correlation, &self.client_id)
            .map_err(|why| CallError::Failure(Failure::Permanent(why)))
    }

    fn queue<R: Request>(
        &self,
        request: &R,
        version: i16,
        patience: Option<Duration>,
    ) -> Result<oneshot::Receiver<Result<Bytes, CallError>>, CallError> {
        if let Some(why) = &*self.ended.borrow() {
            return Err(CallError::Unsent(why.clone()));
        }
        let correlation = self.next_correlation();
        let bytes = self.encode(request, version, correlation)?;
        let queued_bytes = self.queued_bytes.get();
        let full = queued_bytes > 0 && queued_bytes + bytes.len() > QUEUE_MAX_BYTES;
        if full || self.queue.borrow().len() + self.sent.borrow().len() >= QUEUE_MAX {
            return Err(CallError::Unsent("too much waits to be sent".to_owned()));
        }
        self.queued_bytes.set(queued_bytes + bytes.len());
        let (answer, answered) = oneshot::channel();
        let due = patience.map(|patience| timer::now() + patience);
        self.queue.borrow_mut().push_back(Queued { bytes, sent: Sent { correlation, answer, due } });
        Ok(answered)
    }

    async fn written_and_answered(
        &self,
        answered: oneshot::Receiver<Result<Bytes, CallError>>,
    ) -> Result<Bytes, CallError> {
        let flushing = self.flush();
        pin_mut!(flushing);
        let answer = match select(answered, flushing).await {
            Either::Right(((), answered)) => answered.await,
            Either::Left((answer, flushing)) => {
                // It was written, or the connection has ended: the rest of the write takes no time, and to drop it would
                // break a sound connection.
                flushing.await;
                answer
            }
        };
        answer.unwrap_or_else(|_| Err(CallError::Unanswered("the connection was closed".to_owned())))
    }

    /// Writes what is queued now, unless somebody writes already.
    async fn flush(&self) {
        let Some(writer) = self.writer.take() else { return };
        let mut turn = Turn { link: self, writer: Some(writer) };
        let bytes = self.take_queued();
        if bytes.is_empty() || turn.write(bytes).await.is_ok() {
            turn.end();
        }
    }

    fn take_queued(&self) -> Vec<u8> {
        let mut queue = self.queue.borrow_mut();
        let mut sent = self.sent.borrow_mut();
        let mut all = Vec::new();
        while all.len() < WRITE_BYTES {
            let Some(Queued { bytes, sent: request }) = queue.pop_front() else { break };
            self.queued_bytes.set(self.queued_bytes.get().saturating_sub(bytes.len()));
            if all.is_empty() {
                // Mostly there is only one: nothing is copied then.
                all = bytes;
            } else {
                all.extend_from_slice(&bytes);
            }
            if request.due.is_some() {
                sent.push_back(request);
            } else {
                request.answer.send(Ok(Bytes::new())).ok();
            }
        }
        if !sent.is_empty() {
            self.busy.raise();
        }
        all
    }

    async fn serve(&self, reader: Reader, frames: Frames) -> String {
        let reading = self.read(reader, frames);
        let writing = self.write_the_rest();
        let watching = self.watch();
        pin_mut!(reading);
        pin_mut!(writing);
        pin_mut!(watching);
        let over = self.over.wait();
        pin_mut!(over);
        match select(select(reading, writing), select(watching, over)).await {
            Either::Left((Either::Left((why, _)) | Either::Right((why, _)), _))
            | Either::Right((Either::Left((why, _)), _)) => why,
            Either::Right((Either::Right(((), _)), _)) => self.why(),
        }
    }

    fn why(&self) -> String {
        self.ended.borrow().clone().unwrap_or_default()
    }

    async fn read(&self, mut reader: Reader, mut frames: Frames) -> String {
        loop {
            match frames.next() {
                Err(why) => return why,
                Ok(Some(answer)) => {
                    if let Err(why) = self.take_answer(answer) {
                        return why;
                    }
                }
                Ok(None) => {
                    if let Err(error) = reader.read(frames.room()).await {
                        return error.to_string();
                    }
                }
            }
        }
    }

    fn take_answer(&self, answer: Bytes) -> Result<(), String> {
        let request = self.sent.borrow_mut().pop_front();
        match request {
            Some(request) if frame::correlation(&answer) == Some(request.correlation) => {
                self.has_answered.set(true);
                // Whoever asked may be gone.
                request.answer.send(Ok(answer)).ok();
                Ok(())
            }
            other => {
                self.sent.borrow_mut().extend(other);
                Err("the broker answered what nobody asked".to_owned())
            }
        }
    }

    /// Writes what was queued while somebody else wrote.
    async fn write_the_rest(&self) -> String {
        loop {
            self.more.wait().await;
            self.flush().await;
        }
    }

    /// Returns when an answer is overdue.
    async fn watch(&self) -> String {
        loop {
            let first = self.sent.borrow().front().map(|request| (request.correlation, request.due));
            let Some((correlation, Some(due))) = first else {
                self.busy.wait().await;
                continue;
            };
            timer::sleep(due.saturating_duration_since(timer::now())).await;
            let still = self.sent.borrow().front().is_some_and(|request| request.correlation == correlation);
            if still && timer::now() >= due {
                return "the broker does not answer".to_owned();
            }
        }
    }

    /// Ends the connection: what was written has no answer, what was not was never sent.
    pub(crate) fn end(&self, why: &str) {
        if self.ended.borrow().is_some() {
            return;
        }
        self.ended.replace(Some(why.to_owned()));
        self.writer.take();
        self.queued_bytes.set(0);
        for request in self.sent.take() {
            request.answer.send(Err(CallError::Unanswered(why.to_owned()))).ok();
        }
        for request in self.queue.take() {
            request.sent.answer.send(Err(CallError::Unsent(why.to_owned()))).ok();
        }
        self.over.raise();
    }
}

/// The right to write. Given up in the middle of a write, it takes the connection along: nobody knows how much of a
/// request has gone out.
struct Turn<'a> {
    link: &'a Link,
    writer: Option<Writer>,
}

impl Turn<'_> {
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        let Some(writer) = &mut self.writer else { return Err("the connection was closed".to_owned()) };
        match writer.write_all(bytes).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.writer = None;
                let why = error.to_string();
                self.link.end(&why);
                Err(why)
            }
        }
    }

    /// It is written; the next one may.
    fn end(&mut self) {
        let writer = self.writer.take();
        if self.link.ended.borrow().is_none() {
            self.link.writer.replace(writer);
            if !self.link.queue.borrow().is_empty() {
                self.link.more.raise();
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.link.end("a write was given up");
        }
    }
}
