//! Telling the host how far the groups are behind. RabbitMQ says how many messages of a queue nobody was sent yet to whoever
//! asks for the queue. That is asked on a channel of its own: the broker closes the channel of who asks for what is not there.

use std::rc::{Rc, Weak};
use std::time::Duration;

use whimbrel_sdk::{Lag, Status, timer};

use crate::channel::Channel;
use crate::failure::Lost;
use crate::hub::Hub;
use crate::subscription::Sub;

/// How often.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// Queues that are asked for at a time; the others have their turn at the next.
const QUEUES_MAX: usize = 32;

/// Tells what has changed, for as long as the connection lives.
pub(crate) async fn run(hub: Weak<Hub>) {
    let (mut kept, mut turn) = (None, 0_usize);
    loop {
        timer::sleep(LAG_EVERY).await;
        let Some(hub) = hub.upgrade() else { return };
        let mut subs = hub.subs();
        let first = turn % subs.len().max(1);
        subs.rotate_left(first);
        turn = turn.wrapping_add(QUEUES_MAX);
        for sub in subs.iter().take(QUEUES_MAX).filter(|sub| is_countable(sub)) {
            let serial = sub.serial.get();
            let Some(channel) = channel(&mut kept, sub).await else { break };
            match channel.count(&sub.plan.queue).await {
                Ok(messages) => tell(&hub, sub, messages),
                // Not there, or not for us: until the subscription has found or made it again.
                Err(Lost::Closed(_)) => sub.uncounted.set(serial),
                Err(Lost::Broken(_)) => {
                    channel.close().await;
                    break;
                }
            }
        }
    }
}

fn is_countable(sub: &Sub) -> bool {
    sub.live.get() && sub.uncounted.get() != sub.serial.get()
}

/// The channel of the last question, or another one on the subscription's connection. `None`: there is no connection now.
async fn channel(kept: &mut Option<Rc<Channel>>, sub: &Sub) -> Option<Rc<Channel>> {
    if let Some(channel) = kept.as_ref().filter(|channel| channel.is_open()) {
        return Some(Rc::clone(channel));
    }
    *kept = sub.wire.current()?.open(Box::new(|_| ())).await.ok();
    kept.clone()
}

fn tell(hub: &Hub, sub: &Sub, messages: u32) {
    if sub.live.get() && sub.lag.replace(Some(messages)) != Some(messages) {
        let (topic, group) = (sub.plan.topic.clone(), sub.group.clone());
        hub.health.tell(Status::Lag(Lag { topic, group, messages: messages.into() }));
    }
}
