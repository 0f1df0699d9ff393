//! The adapter's own code without the sandbox: the same queue of jobs, the same batching, on a thread with a `LocalSet`.

use std::rc::Rc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use whimbrel::pubsub::{BrokerError, BrokerJob, Message, PublishJob};
use whimbrel_redis::Redis;
use whimbrel_sdk::{Adapter, Config, Property, StatusSink};

/// As the component's worker has it.
const CALLS_MAX: usize = 2;
const JOBS_PER_TURN: usize = 512;

/// Runs the adapter natively until the queue closes.
pub async fn run(port: u16, mut queue: mpsc::Receiver<BrokerJob>, batch_max: usize) {
    let property = |name: &str, value: String| Property { name: name.to_owned(), value };
    let config = Config {
        name: "native".to_owned(),
        properties: vec![
            property("redisHost", format!("127.0.0.1:{port}")),
            property("maxLenApprox", "10000".to_owned()),
        ],
        instance: "native".to_owned(),
    };
    let (status, _news) = StatusSink::channel();
    let adapter = Rc::new(Redis::open(config, status).await.unwrap());
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

async fn publish(adapter: Rc<Redis>, batch: Vec<PublishJob>) {
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
