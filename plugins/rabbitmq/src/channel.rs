//! One channel of a connection: requests are answered in their order, contents are put together, and what the broker
//! says by itself goes to a listener. Once it is lost it stays so; whoever needs it opens another.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures::channel::oneshot;
use whimbrel_sdk::timer;

use crate::failure::Lost;
use crate::live::Live;
use crate::protocol::{Assembly, Closed, Content, Malformed, Method, Request, Step};

/// How long the answer to a request may take. A broker that is alive and does not answer is of no use.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// What the broker says by itself.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message for the channel's consumer.
    Delivered { tag: u64, redelivered: bool, exchange: String, content: Content },
    /// A message that no queue took.
    Returned { exchange: String, content: Content },
    /// Messages are safe (`ok`), or were refused.
    Confirmed { tag: u64, multiple: bool, ok: bool },
    /// The consumer was ended.
    Cancelled,
    /// The channel is gone.
    Lost(Lost),
}

/// Is told what the broker says by itself. It must not open or close channels.
pub(crate) type Listener = Box<dyn Fn(Event)>;

/// With how many messages a queue has, where that was asked.
type Answer = Result<u32, Lost>;

/// See the module.
pub(crate) struct Channel {
    pub(crate) number: u16,
    live: Weak<Live>,
    calls: RefCell<VecDeque<oneshot::Sender<Answer>>>,
    /// The method whose content comes.
    head: RefCell<Option<Method>>,
    assembly: RefCell<Assembly>,
    listener: Listener,
    /// We have asked for its end: nothing but that counts any more.
    closing: Cell<bool>,
    lost: RefCell<Option<Lost>>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("number", &self.number).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Channel {
    /// A channel that the broker does not know yet.
    pub(crate) fn new(number: u16, live: &Rc<Live>, listener: Listener) -> Rc<Self> {
        Rc::new(Self {
            number,
            live: Rc::downgrade(live),
            calls: RefCell::default(),
            head: RefCell::default(),
            assembly: RefCell::default(),
            listener,
            closing: Cell::new(false),
            lost: RefCell::default(),
        })
    }

    /// Whether it may be used.
    pub(crate) fn is_open(&self) -> bool {
        !self.closing.get() && self.lost.borrow().is_none()
    }

    /// The connection, as long as the channel is open.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn live(&self) -> Result<Rc<Live>, Lost> {
        if let Some(lost) = self.lost.borrow().as_ref() {
            return Err(lost.clone());
        }
        let gone = || Lost::Broken("the channel is closed".to_owned());
        if self.closing.get() { Err(gone()) } else { self.live.upgrade().ok_or_else(gone) }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The channel is gone, mostly because the broker refuses what was asked.
    pub(crate) async fn call(&self, request: Request<'_>) -> Result<(), Lost> {
        let live = self.live()?;
        self.ask(&live, request).await.map(drop)
    }

    /// How many messages of a queue nobody was sent yet.
    ///
    /// # Errors
    /// The channel is gone, mostly because there is no such queue.
    pub(crate) async fn count(&self, queue: &str) -> Result<u32, Lost> {
        let live = self.live()?;
        self.ask(&live, Request::Count { queue }).await
    }

    async fn ask(&self, live: &Live, request: Request<'_>) -> Answer {
        let (sender, answered) = oneshot::channel();
        self.calls.borrow_mut().push_back(sender);
        live.push(|out| request.write(out, self.number));
        live.flush().await;
        match timer::timeout(ANSWER_WAIT, answered).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(Lost::Broken("the connection was closed".to_owned())),
            None => Err(Lost::Broken(format!("no answer within {ANSWER_WAIT:?}"))),
        }
    }

    /// Asks without an answer to come. What is written goes out with what is written next; [`Live::flush`] sends it.
    ///
    /// # Errors
    /// The channel is gone.
    pub(crate) fn tell(&self, request: &Request<'_>) -> Result<Rc<Live>, Lost> {
        let live = self.live()?;
        live.push(|out| request.write(out, self.number));
        Ok(live)
    }

