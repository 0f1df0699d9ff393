//! The fake adapter with its broker: it stores, delivers, settles, and fails in every way that the contract allows.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::world::{Key, Shared};
use crate::{Arrived, BrokerError, BrokerJob, Feed, FeedJob, PublishJob, SettleError, SubscribeJob, Verdict};

/// Later than any run lasts.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// Serves a broker's jobs until its handle is gone.
pub(super) async fn serve(world: Shared, mut jobs: mpsc::Receiver<BrokerJob>) {
    while let Some(job) = jobs.recv().await {
        let instance = world.lock().instance.clone();
        match job {
            BrokerJob::Publish(job) => drop(tokio::spawn(publish(world.clone(), instance, job))),
            BrokerJob::Subscribe(job) => drop(tokio::spawn(subscribe(world.clone(), instance, job))),
            BrokerJob::Ping(reply) => drop(reply.send(Ok(()))),
            BrokerJob::Close(reply) => drop(reply.send(())),
        }
    }
}

async fn publish(world: Shared, instance: CancellationToken, job: PublishJob) {
    let lost = tokio::select! {
        biased;
        () = instance.cancelled() => true,
        () = world.dawdle(Duration::from_millis(40)) => false,
    };
    let mut results = Vec::new();
    for message in &job.messages {
        let mut world = world.lock();
        let result = match world.rng.u8(..100) {
            // The reply will be lost; the message may be stored.
            thrown if lost => {
                if thrown < 50 {
                    world.store(message);
                }
                continue;
            }
            _ if world.calm => Ok(()),
            0..70 => Ok(()),
            70..78 => Err(BrokerError::Unknown("perhaps".into())),
            78..90 => Err(BrokerError::Transient("not now".into())),
            90..94 => Err(BrokerError::Throttled { message: "slowly".into(), retry_after: Duration::from_secs(1) }),
            94..97 => Err(BrokerError::Permanent("never".into())),
            _ => Err(BrokerError::Invalid("not that".into())),
        };
        let stored = match &result {
            Ok(()) => true,
            Err(BrokerError::Unknown(_)) => world.rng.bool(),
            Err(_) => false,
        };
        if stored {
            world.store(message);
        } else {
            world.seen.refused += 1;
        }
        results.push(result);
    }
    let (swallowed, late) = {
        let mut world = world.lock();
        (world.fault(4), world.fault(4))
    };
    if late {
        tokio::time::sleep(Duration::from_secs(40)).await;
    }
    if !lost && !swallowed {
        // Whoever asked may wait no longer.
        job.reply.send(results).ok();
    }
}

async fn subscribe(world: Shared, instance: CancellationToken, job: SubscribeJob) {
    world.dawdle(Duration::from_millis(100)).await;
    let thrown = world.lock().rng.u8(..100);
    match thrown {
        _ if instance.is_cancelled() => return,
        _ if world.lock().calm => {}
        0..8 => return drop(job.reply.send(Err(BrokerError::Transient("not now".into())))),
        8..11 => return drop(job.reply.send(Err(BrokerError::Invalid("not that".into())))),
        11..14 => return,
        _ => {}
    }
    let key: Key = (job.group, job.topic.as_ref().to_owned());
    let (batches, deliveries) = mpsc::channel(16);
    let (jobs, queue) = mpsc::channel(1024);
    let (end, ended) = oneshot::channel();
    if job.reply.send(Ok(Feed { deliveries, jobs, ended, leave: CancellationToken::new() })).is_err() {
        return;
    }
    let lost = instance.child_token();
    let incarnation = {
        let mut world = world.lock();
        world.feeds.insert(key.clone(), lost.clone());
        world.queues[&key].incarnation
    };
    let live = Live { world, key, incarnation, max_unsettled: job.max_unsettled as usize, tokens: BTreeSet::new() };
    live.run(lost, batches, queue, end).await;
}

