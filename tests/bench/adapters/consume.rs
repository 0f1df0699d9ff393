//! A subscriber that acknowledges what it gets, on each side.

use std::time::Duration;

use tokio::sync::oneshot;
use whimbrel::pubsub::{Broker, Feed, FeedJob, Verdict};

use super::{Kind, Place, clients, native, sandbox};

/// Unsettled at most.
pub const CREDIT: u32 = 256;

/// The group.
pub const GROUP: &str = "bench";

/// Where a broker keeps nothing for a group that was never there, the group comes first.
pub async fn before_the_backlog(place: &Place<'_>, side: &str) {
    if place.kind == Kind::Rabbitmq {
        let first = |_: &[u8]| false;
        let once = run(place, side, || {}, first);
        // Nothing is published yet: what matters is that the queue is there afterwards.
        tokio::time::timeout(Duration::from_secs(1), once).await.ok();
    }
}

/// Takes and acknowledges messages for as long as `seen` wants more. `ready` is called once the subscription stands.
pub async fn run(place: &Place<'_>, side: &str, ready: impl FnOnce(), seen: impl FnMut(&[u8]) -> bool) {
    let properties = place.kind.properties(place.address);
    match (side, place.kind) {
        ("crate", _) => clients::consume(place, ready, seen).await,
        ("native", Kind::Redis) => natively::<whimbrel_redis::Redis>(&properties, place.topic, ready, seen).await,
        ("native", Kind::Jetstream) => {
            natively::<whimbrel_jetstream::JetStream>(&properties, place.topic, ready, seen).await;
        }
        ("native", Kind::Rabbitmq) => {
            natively::<whimbrel_rabbitmq::Rabbitmq>(&properties, place.topic, ready, seen).await;
        }
        ("native", Kind::Kafka) => natively::<whimbrel_kafka::Kafka>(&properties, place.topic, ready, seen).await,
        _ => {
            let (_loader, broker) = sandbox::open(&format!("pubsub.{}", place.name), &properties, 512).await;
            through(&broker, place.topic, ready, seen).await;
        }
    }
}

async fn natively<A: whimbrel_sdk::Adapter>(
    properties: &[(String, String)],
    topic: &str,
    ready: impl FnOnce(),
    seen: impl FnMut(&[u8]) -> bool,
) {
    let adapter = native::open::<A>(properties).await;
    native::consume(&*adapter, topic, CREDIT, ready, seen).await;
}

/// Through the host's own feed.
async fn through(broker: &Broker, topic: &str, ready: impl FnOnce(), mut seen: impl FnMut(&[u8]) -> bool) {
    let feed = broker.subscribe(topic.into(), GROUP.to_owned(), CREDIT, None, Vec::new()).await.unwrap();
    ready();
    let Feed { mut deliveries, jobs, .. } = feed;
    let mut more = true;
    while more {
        let list = deliveries.recv().await.unwrap();
        let mut settled = Vec::with_capacity(list.len());
        for arrived in list {
            more &= seen(&arrived.message.data);
            let (reply, result) = oneshot::channel();
            jobs.send(FeedJob::Settle { token: arrived.token, verdict: Verdict::Ack, reply }).await.unwrap();
            settled.push(result);
        }
        // The host settles behind the subscriber's back, and so does this: at the end all must be sound.
        if more {
            tokio::task::spawn_local(async { futures::future::join_all(settled).await });
        } else {
            for result in futures::future::join_all(settled).await {
                result.unwrap().unwrap();
            }
        }
    }
}
