//! The supervisor of one broker's adapter: it starts instances, starts another when one is lost, and lets another component
//! take over while messages flow. The queue of jobs is the supervisor's: what waits there outlives an instance.
//!
//! ```text
//! replacement ──► an instance beside: opens, becomes ready ──► the serving one: retires ──► the new one serves
//!                                                                └► drains what it has in hand, closes
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use whimbrel_pubsub::step;

use crate::broker::{BrokerState, ReplaceError};
use crate::instance::{Common, Instance, Made, Unready};
use crate::jobs::Closing;
use crate::worker::End;

/// The first wait before a fresh instance; it doubles up to [`RESTART_WAIT_MAX`].
const RESTART_WAIT_MIN: Duration = Duration::from_millis(10);

/// The longest wait within the budget.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(5);

/// Instances that may be lost within [`BUDGET_WINDOW`]. Beyond it the broker rests.
const RESTARTS_MAX: usize = 20;

/// See [`RESTARTS_MAX`].
const BUDGET_WINDOW: Duration = Duration::from_secs(60);

/// How long a broker rests that used up its budget. Publishes are refused meanwhile.
const REST: Duration = Duration::from_secs(30);

/// How long closing waits for an instance that was replaced and is not done yet.
const RETIRED_WAIT: Duration = Duration::from_secs(10);

/// A component that is to take over, and who wants to know whether it has.
pub(crate) struct Order {
    pub(crate) made: Made,
    pub(crate) reply: oneshot::Sender<Result<(), ReplaceError>>,
}

/// See the module.
pub(crate) struct Supervisor {
    common: Arc<Common>,
    made: Made,
    orders: mpsc::Receiver<Order>,
    /// The one that was replaced, until it has ended: at most two live at a time.
    retired: Option<Instance>,
    /// When instances were lost, within the budget's window.
    lost: VecDeque<Instant>,
}

/// What happens between two instances.
enum Rest {
    /// Publishes are held for a moment.
    Wait(Duration),
    /// They are refused until a time, or for ever.
    Refuse(Option<Instant>, &'static str),
}

impl Supervisor {
    pub(crate) fn new(common: Common, made: Made, orders: mpsc::Receiver<Order>) -> Self {
        Self { common: Arc::new(common), made, orders, retired: None, lost: VecDeque::new() }
    }

    pub(crate) async fn run(mut self) {
        let closing = self.serve().await;
        if let Some(retired) = &mut self.retired {
            // Out of time or not: what it has left stays with the broker.
            tokio::time::timeout(RETIRED_WAIT, retired.ended()).await.ok();
        }
        self.common.state.send_replace(BrokerState::Closed);
        if let Some(reply) = closing.0 {
            // Whoever asked may have given up.
            reply.send(()).ok();
        }
    }

    /// One instance after the other, until the broker is to close.
    async fn serve(&mut self) -> Closing {
        let name = self.common.settings.name.clone();
        let mut next = None;
        loop {
            let mut instance = next.take().unwrap_or_else(|| Instance::start(&self.common, &self.made));
            instance.go();
            let rest = match self.watch(instance).await {
                Ok(End::Closed(closing)) => return closing,
                Ok(End::NotOpened(error)) if error.is_final() => {
                    tracing::error!(broker = name, "cannot be opened: {error}");
                    self.common.state.send_replace(BrokerState::Failed(error.to_string()));
                    Rest::Refuse(None, "the broker cannot be opened")
                }
                Ok(End::NotOpened(error)) => self.lost(error.to_string()),
                Ok(End::Hung(what)) => self.lost(what.to_owned()),
                Ok(End::Retired) => continue,
                Err(trap) => self.lost(trap),
            };
            match self.rest(rest).await {
                Ok(replacement) => next = replacement,
                Err(closing) => return closing,
            }
        }
    }

