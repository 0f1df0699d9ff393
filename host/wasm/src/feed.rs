//! One live subscription inside a worker: the guest's stream of deliveries out, verdicts in.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, PollSender};
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, FutureConsumer, ResourceAny, Source, StreamConsumer, StreamResult};
use whimbrel_pubsub::{Arrived, BrokerError, Feed, FeedJob, SettleError, SubscribeJob};

use crate::bindings::adapter::BrokerAdapter;
use crate::bindings::adapter::exports::whimbrel::pubsub::broker as wit;
use crate::bindings::adapter::whimbrel::pubsub::types::Failure;
use crate::convert;
use crate::state::State;

/// Batches of deliveries between the store and the spine. The adapter's credits bound the messages.
const BATCHES_MAX: usize = 16;

/// Deliveries that are taken from the guest at a time.
const BATCH_DELIVERIES_MAX: usize = 256;

/// How long a subscribe call may take.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(60);

/// How long settling, pausing or stopping may take. Shorter than what the spine waits for a settlement.
const CALL_WAIT: Duration = Duration::from_secs(20);

/// Jobs that wait for the subscription, and settlements in one call.
const JOBS_MAX: usize = 1024;

/// How long a few settlements wait for more, so that one call and one round trip serve them all. Nobody waits for them but
/// the broker: the subscriber has been served.
const LINGER: Duration = Duration::from_millis(1);

/// The part of a subscription's credit that is settled without waiting for more: the rest keeps messages coming meanwhile.
const LINGER_CREDIT_PART: u32 = 4;

/// Opens a subscription, hands its feed to who asked, and serves its verdicts until it is stopped.
///
/// # Errors
/// The guest's trap, which is the worker's end.
pub(crate) async fn subscribe(
    store: &Accessor<State>,
    guest: &BrokerAdapter,
    connection: ResourceAny,
    job: SubscribeJob,
    topic_flow: bool,
    leave: CancellationToken,
) -> wasmtime::Result<()> {
    let SubscribeJob { topic, group, max_unsettled, start, metadata, reply } = job;
    // Where publishers wait for the settlement, none lingers.
    let enough = if topic_flow { 1 } else { (max_unsettled / LINGER_CREDIT_PART).max(1) as usize };
    let options =
        wit::SubscribeOptions { max_unsettled: max_unsettled.max(1), start: start.map(convert::start), metadata };
    let calls = guest.whimbrel_pubsub_broker().connection();
    let opening = calls.call_subscribe(store, connection, topic.as_ref().to_owned(), group, options);
    let opened = match tokio::time::timeout(SUBSCRIBE_WAIT, opening).await {
        Ok(opened) => opened?.map_err(convert::failure),
        Err(_) => Err(BrokerError::Transient("the adapter did not subscribe in time".to_owned())),
    };
    let (subscription, deliveries, ended) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // Who asked may have given up; then nobody is interested.
            reply.send(Err(error)).ok();
            return Ok(());
        }
    };
    let (batches, feed_deliveries) = mpsc::channel(BATCHES_MAX);
    let (end, feed_ended) = oneshot::channel();
    store.with(|mut access| deliveries.pipe(&mut access, ToFeed(PollSender::new(batches))))?;
    store.with(|mut access| ended.pipe(&mut access, ToEnd(Some(end))))?;
    let (jobs, queue) = mpsc::channel(JOBS_MAX);
    // If nobody takes the feed, its jobs' sender goes with it, and serving ends at once.
    drop(reply.send(Ok(Feed { deliveries: feed_deliveries, jobs, ended: feed_ended, leave })));
    serve(store, guest, subscription, queue, enough).await
}

/// Takes what waits, and what comes within [`LINGER`] if it is not enough. 0: nobody holds the feed any more.
async fn take(queue: &mut mpsc::Receiver<FeedJob>, waiting: &mut Vec<FeedJob>, enough: usize) -> usize {
    let mut taken = queue.recv_many(waiting, JOBS_MAX).await;
    let mut over = pin!(tokio::time::sleep(LINGER));
    while (1..enough).contains(&taken) && waiting.iter().all(|job| matches!(job, FeedJob::Settle { .. })) {
        tokio::select! { biased;
            () = &mut over => break,
            more = queue.recv_many(waiting, JOBS_MAX - taken) => match more {
                0 => break,
                more => taken += more,
            },
        }
    }
    taken
}

