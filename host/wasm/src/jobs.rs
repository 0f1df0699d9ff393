//! A broker's jobs, and what becomes of them while no instance can take them: opening, waiting for the next start. They
//! are held for a moment, for mostly an instance is soon there, and then answered: nobody waits for what may never come.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use whimbrel_pubsub::{BrokerError, BrokerJob, PublishJob};

/// How long a publish is held without an instance.
const HOLD_WAIT: Duration = Duration::from_secs(5);

/// How long before its own deadline it is answered, so that its publisher learns that nothing was sent.
const ANSWER_AHEAD: Duration = Duration::from_millis(50);

/// Bytes of messages that are held. More are refused at once.
const HELD_BYTES_MAX: usize = 32 << 20;

/// Jobs that are held.
const HELD_JOBS_MAX: usize = 4096;

/// The broker is to close; who asked is told when it has.
#[derive(Debug)]
pub(crate) struct Closing(pub(crate) Option<oneshot::Sender<()>>);

/// See the module.
#[derive(Debug)]
pub(crate) struct Jobs {
    queue: mpsc::Receiver<BrokerJob>,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// When the next publish that is held has waited long enough.
    over: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    job: BrokerJob,
    /// How long it may be held; a subscription waits as long as it must.
    until: Option<Instant>,
}

impl Jobs {
    pub(crate) fn new(queue: mpsc::Receiver<BrokerJob>) -> Self {
        Self { queue, held: VecDeque::new(), held_bytes: 0, over: None }
    }

    /// Takes jobs for an instance, held ones first. 0: there will be no more.
    pub(crate) async fn recv_many(&mut self, taken: &mut Vec<BrokerJob>, count_max: usize) -> usize {
        if self.held.is_empty() {
            return self.queue.recv_many(taken, count_max).await;
        }
        (self.held_bytes, self.over) = (0, None);
        let before = taken.len();
        taken.extend(self.held.drain(..).map(|held| held.job));
        taken.len() - before
    }

    /// Takes back what an instance has taken and not begun, in its order. It was accepted, so no bound refuses it now.
    pub(crate) fn give_back(&mut self, jobs: impl Iterator<Item = PublishJob>) {
        for publish in jobs {
            self.held_bytes += bytes(&publish);
            let until = Some(held_until(&publish));
            self.over = earlier(self.over, until);
            self.held.push_back(Held { job: BrokerJob::Publish(publish), until });
        }
    }

    /// Waits for something that brings an instance nearer, and looks after the jobs meanwhile.
    pub(crate) async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Closing> {
        let mut future = pin!(future);
        loop {
            let over = self.over;
            tokio::select! {
                biased;
                done = &mut future => return Ok(done),
                job = self.queue.recv() => match job {
                    None => return Err(Closing(None)),
                    Some(BrokerJob::Close(reply)) => return Err(Closing(Some(reply))),
                    Some(job) => self.hold(job),
                },
                () = tokio::time::sleep_until(over.unwrap_or_else(Instant::now)), if over.is_some() => self.expire(),
            }
        }
    }

    /// Answers everything at once until a time, or for ever.
    pub(crate) async fn refuse(&mut self, until: Option<Instant>, why: &str) -> Result<(), Closing> {
        for held in self.held.drain(..) {
            refuse(held.job, why);
        }
        (self.held_bytes, self.over) = (0, None);
        loop {
            let job = match until {
                None => self.queue.recv().await,
                Some(until) => match tokio::time::timeout_at(until, self.queue.recv()).await {
                    Err(_) => return Ok(()),
                    Ok(job) => job,
                },
            };
            match job {
                None => return Err(Closing(None)),
                Some(BrokerJob::Close(reply)) => return Err(Closing(Some(reply))),
                Some(job) => refuse(job, why),
            }
        }
    }

    fn hold(&mut self, job: BrokerJob) {
        let mut until = None;
        match &job {
            BrokerJob::Ping(_) => return refuse(job, "the broker's adapter is starting"),
            BrokerJob::Publish(publish) => {
                let bytes = bytes(publish);
                if self.held_bytes + bytes > HELD_BYTES_MAX || self.held.len() >= HELD_JOBS_MAX {
                    return answer(job, || BrokerError::Overloaded);
                }
                self.held_bytes += bytes;
                until = Some(held_until(publish));
            }
            BrokerJob::Subscribe(_) | BrokerJob::Close(_) => {}
        }
        self.over = earlier(self.over, until);
        self.held.push_back(Held { job, until });
    }

    /// Answers the publishes that have waited long enough.
    fn expire(&mut self) {
        let now = Instant::now();
        let is_over = |held: &Held| held.until.is_some_and(|until| until <= now);
        let (over, held): (VecDeque<_>, VecDeque<_>) = self.held.drain(..).partition(is_over);
        self.held = held;
        self.over = self.held.iter().fold(None, |earliest, held| earlier(earliest, held.until));
        for Held { job, .. } in over {
            if let BrokerJob::Publish(publish) = &job {
                self.held_bytes -= bytes(publish);
            }
            refuse(job, "not sent: the broker's adapter is not connected yet");
        }
    }
}

/// How long a publish is held at most, from now on.
fn held_until(publish: &PublishJob) -> Instant {
    let deadline = publish.deadline.checked_sub(ANSWER_AHEAD).unwrap_or(publish.deadline);
    deadline.min(Instant::now() + HOLD_WAIT)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// The bytes of a job's messages.
pub(crate) fn bytes(job: &PublishJob) -> usize {
    let size = |message: &whimbrel_pubsub::Message| {
        let pairs: usize = message.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        message.data.len() + message.topic.len() + pairs
    };
    job.messages.iter().map(size).sum()
}

fn refuse(job: BrokerJob, why: &str) {
    answer(job, || BrokerError::Transient(why.to_owned()));
}

/// Answers a job with a failure. Whoever asked may have given up already.
fn answer(job: BrokerJob, error: impl Fn() -> BrokerError) {
    match job {
        BrokerJob::Publish(job) => drop(job.reply.send(vec![Err(error()); job.messages.len()])),
        BrokerJob::Subscribe(job) => drop(job.reply.send(Err(error()))),
        BrokerJob::Ping(reply) => drop(reply.send(Err(error()))),
        BrokerJob::Close(reply) => drop(reply.send(())),
    }
}

#[cfg(test)]
mod tests;