    /// Until the serving instance ends. Others may take over meanwhile, one after the other.
    async fn watch(&mut self, mut serving: Instance) -> Result<End, String> {
        loop {
            let order = tokio::select! {
                biased;
                ended = serving.ended() => return ended,
                ended = ended(&mut self.retired) => {
                    self.drained(ended);
                    continue;
                }
                Some(order) = self.orders.recv(), if self.retired.is_none() => order,
            };
            let mut candidate = Instance::beside(&self.common, &order.made);
            let ready = tokio::select! {
                biased;
                // Who asked learns from the dropped order that it was not the time.
                ended = serving.ended() => return ended,
                ready = candidate.ready(self.common.settings.open_wait) => ready,
            };
            if let Err(unready) = ready {
                order.refuse(unready.into());
                continue;
            }
            step("swap.ready");
            match serving.retire().await {
                Some(Err(why)) => order.refuse(ReplaceError::Kept(why)),
                Some(Ok(())) => {
                    self.adopt(order);
                    candidate.go();
                    step("swap.switched");
                    self.retired = Some(std::mem::replace(&mut serving, candidate));
                }
                // It ended in this very moment; the next turn sees how.
                None => {}
            }
        }
    }

    /// Between two instances: the next one, if a replacement proves itself meanwhile.
    async fn rest(&mut self, how: Rest) -> Result<Option<Instance>, Closing> {
        let common = Arc::clone(&self.common);
        let mut jobs = common.jobs.lock().await;
        let resting = async {
            match how {
                Rest::Wait(wait) => jobs.meanwhile(tokio::time::sleep(wait)).await,
                Rest::Refuse(until, why) => jobs.refuse(until, why).await,
            }
        };
        tokio::select! {
            biased;
            instance = self.replacement() => Ok(Some(instance)),
            rested = resting => rested.map(|()| None),
        }
    }

    /// The first replacement that is ready, while nothing serves.
    async fn replacement(&mut self) -> Instance {
        loop {
            let Some(order) = self.orders.recv().await else { return std::future::pending().await };
            let mut candidate = Instance::beside(&self.common, &order.made);
            match candidate.ready(self.common.settings.open_wait).await {
                Err(unready) => order.refuse(unready.into()),
                Ok(()) => {
                    self.adopt(order);
                    return candidate;
                }
            }
        }
    }

    /// From now on instances are made of this.
    fn adopt(&mut self, order: Order) {
        self.made = order.made;
        self.lost.clear();
        // Whoever asked may have given up.
        order.reply.send(Ok(())).ok();
    }

    /// The replaced instance has ended.
    fn drained(&mut self, ended: Result<End, String>) {
        self.retired = None;
        let broker = &self.common.settings.name;
        match ended {
            Ok(_) => {
                step("swap.drained");
                tracing::info!(broker, "the replaced adapter has finished what it had in hand, and is closed");
            }
            Err(why) => {
                tracing::warn!(
                    broker,
                    "the replaced adapter was lost before it had finished, the broker delivers again: {why}"
                );
            }
        }
    }

    /// An instance was lost; what comes before the next.
    fn lost(&mut self, why: String) -> Rest {
        let name = &self.common.settings.name;
        tracing::error!(broker = name, "the adapter was lost, a fresh instance follows: {why}");
        self.common.state.send_replace(BrokerState::Restarting(why));
        match self.restart_wait() {
            Some(wait) => Rest::Wait(wait),
            None => {
                let why = "the adapter was lost too often, and rests";
                tracing::error!(broker = self.common.settings.name, rest_seconds = REST.as_secs(), "{why}");
                Rest::Refuse(Some(Instant::now() + REST), why)
            }
        }
    }

    /// How long to wait before the next instance; `None` when the budget is used up.
    fn restart_wait(&mut self) -> Option<Duration> {
        let now = Instant::now();
        self.lost.push_back(now);
        while self.lost.front().is_some_and(|lost| now.duration_since(*lost) > BUDGET_WINDOW) {
            self.lost.pop_front();
        }
        if self.lost.len() > RESTARTS_MAX {
            self.lost.clear();
            return None;
        }
        let doublings = u32::try_from(self.lost.len() - 1).unwrap_or(u32::MAX).min(16);
        let wait = RESTART_WAIT_MIN.saturating_mul(1 << doublings).min(RESTART_WAIT_MAX);
        Some(wait.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

impl Order {
    fn refuse(self, error: ReplaceError) {
        // Whoever asked may have given up.
        self.reply.send(Err(error)).ok();
    }
}

impl From<Unready> for ReplaceError {
    fn from(unready: Unready) -> Self {
        match unready {
            Unready::NotYet(why) => Self::NotReady(why),
            Unready::Never(why) => Self::Unfit(why),
        }
    }
}

/// How the replaced instance ended; never, if there is none.
async fn ended(retired: &mut Option<Instance>) -> Result<End, String> {
    match retired {
        Some(retired) => retired.ended().await,
        None => std::future::pending().await,
    }
}