    /// Ends the channel: what was told is done first, what was delivered and not settled goes back.
    pub(crate) async fn close(&self) {
        let Ok(live) = self.live() else { return };
        self.closing.set(true);
        // Whatever the answer is, it is gone.
        self.ask(&live, Request::ChannelClose).await.ok();
    }

    /// Takes a method for this channel.
    ///
    /// # Errors
    /// The broker may not say this.
    pub(crate) fn method(&self, method: Method) -> Result<(), Malformed> {
        match method {
            Method::ChannelClose(closed) => self.closed_by_broker(closed),
            Method::ChannelCloseOk => self.gone(),
            // What was on its way when we closed.
            _ if self.closing.get()
                && !matches!(method, Method::Done | Method::Queue { .. } | Method::ChannelOpenOk) =>
            {
                if matches!(method, Method::Deliver { .. } | Method::Return { .. }) {
                    self.head.replace(Some(method));
                }
            }
            Method::ChannelOpenOk | Method::Done => self.answered(0)?,
            Method::Queue { messages } => self.answered(messages)?,
            Method::Deliver { .. } | Method::Return { .. } => {
                if self.head.replace(Some(method)).is_some() {
                    return Err(Malformed::Garbage);
                }
            }
            Method::Ack { tag, multiple } => (self.listener)(Event::Confirmed { tag, multiple, ok: true }),
            Method::Nack { tag, multiple } => (self.listener)(Event::Confirmed { tag, multiple, ok: false }),
            Method::Cancel => (self.listener)(Event::Cancelled),
            Method::Flow(active) => drop(self.tell(&Request::FlowOk(active)).map(|live| live.nudge())),
            _ => return Err(Malformed::Garbage),
        }
        Ok(())
    }

    fn answered(&self, messages: u32) -> Result<(), Malformed> {
        let call = self.calls.borrow_mut().pop_front().ok_or(Malformed::Garbage)?;
        // Whoever asked may have given up.
        call.send(Ok(messages)).ok();
        Ok(())
    }

    /// Takes a content header.
    ///
    /// # Errors
    /// None was due, or it is none.
    pub(crate) fn header(&self, payload: &[u8]) -> Result<(), Malformed> {
        if self.head.borrow().is_none() {
            return Err(Malformed::Garbage);
        }
        let step = self.assembly.borrow_mut().header(payload)?;
        self.step(step)
    }

    /// Takes a part of a body.
    ///
    /// # Errors
    /// None was due.
    pub(crate) fn body(&self, payload: &[u8]) -> Result<(), Malformed> {
        let step = self.assembly.borrow_mut().body(payload)?;
        self.step(step)
    }

    fn step(&self, step: Step) -> Result<(), Malformed> {
        let Step::Done(content) = step else { return Ok(()) };
        let head = self.head.take().ok_or(Malformed::Garbage)?;
        if self.closing.get() {
            return Ok(());
        }
        match head {
            Method::Deliver { tag, redelivered, exchange } => {
                (self.listener)(Event::Delivered { tag, redelivered, exchange, content });
            }
            Method::Return { exchange, .. } => (self.listener)(Event::Returned { exchange, content }),
            _ => return Err(Malformed::Garbage),
        }
        Ok(())
    }

    fn closed_by_broker(&self, closed: Closed) {
        if let Some(live) = self.live.upgrade() {
            live.push(|out| Request::ChannelCloseOk.write(out, self.number));
            live.nudge();
            live.forget(self.number);
        }
        self.lose(&Lost::Closed(closed));
    }

    fn gone(&self) {
        if let Some(live) = self.live.upgrade() {
            live.forget(self.number);
        }
        self.lose(&Lost::Broken("the channel was closed".to_owned()));
    }

    /// The end, whatever brought it.
    pub(crate) fn lose(&self, lost: &Lost) {
        if self.lost.borrow().is_some() {
            return;
        }
        self.lost.replace(Some(lost.clone()));
        for call in self.calls.take() {
            call.send(Err(lost.clone())).ok();
        }
        (self.listener)(Event::Lost(lost.clone()));
    }
}