/// One live subscription.
struct Live {
    world: Shared,
    key: Key,
    incarnation: u32,
    max_unsettled: usize,
    /// Handed out and not settled.
    tokens: BTreeSet<u64>,
}

impl Live {
    async fn run(
        mut self,
        lost: CancellationToken,
        batches: mpsc::Sender<Vec<Arrived>>,
        mut queue: mpsc::Receiver<FeedJob>,
        end: oneshot::Sender<BrokerError>,
    ) {
        let (changed, reconnect) = {
            let world = self.world.lock();
            (world.queues[&self.key].changed.clone(), world.reconnect.clone())
        };
        let (settled, mut done) = mpsc::channel(1024);
        let mut paused = false;
        loop {
            let room = if paused { 0 } else { self.max_unsettled - self.tokens.len() };
            let batch = self.world.lock().take(&self.key, self.incarnation, room);
            if !batch.is_empty() {
                self.tokens.extend(batch.iter().map(|arrived| arrived.token));
                if batches.send(batch).await.is_err() {
                    break;
                }
                continue;
            }
            let ready = if room == 0 { None } else { self.world.lock().next_ready(&self.key) };
            tokio::select! {
                biased;
                () = lost.cancelled() => break,
                job = queue.recv() => match job {
                    Some(FeedJob::Settle { token, verdict, reply }) => {
                        self.world.lock().receive(token, verdict);
                        tokio::spawn(settle(self.world.clone(), lost.clone(), (token, verdict), reply, settled.clone()));
                    }
                    Some(FeedJob::Pause(reply)) => {
                        paused = true;
                        reply.send(()).ok();
                    }
                    Some(FeedJob::Resume(reply)) => {
                        paused = false;
                        reply.send(()).ok();
                    }
                    Some(FeedJob::Stop(reply)) => {
                        if !paused {
                            self.world.lock().violation("stopped without a pause before");
                        }
                        reply.send(()).ok();
                        break;
                    }
                    None => break,
                },
                Some(token) = done.recv() => drop(self.tokens.remove(&token)),
                () = reconnect.notified() => {
                    // The adapter lost its broker and has it back: the feed lives, its tokens do not.
                    self.world.lock().release(&self.key, &self.tokens);
                    self.tokens.clear();
                }
                () = changed.notified() => {}
                () = sleep_until(ready.unwrap_or_else(|| Instant::now() + NEVER)) => {}
            }
        }
        self.world.lock().release(&self.key, &self.tokens);
        if lost.is_cancelled() && self.world.lock().rng.bool() {
            end.send(BrokerError::Transient("the connection broke".into())).ok();
        }
    }
}

/// Settles one delivery, perhaps after a while, perhaps without a word.
async fn settle(
    world: Shared,
    lost: CancellationToken,
    (token, verdict): (u64, Verdict),
    reply: oneshot::Sender<Result<(), SettleError>>,
    settled: mpsc::Sender<u64>,
) {
    tokio::select! {
        biased;
        () = lost.cancelled() => return,
        () = world.dawdle(Duration::from_millis(30)) => {}
    }
    let answer = {
        let mut world = world.lock();
        match world.rng.u8(..100) {
            thrown if world.calm || thrown >= 10 => {
                Some(if world.apply(token, verdict) { Ok(()) } else { Err(SettleError::Stale) })
            }
            // Carried out, and nobody learns of it.
            0..4 => {
                world.seen.swallowed += 1;
                world.apply(token, verdict);
                None
            }
            4..7 => {
                world.apply(token, verdict);
                Some(Err(SettleError::Failed(BrokerError::Unknown("perhaps".into()))))
            }
            // Not carried out: the lease runs out in a while.
            _ => {
                world.apply(token, Verdict::Retry(Duration::from_secs(3)));
                Some(Err(SettleError::Failed(BrokerError::Transient("not now".into()))))
            }
        }
    };
    settled.send(token).await.ok();
    if let Some(answer) = answer {
        reply.send(answer).ok();
    }
}
