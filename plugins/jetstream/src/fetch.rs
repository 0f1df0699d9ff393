//! Getting messages: pulling as many as there is credit for, or listening where the broker pushes.
//!
//! The broker counts down what was asked for, in the order it was asked, so one number on this side says how many may still
//! come. Whenever that number is in doubt, the old subject is left and a new one subscribed: what was still on its way to
//! the old one is delivered again after its lease.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{Failure, Lag, Status as News, log, task, timer};

use crate::api::{self, PullRequest};
use crate::config::Start;
use crate::consumers::{self, Consumer, Wish};
use crate::failure::text;
use crate::hub::{Hub, nanos};
use crate::protocol::{Msg, Status, fields, publish};
use crate::subscription::Sub;
use whimbrel_sdk::signal::Signal;

/// How long the broker waits for messages before it answers that there are none.
const EXPIRES: Duration = Duration::from_secs(30);

/// How often it gives a sign of life meanwhile.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How often it is looked whether it does.
const BEAT: Duration = Duration::from_secs(6);

/// Beats without a sign of life after which it is asked what is the matter.
const SILENCE_MAX: u32 = 2;

/// The most messages that are asked for at once.
const BATCH_MAX: usize = 4096;

/// More is asked for when this part of the credit is free: a request for each message would cost as much as the message.
const CREDIT_PART: usize = 4;

/// What is pushed beyond the credit goes back for this long.
const REFUSED: &[u8] = b"-NAK {\"delay\":1000000000}";

/// How long the end of a subscription waits for what is still on its way.
const END_WAIT: Duration = Duration::from_secs(2);

/// How a subscription stands with the broker.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// What messages come to; 0: nothing.
    sid: Cell<u64>,
    /// The connection on which that is so; 0: none.
    epoch: Cell<u64>,
    /// What may still come without being asked for again.
    requested: Cell<usize>,
    /// It must be asked what became of the consumer.
    doubt: Cell<bool>,
    /// Something came since the last beat.
    pub(crate) heard: Cell<bool>,
    /// A single message was larger than all that was to be pulled.
    too_large: Cell<bool>,
    /// Something was delivered since the last pull.
    progress: Cell<bool>,
    /// There is credit, but the host has too much to take already.
    held_up: Cell<bool>,
    pending: Cell<u64>,
    told: Cell<Option<u64>>,
    complaint: RefCell<String>,
    pub(crate) wake: Signal,
}

impl Feed {
    /// The connection was lost.
    pub(crate) fn is_lost(&self) {
        self.sid.set(0);
        self.epoch.set(0);
        self.requested.set(0);
    }

    /// Whether it waits for the host.
    pub(crate) fn is_held_up(&self) -> bool {
        self.held_up.get()
    }

    /// A message came.
    pub(crate) fn one_less(&self, pending: u64, limit: usize) {
        self.pending.set(pending);
        self.progress.set(true);
        let requested = self.requested.get().saturating_sub(1);
        self.requested.set(requested);
        if requested == 0 || requested == limit / CREDIT_PART {
            self.wake.raise();
        }
    }

    /// Some of the credit is free again.
    pub(crate) fn credit_is_back(&self, sub: &Sub) {
        if self.sid.get() == 0 || self.wanted(sub) > 0 {
            self.wake.raise();
        }
    }

    /// How many messages to ask for now.
    fn wanted(&self, sub: &Sub) -> usize {
        let (requested, free) = (self.requested.get(), sub.free());
        let open = free.saturating_sub(requested);
        let enough = if requested == 0 { 1 } else { (sub.limit / CREDIT_PART).max(1) };
        if open < enough { 0 } else { open }
    }

    /// What the broker says in place of a message.
    pub(crate) fn take_status(&self, hub: &Hub, status: Status<'_>, msg: Msg<'_>) {
        if status.code == 100 {
            // A push consumer with flow control wants to hear that we are not behind.
            if let Some(reply) = msg.reply {
                let mut bytes = Vec::new();
                publish(&mut bytes, reply, None, b"");
                hub.wire.say(bytes);
            }
            return;
        }
        let left = fields(msg.head).find(|(name, _)| name.eq_ignore_ascii_case("Nats-Pending-Messages"));
        let left: Option<usize> = left.and_then(|(_, value)| value.parse().ok());
        let over = matches!(status.code, 404 | 408) || is_size(status.text) || is_complete(status.text);
        match left {
            Some(left) if over => {
                self.requested.set(self.requested.get().saturating_sub(left));
                self.too_large.set(is_size(status.text) && !self.progress.get());
            }
            _ => {
                self.complaint.replace(format!("{} {}", status.code, status.text));
                self.doubt.set(true);
            }
        }
        self.wake.raise();
    }

    /// Gives a pushed message back that there is no credit for.
    pub(crate) fn refuse(&self, hub: &Hub, ack: &str) {
        let mut bytes = Vec::new();
        publish(&mut bytes, ack, None, REFUSED);
        hub.wire.say(bytes);
    }

