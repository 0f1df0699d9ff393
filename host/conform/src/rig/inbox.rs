//! A live subscription as a check sees it: what arrives, one after the other, and what it says about it. Every wait is
//! bounded. It never settles by itself.

use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use whimbrel_pubsub::{Arrived, BrokerError, Feed, FeedJob, SettleError, Verdict};

use crate::check::Wrong;

/// How long a settlement may take. The host gives up a little before.
const SETTLE_WAIT: Duration = Duration::from_secs(25);

/// How long pausing, resuming and stopping may take: what the host waits for.
pub(crate) const ORDER_WAIT: Duration = Duration::from_secs(5);

/// How long it may take until what was published has arrived.
pub(crate) const ARRIVE_WAIT: Duration = Duration::from_secs(20);

/// A live subscription. Dropped, it is as if its host took no more.
pub(crate) struct Inbox {
    feed: Feed,
    waiting: VecDeque<Arrived>,
}

impl Inbox {
    pub(crate) fn new(feed: Feed) -> Self {
        Self { feed, waiting: VecDeque::new() }
    }

    /// The next delivery, if one comes in time. None, too, once the stream has ended: see [`Inbox::has_ended`].
    pub(crate) async fn next(&mut self, within: Duration) -> Option<Arrived> {
        self.next_until(Instant::now() + within).await
    }

    /// The same until a time.
    pub(crate) async fn next_until(&mut self, until: Instant) -> Option<Arrived> {
        while self.waiting.is_empty() {
            self.waiting.extend(timeout_at(until, self.feed.deliveries.recv()).await.ok()??);
        }
        self.waiting.pop_front()
    }

    /// Whether the stream has ended and everything on it was taken.
    pub(crate) fn is_gone(&self) -> bool {
        self.waiting.is_empty() && self.feed.deliveries.is_closed() && self.feed.deliveries.is_empty()
    }

    /// As many as that, or what has come by the time; nothing is settled.
    pub(crate) async fn take(&mut self, count: usize, within: Duration) -> Vec<Arrived> {
        let until = Instant::now() + within;
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(arrived) = self.next_until(until).await
        {
            taken.push(arrived);
        }
        taken
    }

    /// Everything that comes within a time.
    pub(crate) async fn watch(&mut self, within: Duration) -> Vec<Arrived> {
        self.take(usize::MAX, within).await
    }

    /// The numbers of these messages (see `Payload::numbered`), once all have come or the time is over; each is
    /// acknowledged. Those that come twice are acknowledged twice.
    pub(crate) async fn ack_numbers(
        &mut self,
        wanted: impl IntoIterator<Item = usize>,
        within: Duration,
    ) -> Result<Vec<Arrived>, Wrong> {
        let mut missing: BTreeSet<usize> = wanted.into_iter().collect();
        let (all, until) = (missing.len(), Instant::now() + within);
        let mut acked = Vec::new();
        while !missing.is_empty() {
            let Some(arrived) = self.next_until(until).await else {
                let first = missing.first().copied().unwrap_or_default();
                let what = format!(
                    "{} of {all} messages did not arrive within {} s, the first of them number {first}",
                    missing.len(),
                    within.as_secs()
                );
                return Err(Wrong::of("D6", what));
            };
            missing.remove(&number(&arrived)?);
            self.ack(&arrived).await?;
            acked.push(arrived);
        }
        Ok(acked)
    }

    /// Settles one delivery.
    pub(crate) async fn settle(&mut self, token: u64, verdict: Verdict) -> Result<(), SettleError> {
        self.settle_all(vec![(token, verdict)]).await.pop().unwrap_or(Err(SettleError::Stale))
    }

    /// Settles several in one go, one answer for each.
    pub(crate) async fn settle_all(&mut self, verdicts: Vec<(u64, Verdict)>) -> Vec<Result<(), SettleError>> {
        let until = Instant::now() + SETTLE_WAIT;
        let mut answers = Vec::new();
        for (token, verdict) in verdicts {
            let (reply, answer) = oneshot::channel();
            let sending = self.feed.jobs.send(FeedJob::Settle { token, verdict, reply });
            answers.push(match timeout_at(until, sending).await {
                Ok(Ok(())) => Some(answer),
                _ => None,
            });
        }
        let mut results = Vec::new();
        for answer in answers {
            results.push(match answer {
                None => Err(SettleError::Stale),
                Some(answer) => match timeout_at(until, answer).await {
                    Ok(answer) => answer.unwrap_or(Err(SettleError::Stale)),
                    Err(_) => Err(SettleError::Failed(BrokerError::Unknown("settle has no answer".to_owned()))),
                },
            });
        }
        results
    }

    /// Acknowledges one; one that is stale by now comes again, and is no failure here.
    pub(crate) async fn ack(&mut self, arrived: &Arrived) -> Result<(), Wrong> {
        match self.settle(arrived.token, Verdict::Ack).await {
            Ok(()) | Err(SettleError::Stale) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has one delivered again after a wait.
    pub(crate) async fn retry(&mut self, arrived: &Arrived, wait: Duration) -> Result<(), Wrong> {
        Ok(self.settle(arrived.token, Verdict::Retry(wait)).await?)
    }

    /// Stops fetching.
    pub(crate) async fn pause(&mut self) -> Result<(), Wrong> {
        self.order(FeedJob::Pause, "pause").await.map_err(|wrong| wrong.or_of("B14"))
    }

    /// Fetches again.
    pub(crate) async fn resume(&mut self) -> Result<(), Wrong> {
        self.order(FeedJob::Resume, "resume").await.map_err(|wrong| wrong.or_of("B14"))
    }

    /// Ends the subscription. What comes afterwards can still be seen.
    pub(crate) async fn stop(&mut self) -> Result<(), Wrong> {
        self.order(FeedJob::Stop, "stop").await.map_err(|wrong| wrong.or_of("B9"))
    }

    /// Whether the stream of deliveries ends within a time. What still comes is thrown away.
    pub(crate) async fn has_ended(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            match timeout_at(until, self.feed.deliveries.recv()).await {
                Err(_) => return false,
                Ok(None) => return true,
                Ok(Some(_)) => {}
            }
        }
    }

    async fn order(&mut self, job: fn(oneshot::Sender<()>) -> FeedJob, what: &str) -> Result<(), Wrong> {
        let (reply, done) = oneshot::channel();
        let ordering = async {
            self.feed.jobs.send(job(reply)).await.ok()?;
            done.await.ok()
        };
        let mut ordering = pin!(timeout(ORDER_WAIT, ordering));
        // As a host does, it goes on taking: an adapter that has something to hand over waits for nobody.
        let done = loop {
            tokio::select! {
                biased;
                done = &mut ordering => break done,
                Some(list) = self.feed.deliveries.recv() => self.waiting.extend(list),
            }
        };
        match done {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(Wrong::new(format!("the subscription was gone before {what} was done"))),
            Err(_) => Err(Wrong::new(format!("{what} was not done after {} s", ORDER_WAIT.as_secs()))),
        }
    }
}

/// The number that a message tells (see `Payload::numbered`).
pub(crate) fn number(arrived: &Arrived) -> Result<usize, Wrong> {
    let text = std::str::from_utf8(&arrived.message.data).ok().and_then(|text| text.strip_prefix("message-"));
    let parsed = text.and_then(|digits| digits.parse().ok());
    parsed.ok_or_else(|| Wrong::of("C4", "a message arrived whose bytes nobody published"))
}
