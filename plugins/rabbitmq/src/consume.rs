//! Keeps a subscription's channel: opens it, declares what is needed, starts the consumer, and begins anew whenever the
//! broker or the network ends any of it.

use std::cell::Cell;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{Either, select};
use whimbrel_sdk::backoff::{Backoff, WAIT_MAX};
use whimbrel_sdk::{Failure, log, timer};

use crate::channel::{Channel, Event};
use crate::failure::{Lost, is_missing, text};
use crate::hub::{Hub, PATIENCE};
use crate::live::Live;
use crate::protocol::Request;
use crate::subscription::{Arrival, Consumer, Sub};

/// Later on a connection is waited for as long as it takes, this long at a time.
const CONNECTION_WAIT: Duration = Duration::from_secs(60);

/// How often the binding is made anew. RabbitMQ takes it away together with an exchange that is deleted, and tells nobody; a
/// publisher makes the exchange again, and all it publishes passes the queue by.
const BIND_EVERY: Duration = Duration::from_secs(10);

/// Serves until the subscription ends. `told` hears whether the first try succeeded.
pub(crate) async fn run(hub: Rc<Hub>, sub: Rc<Sub>, told: oneshot::Sender<Result<(), Failure>>) {
    let mut told = Some(told);
    let mut backoff = Backoff::default();
    let mut before = String::new();
    while sub.live.get() {
        let wait = if told.is_some() { PATIENCE } else { CONNECTION_WAIT };
        let failure = match attach(&hub, &sub, timer::now() + wait).await {
            Ok(channel) => {
                if let Some(told) = told.take() {
                    told.send(Ok(())).ok();
                }
                let since = timer::now();
                let ended = hold(&hub, &sub, &channel).await;
                if timer::now().saturating_duration_since(since) > WAIT_MAX {
                    backoff.reset();
                    before.clear();
                }
                ended
            }
            Err(failure) => failure,
        };
        if !sub.live.get() {
            break;
        }
        if let Some(told) = told.take() {
            sub.live.set(false);
            hub.remove(&sub).await;
            told.send(Err(failure)).ok();
            return;
        }
        if matches!(failure, Failure::Invalid(_) | Failure::Unauthorized(_) | Failure::Permanent(_)) {
            hub.remove(&sub).await;
            sub.fail(failure);
            return;
        }
        let why = text(failure);
        if why != before {
            log::warn(&format!("subscription: {why}"));
            before = why;
        }
        timer::sleep(backoff.next_wait()).await;
    }
}

fn what(sub: &Sub) -> String {
    format!("topic {:?}, queue {:?}", sub.plan.topic, sub.plan.queue)
}

/// Opens a channel and makes messages come.
async fn attach(hub: &Rc<Hub>, sub: &Rc<Sub>, until: Instant) -> Result<Rc<Channel>, Failure> {
    let live = sub.wire.live(until).await?;
    sub.cancelled.set(false);
    sub.lost.take();
    let channel = open(hub, sub, &live).await.map_err(|lost| lost.failure(&what(sub)))?;
    sub.channel.replace(Some(Rc::clone(&channel)));
    let attached = async {
        sub.plan.declare(&channel).await?;
        regulate(sub, &channel).await
    };
    let attached = attached.await;
    if attached.is_err() || !sub.live.get() {
        // Whatever it did, nothing more may come on it.
        channel.close().await;
    }
    attached.map(|()| channel).map_err(|lost| lost.failure(&what(sub)))
}

async fn open(hub: &Rc<Hub>, sub: &Rc<Sub>, live: &Rc<Live>) -> Result<Rc<Channel>, Lost> {
    let serial = sub.serial.get() + 1;
    sub.serial.set(serial);
    let (hub, sub) = (Rc::downgrade(hub), Rc::downgrade(sub));
    live.open(Box::new(move |event| hear(&hub, &sub, serial, event))).await
}