    /// All credit is used: nothing more may be pushed.
    pub(crate) fn close_gate(&self, hub: &Hub, sub: &Sub, sid: u64) {
        if sub.consumer.borrow().push.is_some() && self.sid.get() == sid {
            hub.wire.unsubscribe(sid);
            self.sid.set(0);
        }
    }

    /// Has nothing more come. What was on its way still does, until this returns.
    pub(crate) async fn end(&self, hub: &Hub, patience: Duration) {
        let sid = self.sid.take();
        self.epoch.set(0);
        if sid == 0 {
            return;
        }
        hub.wire.unsubscribe(sid);
        hub.wire.settled(patience).await;
        hub.wire.forget(sid);
        self.requested.set(0);
    }

    /// Whether it cannot do without publishing or subscribing to this.
    fn needs(&self, hub: &Hub, consumer: &Consumer, subject: &str) -> bool {
        match &consumer.push {
            Some((deliver, _)) => deliver == subject,
            None => pull_subject(hub, consumer) == subject || hub.wire.mailbox(self.sid.get()) == subject,
        }
    }
}

/// Whether a pull ended since the next message would have been too much.
fn is_size(text: &str) -> bool {
    text.eq_ignore_ascii_case("Message Size Exceeds MaxBytes")
}

/// Whether a pull ended since all it asked for was sent. Only said where it had a limit in bytes, too.
fn is_complete(text: &str) -> bool {
    text.eq_ignore_ascii_case("Batch Completed")
}

fn pull_subject(hub: &Hub, consumer: &Consumer) -> String {
    format!("{}.CONSUMER.MSG.NEXT.{}.{}", hub.settings.api_prefix, consumer.stream, consumer.name)
}

impl Sub {
    /// See [`Feed::needs`].
    pub(crate) fn needs(&self, hub: &Hub, subject: &str) -> bool {
        self.feed.needs(hub, &self.consumer.borrow(), subject)
    }

    /// Gets messages for as long as the subscription lives.
    pub(crate) async fn fetch(self: Rc<Self>, hub: Rc<Hub>) {
        let (mut backoff, mut silence) = (Backoff::default(), 0);
        let mut beat = Box::pin(timer::sleep(BEAT));
        while self.live.get() {
            if hub.wire.is_up()
                && !self.paused.get()
                && let Err(failure) = self.go_on(&hub, &mut backoff).await
            {
                self.fail(failure);
                break;
            }
            let wake = self.feed.wake.wait();
            pin_mut!(wake);
            if let Either::Right(((), _)) = select(wake, beat.as_mut()).await {
                beat = Box::pin(timer::sleep(BEAT));
                silence = self.beat(&hub, silence);
                if silence == 0 {
                    backoff.reset();
                }
            }
        }
        hub.remove(&self);
        self.feed.end(&hub, END_WAIT).await;
    }

    /// Asks for more, after finding the consumer again where need be.
    ///
    /// # Errors
    /// It cannot go on.
    async fn go_on(self: &Rc<Self>, hub: &Rc<Hub>, backoff: &mut Backoff) -> Result<(), Failure> {
        if self.feed.epoch.get() != hub.wire.epoch() || self.feed.doubt.get() {
            if self.feed.doubt.get() {
                // A broker that says no at once must not be asked ever faster.
                timer::sleep(backoff.next_wait()).await;
            }
            match self.find_again(hub).await {
                Ok(()) => {}
                Err(failure @ (Failure::Invalid(_) | Failure::Unauthorized(_))) => return Err(failure),
                Err(failure) => {
                    self.complain(&text(failure));
                    self.feed.doubt.set(true);
                    self.wake();
                    return Ok(());
                }
            }
        }
        self.listen(hub);
        self.pull(hub);
        Ok(())
    }

    /// Finds the consumer again, or makes it anew: somebody deleted it, or its stream. It begins at the oldest message then,
    /// for what was acknowledged is not known any more.
    async fn find_again(self: &Rc<Self>, hub: &Rc<Hub>) -> Result<(), Failure> {
        let epoch = hub.wire.epoch();
        let old = self.feed.sid.take();
        if old != 0 {
            hub.wire.unsubscribe(old);
            hub.wire.forget(old);
        }
        self.feed.requested.set(0);
        let wish = Wish { start: Start::All, ..self.wish.clone() };
        let (consumer, is_new) = consumers::attach(hub, &wish).await?;
        if is_new {
            hub.health.data_loss(format!(
                "the consumer {} of the stream {} was deleted; it begins again at the oldest message there is",
                consumer.name, consumer.stream
            ));
        }
        self.consumer.replace(consumer);
        self.feed.doubt.set(false);
        self.feed.epoch.set(epoch);
        Ok(())
    }

