//! An adapter's own code without the sandbox: the same queue of jobs, the same batching, on a thread with a `LocalSet`.

use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use whimbrel::pubsub::{BrokerError, BrokerJob, Message, PublishJob};
use whimbrel_sdk::{
    Adapter, Config, DeliverySink, Property, Settlement, StatusSink, SubscribeOptions, Subscription, Verdict,
};

/// As the component's worker has it.
const CALLS_MAX: usize = 2;
const JOBS_PER_TURN: usize = 512;

/// Opens an adapter natively.
pub async fn open<A: Adapter>(properties: &[(String, String)]) -> Rc<A> {
    let property = |(name, value): &(String, String)| Property { name: name.clone(), value: value.clone() };
    let config = Config {
        name: "native".to_owned(),
        properties: properties.iter().map(property).collect(),
        instance: "native".to_owned(),
    };
    let (status, _news) = StatusSink::channel();
    Rc::new(A::open(config, status).await.unwrap())
}

/// Publishes natively what comes through a broker's queue, until it closes.
pub async fn serve<A: Adapter>(adapter: Rc<A>, mut queue: mpsc::Receiver<BrokerJob>, batch_max: usize) {
    let mut calls = FuturesUnordered::new();
    let (mut backlog, mut taken) = (std::collections::VecDeque::new(), Vec::new());
    loop {
        while !backlog.is_empty() && calls.len() < CALLS_MAX {
            let count = backlog.len().min(batch_max);
            calls.push(publish(Rc::clone(&adapter), backlog.drain(..count).collect()));
        }
        tokio::select! { biased;
            Some(()) = calls.next() => {}
            count = queue.recv_many(&mut taken, JOBS_PER_TURN) => if count == 0 { break },
        }
        for job in taken.drain(..) {
            if let BrokerJob::Publish(job) = job {
                backlog.push_back(job);
            }
        }
    }
    adapter.close().await;
}

async fn publish<A: Adapter>(adapter: Rc<A>, batch: Vec<PublishJob>) {
    let (mut messages, mut replies) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for job in batch {
        replies.push((job.messages.len(), job.reply));
        messages.extend(job.messages.into_iter().map(message));
    }
    let mut results = adapter.publish(messages, Duration::from_secs(30)).await.into_iter();
    for (count, reply) in replies {
        let failed = |failure| BrokerError::Transient(format!("{failure:?}"));
        reply.send(results.by_ref().take(count).map(|result| result.map_err(failed)).collect()).unwrap();
    }
}

fn message(message: Message) -> whimbrel_sdk::Message {
    whimbrel_sdk::Message {
        topic: message.topic.as_ref().to_owned(),
        key: message.key,
        data: message.data.into(),
        metadata: message.metadata,
    }
}

/// Takes and acknowledges messages natively for as long as `seen` wants more.
pub async fn consume<A: Adapter>(
    adapter: &A,
    topic: &str,
    credit: u32,
    ready: impl FnOnce(),
    mut seen: impl FnMut(&[u8]) -> bool,
) {
    let options = SubscribeOptions { max_unsettled: credit, start: None, metadata: Vec::new() };
    let (sink, mut lists, _ended) = DeliverySink::channel();
    let live = adapter.subscribe(topic.to_owned(), "bench".to_owned(), options, sink).await.unwrap();
    ready();
    let mut more = true;
    while more {
        let list = lists.next().await.unwrap();
        more = list.iter().all(|delivery| seen(&delivery.message.data));
        let settlements = list.iter().map(|delivery| Settlement { token: delivery.token, verdict: Verdict::Ack });
        let settled = live.settle(settlements.collect()).await;
        assert!(settled.iter().all(Result::is_ok), "{settled:?}");
    }
    live.stop().await;
}
