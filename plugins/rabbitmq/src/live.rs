//! An open connection: what is written to it, what is read from it, and its channels.
//!
//! Whoever has something to say writes it, with all that waits, unless somebody is writing already: to wake another task
//! for that is a round through the host.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::net::{Reader, Writer};
use whimbrel_sdk::timer;

use crate::bell::Bell;
use crate::channel::{Channel, Listener};
use crate::connection::{Agreed, Link};
use crate::failure::Lost;
use crate::gate::Gate;
use crate::protocol::{Closed, Decoder, Frame, Malformed, Method, Request, heartbeat};
use whimbrel_sdk::signal::Signal;

/// Bytes that wait to be written, at most. What is over is refused to publishers, for nothing else can become so much.
pub(crate) const OUT_MAX_BYTES: usize = 32 << 20;

/// Without heartbeats this is how often time is taken.
const TICK: Duration = Duration::from_secs(5);

/// A peer that says nothing for so many ticks is dead; two of them are one heartbeat.
const QUIET_TICKS: u32 = 4;

/// See the module.
pub(crate) struct Live {
    /// Tells it from those before and after it. Never 0.
    pub(crate) serial: u64,
    pub(crate) agreed: Agreed,
    out: RefCell<Vec<u8>>,
    /// The writing half, while nobody writes.
    writer: RefCell<Option<Writer>>,
    /// Why writing failed, for the task that serves the connection.
    broken: RefCell<Option<String>>,
    work: Signal,
    channels: RefCell<HashMap<u16, Rc<Channel>>>,
    /// Why the broker takes no messages.
    blocked: RefCell<Option<String>>,
    changed: Bell,
    wrote: Cell<bool>,
    heard: Cell<bool>,
    ended: Cell<bool>,
    goodbye: Cell<bool>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Live {
    /// Takes an open connection in charge; [`serve`](Self::serve) makes it work.
    pub(crate) fn new(link: Link, serial: u64) -> (Rc<Self>, Reader, Decoder) {
        let Link { reader, writer, decoder, agreed } = link;
        let live = Rc::new(Self {
            serial,
            agreed,
            out: RefCell::default(),
            writer: RefCell::new(Some(writer)),
            broken: RefCell::default(),
            work: Signal::default(),
            channels: RefCell::default(),
            blocked: RefCell::default(),
            changed: Bell::default(),
            wrote: Cell::new(false),
            heard: Cell::new(true),
            ended: Cell::new(false),
            goodbye: Cell::new(false),
        });
        (live, reader, decoder)
    }

    /// Whether it is over.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// The connection is gone, or has too many.
    pub(crate) async fn open(self: &Rc<Self>, listener: Listener) -> Result<Rc<Channel>, Lost> {
        if self.ended.get() {
            return Err(Lost::Broken("the connection is gone".to_owned()));
        }
        let free = (1..=self.agreed.channel_max).find(|number| !self.channels.borrow().contains_key(number));
        let Some(number) = free else {
            return Err(Lost::Broken(format!("all {} channels of the connection are in use", self.agreed.channel_max)));
        };
        let channel = Channel::new(number, self, listener);
        self.channels.borrow_mut().insert(number, Rc::clone(&channel));
        channel.call(Request::ChannelOpen).await?;
        Ok(channel)
    }

    /// A channel's number is free again.
    pub(crate) fn forget(&self, number: u16) {
        self.channels.borrow_mut().remove(&number);
    }

    /// Appends to what waits to be written.
    pub(crate) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.out.borrow_mut());
    }

    /// Whether there is room for a message.
    pub(crate) fn has_room(&self) -> bool {
        self.out.borrow().len() < OUT_MAX_BYTES
    }

    /// Has the task that serves the connection write what waits.
    pub(crate) fn nudge(&self) {
        self.work.raise();
    }

    /// Writes what waits now, if nobody else writes. What comes meanwhile is for the task that serves the connection.
    pub(crate) async fn flush(&self) {
        let Some(writer) = self.writer.take() else {
            return;
        };
        let mut turn = Turn { live: self, writer: Some(writer) };
        let bytes = self.out.take();
        let written = match &mut turn.writer {
            Some(writer) if !bytes.is_empty() => {
                self.wrote.set(true);
                writer.write_all(bytes).await
            }
            _ => Ok(()),
        };
        match written {
            Ok(()) => turn.end(),
            Err(error) => turn.fail(error.to_string()),
        }
    }

    /// Why the broker takes no messages, if it does not.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.blocked.borrow().clone()
    }

    /// Returns when the broker takes messages again, or the connection is over. Someone has to ask again then.
    pub(crate) async fn change(&self) {
        self.changed.wait().await;
    }

    /// Serves until the connection ends, and returns why. `tick` is called from time to time.
    pub(crate) async fn serve(&self, reader: Reader, decoder: Decoder, gate: &Gate, tick: impl Fn(Instant)) -> String {
        let reading = self.read(reader, decoder, gate);
        let writing = self.write();
        let watching = self.watch(gate, tick);
        pin_mut!(reading);
        pin_mut!(writing);
        pin_mut!(watching);
        let traffic = select(reading, writing);
        let why = match select(traffic, watching).await {
            Either::Left((Either::Left((why, _)) | Either::Right((why, _)), _)) | Either::Right((why, _)) => why,
        };
        self.end(&why);
        why
    }

    fn end(&self, why: &str) {
        self.ended.set(true);
        self.writer.take();
        let lost = Lost::Broken(why.to_owned());
        let channels: Vec<Rc<Channel>> = self.channels.borrow_mut().drain().map(|(_, channel)| channel).collect();
        channels.iter().for_each(|channel| channel.lose(&lost));
        self.changed.ring();
    }

    /// Says goodbye, after all that waits; [`serve`](Self::serve) returns when it was answered.
    pub(crate) fn close(&self) {
        self.goodbye.set(true);
        self.push(|out| Request::Close { code: 200, text: "goodbye" }.write(out, 0));
        self.nudge();
    }

    async fn write(&self) -> String {
        loop {
            self.flush().await;
            if let Some(why) = self.broken.take() {
                return why;
            }
            self.work.wait().await;
        }
    }

    async fn read(&self, mut reader: Reader, mut decoder: Decoder, gate: &Gate) -> String {
        loop {
            loop {
                let frame = match decoder.next() {
                    Err(malformed) => return malformed.to_string(),
                    Ok(None) => break,
                    Ok(Some(frame)) => frame,
                };
                match self.take(frame) {
                    Ok(None) => {}
                    Ok(Some(why)) => return why,
                    Err(malformed) => return malformed.to_string(),
                }
            }
            gate.pass().await;
            match reader.read(decoder.room()).await {
                Err(error) => return error.to_string(),
                Ok(_) => self.heard.set(true),
            }
        }
    }

    /// Takes a frame. Some: the connection ends, and why.
    fn take(&self, frame: Frame<'_>) -> Result<Option<String>, Malformed> {
        match frame {
            Frame::Heartbeat => Ok(None),
            Frame::Method(0, payload) => self.method(Method::read(payload)?),
            Frame::Method(number, payload) => {
                let method = Method::read(payload)?;
                self.channel(number)?.method(method).map(|()| None)
            }
            Frame::Header(number, payload) => self.channel(number)?.header(payload).map(|()| None),
            Frame::Body(number, payload) => self.channel(number)?.body(payload).map(|()| None),
        }
    }

    fn channel(&self, number: u16) -> Result<Rc<Channel>, Malformed> {
        self.channels.borrow().get(&number).cloned().ok_or(Malformed::Garbage)
    }

    /// Takes a method of the connection itself.
    fn method(&self, method: Method) -> Result<Option<String>, Malformed> {
        match method {
            Method::Close(Closed { code, text }) => {
                // It would like an answer, and hangs up without one just as well.
                Ok(Some(format!("RabbitMQ closed the connection: {code} {text}")))
            }
            Method::CloseOk if self.goodbye.get() => Ok(Some("closed".to_owned())),
            Method::Blocked(why) => {
                self.blocked.replace(Some(why));
                Ok(None)
            }
            Method::Unblocked => {
                self.blocked.take();
                self.changed.ring();
                Ok(None)
            }
            _ => Err(Malformed::Garbage),
        }
    }

    /// Shows that we live, and sees whether the peer does. Returns when it does not.
    async fn watch(&self, gate: &Gate, tick: impl Fn(Instant)) -> String {
        let period = self.agreed.heartbeat.map_or(TICK, |heartbeat| heartbeat / 2);
        let mut quiet = 0;
        loop {
            tick(timer::now());
            timer::sleep(period).await;
            if self.agreed.heartbeat.is_none() {
                continue;
            }
            if !self.wrote.replace(false) {
                self.push(heartbeat);
                self.nudge();
            }
            // While we do not listen, nothing can be heard.
            quiet = if self.heard.replace(false) || gate.is_shut() { 0 } else { quiet + 1 };
            if quiet >= QUIET_TICKS {
                return format!("no sign of life for {:?} (metadata heartBeat)", period * QUIET_TICKS);
            }
        }
    }
}

/// The right to write on a connection. Given up in the middle of a write, it takes the connection along: nobody knows how
/// much of a frame has gone out.
struct Turn<'a> {
    live: &'a Live,
    writer: Option<Writer>,
}

impl Turn<'_> {
    /// It is written; the next one may.
    fn end(&mut self) {
        let writer = self.writer.take();
        if !self.live.ended.get() {
            self.live.writer.replace(writer);
            if !self.live.out.borrow().is_empty() {
                self.live.work.raise();
            }
        }
    }

    fn fail(&mut self, why: String) {
        self.writer = None;
        self.live.broken.replace(Some(why));
        self.live.work.raise();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.fail("a write was given up".to_owned());
        }
    }
}