    fn complain(&self, why: &str) {
        if *self.feed.complaint.borrow() != why {
            log::warn(&format!("subscription to {:?} of {:?}: {why}", self.wish.topic, self.wish.group));
            why.clone_into(&mut self.feed.complaint.borrow_mut());
        }
    }

    /// Subscribes to what messages come to, unless that is so already.
    fn listen(self: &Rc<Self>, hub: &Rc<Hub>) {
        let is_off = !self.live.get() || self.paused.get() || self.feed.epoch.get() != hub.wire.epoch();
        if self.feed.sid.get() != 0 || is_off {
            return;
        }
        let consumer = self.consumer.borrow();
        if consumer.push.is_some() && self.free() < self.limit.div_ceil(2) {
            return;
        }
        let sid = hub.wire.number();
        let (sub, owner) = (Rc::downgrade(self), Rc::downgrade(hub));
        let route = Rc::new(move |msg: Msg<'_>| {
            if let (Some(sub), Some(hub)) = (sub.upgrade(), owner.upgrade()) {
                sub.take(&hub, sid, msg);
            }
        });
        match &consumer.push {
            None => hub.wire.subscribe(sid, &hub.wire.mailbox(sid), None, route),
            Some((subject, group)) => hub.wire.subscribe(sid, subject, Some(group), route),
        }
        self.feed.sid.set(sid);
        self.feed.pending.set(consumer.pending);
    }

    /// Asks for as many messages as there is credit for.
    fn pull(&self, hub: &Hub) {
        let sid = self.feed.sid.get();
        let consumer = self.consumer.borrow();
        let wanted = self.feed.wanted(self);
        if sid == 0 || consumer.push.is_some() || wanted == 0 || !self.live.get() || self.paused.get() {
            return;
        }
        let bytes = hub.pull_bytes();
        self.feed.held_up.set(self.untaken_bytes.get() >= bytes);
        if self.feed.held_up.get() {
            return;
        }
        let limited = |wish: usize, limit: usize| if limit == 0 { wish } else { wish.min(limit) };
        let expires = EXPIRES.min(if consumer.max_expires.is_zero() { EXPIRES } else { consumer.max_expires });
        // One that fits into no pull is asked for alone, however large it is.
        let alone = self.feed.too_large.take();
        let batch = if alone { 1 } else { limited(wanted.min(BATCH_MAX), consumer.max_batch) };
        let request = api::write(&PullRequest {
            batch,
            expires: nanos(expires),
            idle_heartbeat: nanos(HEARTBEAT.min(expires / 2)),
            max_bytes: (!alone).then(|| limited(bytes, consumer.max_bytes)),
        });
        let mut line = Vec::with_capacity(256);
        publish(&mut line, &pull_subject(hub, &consumer), Some(&hub.wire.mailbox(sid)), &request);
        hub.wire.say(line);
        self.feed.progress.set(false);
        self.feed.requested.set(self.feed.requested.get() + batch);
    }

    /// Looks whether the broker gives signs of life, and tells how far the group is behind.
    fn beat(self: &Rc<Self>, hub: &Rc<Hub>, silence: u32) -> u32 {
        let feed = &self.feed;
        if self.expects_nothing() && hub.wire.is_up() {
            task::spawn(Rc::clone(self).count(Rc::clone(hub)));
        } else {
            self.tell_lag(hub);
        }
        if feed.heard.replace(false) || feed.requested.get() == 0 {
            return 0;
        }
        if silence + 1 >= SILENCE_MAX {
            self.complain("the broker gives no sign of life for what was asked of it");
            feed.doubt.set(true);
            return 0;
        }
        silence + 1
    }

    /// Whether no message is on its way, nor can be: there is no credit, or nobody listens.
    fn expects_nothing(&self) -> bool {
        let is_pulled = self.consumer.borrow().push.is_none();
        if is_pulled { self.feed.requested.get() == 0 } else { self.feed.sid.get() == 0 }
    }

    /// Asks how many messages wait. As long as messages come, each brings that along.
    async fn count(self: Rc<Self>, hub: Rc<Hub>) {
        let (stream, name) = {
            let consumer = self.consumer.borrow();
            (consumer.stream.clone(), consumer.name.clone())
        };
        let info = consumers::info(&hub, &stream, &name).await;
        if let Ok(Ok(info)) = info
            && self.expects_nothing()
        {
            self.feed.pending.set(info.num_pending);
            self.tell_lag(&hub);
        }
    }

    fn tell_lag(&self, hub: &Hub) {
        let (feed, messages) = (&self.feed, self.feed.pending.get());
        if self.live.get() && feed.epoch.get() != 0 && feed.told.replace(Some(messages)) != Some(messages) {
            let (topic, group) = (self.wish.topic.clone(), self.wish.group.clone());
            hub.health.tell(News::Lag(Lag { topic, group, messages }));
        }
    }
}