/// Takes what a channel says, unless there is a newer one.
fn hear(hub: &Weak<Hub>, sub: &Weak<Sub>, serial: u64, event: Event) {
    let (Some(hub), Some(sub)) = (hub.upgrade(), sub.upgrade()) else { return };
    if sub.serial.get() != serial {
        return;
    }
    match event {
        Event::Delivered { tag, redelivered, exchange, content } => {
            sub.take(&hub, Arrival { tag, redelivered, exchange, content });
        }
        Event::Cancelled => {
            sub.cancelled.set(true);
            sub.wake.raise();
        }
        Event::Lost(lost) => {
            sub.lost.replace(Some(lost));
            sub.lose_tokens(&hub);
        }
        Event::Returned { .. } | Event::Confirmed { .. } => {}
    }
}

/// Looks after an attached subscription until it has to be attached again, and tells why.
async fn hold(hub: &Hub, sub: &Sub, channel: &Channel) -> Failure {
    let mut due = pin!(timer::sleep(BIND_EVERY));
    loop {
        if let Some(lost) = sub.lost.take() {
            return lost.failure(&what(sub));
        }
        if !sub.live.get() {
            return Failure::Transient("stopped".to_owned());
        }
        if sub.cancelled.get() {
            hub.health.data_loss(format!(
                "{}: RabbitMQ has ended the consumer, for the queue was deleted or its node is gone: what was in it may be lost",
                what(sub)
            ));
            channel.close().await;
            return Failure::Transient(format!("{}: the consumer was ended", what(sub)));
        }
        if let Err(lost) = regulate(sub, channel).await {
            return lost.failure(&what(sub));
        }
        // One timer for all the times that it is woken meanwhile.
        if let Either::Right(_) = select(pin!(sub.wake.wait()), &mut due).await {
            if let Err(lost) = sub.plan.bind(channel).await {
                return unbound(hub, sub, &lost);
            }
            due.set(timer::sleep(BIND_EVERY));
        }
    }
}

/// The binding cannot be made.
fn unbound(hub: &Hub, sub: &Sub, lost: &Lost) -> Failure {
    if let Lost::Closed(closed) = lost
        && is_missing(closed)
    {
        hub.health.data_loss(format!(
            "{}: the exchange or the queue was deleted: what was published since, or was in it, may be lost",
            what(sub)
        ));
    }
    lost.failure(&what(sub))
}

/// Starts or ends the consumer, as the host wants it. A consumer's credit stands when it starts; messages of an earlier one
/// that are not settled are taken off, and when none is left it starts anew with all of it.
async fn regulate(sub: &Sub, channel: &Channel) -> Result<(), Lost> {
    let is_short = |prefetch: usize| prefetch < sub.limit && sub.room() == sub.limit;
    if let Consumer::Active(prefetch) = sub.consumer.get()
        && (sub.paused.get() || is_short(prefetch))
    {
        turn(sub, Consumer::Absent, channel.call(Request::Cancel { tag: &tag(sub) })).await?;
    }
    let room = sub.room();
    if sub.consumer.get() == Consumer::Absent && !sub.paused.get() && room > 0 {
        let starting = async {
            channel.call(Request::Qos { prefetch: u16::try_from(room).unwrap_or(u16::MAX) }).await?;
            sub.consumers.set(sub.consumers.get() + 1);
            channel.call(Request::Consume { queue: &sub.plan.queue, tag: &tag(sub) }).await
        };
        turn(sub, Consumer::Active(room), starting).await?;
    }
    Ok(())
}

/// The name of the consumer. Each has its own: RabbitMQ counts what an earlier one of the same name holds as the later one's.
fn tag(sub: &Sub) -> String {
    format!("whimbrel-{}", sub.consumers.get())
}

async fn turn(sub: &Sub, to: Consumer, turning: impl Future<Output = Result<(), Lost>>) -> Result<(), Lost> {
    let guard = Turning { turned: &sub.consumer };
    sub.consumer.set(Consumer::Changing);
    let turned = turning.await;
    drop(guard);
    if turned.is_ok() {
        sub.consumer.set(to);
    }
    sub.turned.ring();
    turned
}

/// Whatever happens, a consumer does not change for ever.
struct Turning<'a> {
    turned: &'a Cell<Consumer>,
}

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        self.turned.set(Consumer::Absent);
    }
}