/// Serves verdicts, as many in one call as are waiting, until the subscription is stopped or nobody holds its feed.
async fn serve(
    store: &Accessor<State>,
    guest: &BrokerAdapter,
    subscription: ResourceAny,
    mut queue: mpsc::Receiver<FeedJob>,
    enough: usize,
) -> wasmtime::Result<()> {
    let calls = guest.whimbrel_pubsub_broker().subscription();
    let mut waiting = Vec::new();
    loop {
        let taken = take(&mut queue, &mut waiting, enough).await;
        let (mut settlements, mut replies) = (Vec::with_capacity(taken), Vec::with_capacity(taken));
        let mut orders = Vec::new();
        for job in waiting.drain(..) {
            match job {
                FeedJob::Settle { token, verdict, reply } => {
                    settlements.push(convert::settlement(token, verdict));
                    replies.push(reply);
                }
                order => orders.push(order),
            }
        }
        if !settlements.is_empty() {
            let results = bounded(calls.call_settle(store, subscription, settlements), "a settle call").await?;
            answer(results, replies);
        }
        for order in orders {
            match order {
                FeedJob::Pause(reply) => {
                    bounded(calls.call_pause(store, subscription), "a pause call").await?;
                    reply.send(()).ok();
                }
                FeedJob::Resume(reply) => {
                    bounded(calls.call_resume(store, subscription), "a resume call").await?;
                    reply.send(()).ok();
                }
                FeedJob::Stop(reply) => {
                    bounded(calls.call_stop(store, subscription), "a stop call").await?;
                    reply.send(()).ok();
                    return Ok(());
                }
                FeedJob::Settle { .. } => {}
            }
        }
        if taken == 0 {
            return bounded(calls.call_stop(store, subscription), "a stop call").await;
        }
    }
}

/// A call that should be short. One that hangs is the instance's end: nothing it was told can be trusted any more.
async fn bounded<T>(call: impl Future<Output = wasmtime::Result<T>>, what: &str) -> wasmtime::Result<T> {
    match tokio::time::timeout(CALL_WAIT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(wasmtime::format_err!("{what} has no answer after {} s", CALL_WAIT.as_secs())),
    }
}

/// A list of another length is a bug of the adapter: what has no answer is not known.
fn answer(results: Vec<Result<(), wit::SettleFailure>>, replies: Vec<oneshot::Sender<Result<(), SettleError>>>) {
    let mut results = results.into_iter();
    for reply in replies {
        let missing = || Err(SettleError::Failed(BrokerError::Unknown("the adapter gave no result".to_owned())));
        let result = results.next().map_or_else(missing, |result| result.map_err(convert::settle_failure));
        // The spine waits no longer than its bound.
        reply.send(result).ok();
    }
}

/// Takes deliveries from the guest when the spine has room for them: that is the back-pressure.
struct ToFeed(PollSender<Vec<Arrived>>);

impl StreamConsumer<State> for ToFeed {
    type Item = wit::Delivery;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'_, State>,
        mut source: Source<'_, wit::Delivery>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        store.data().busy.reset();
        match self.0.poll_reserve(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Ready(Ok(())) => {}
        }
        let count = source.remaining(&mut store).min(BATCH_DELIVERIES_MAX);
        if count == 0 {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let mut batch = Vec::with_capacity(count);
        source.read(&mut store, &mut batch)?;
        // A spine that left in the meantime has nothing to lose: what is unsettled comes again.
        self.0.send_item(batch.into_iter().map(convert::arrived).collect()).ok();
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// Takes the reason why a subscription ended.
struct ToEnd(Option<oneshot::Sender<BrokerError>>);

impl FutureConsumer<State> for ToEnd {
    type Item = Result<(), Failure>;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        mut source: Source<'_, Self::Item>,
        _: bool,
    ) -> Poll<wasmtime::Result<()>> {
        let mut reason: Option<Result<(), Failure>> = None;
        source.read(store, &mut reason)?;
        if let (Some(Err(error)), Some(end)) = (reason, self.0.take()) {
            end.send(convert::failure(error)).ok();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
