//! The host's end of a subscription.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};

use super::{A_WHILE, SOON, until};
use crate::{Delivery, Failure, SettleFailure, Settlement, Subscription, Verdict};

/// See the module.
#[derive(Debug)]
pub struct Inbox<S> {
    subscription: RefCell<Option<Rc<S>>>,
    lists: RefCell<mpsc::Receiver<Vec<Delivery>>>,
    ended: RefCell<oneshot::Receiver<Failure>>,
    waiting: RefCell<VecDeque<Delivery>>,
}

impl<S: Subscription> Inbox<S> {
    pub(super) fn new(
        subscription: S,
        lists: mpsc::Receiver<Vec<Delivery>>,
        ended: oneshot::Receiver<Failure>,
    ) -> Self {
        Self {
            subscription: RefCell::new(Some(Rc::new(subscription))),
            lists: RefCell::new(lists),
            ended: RefCell::new(ended),
            waiting: RefCell::default(),
        }
    }

    /// All deliveries that have come; waits for one, without an end of its own.
    ///
    /// # Panics
    /// The stream ends.
    pub async fn list(&self) -> Vec<Delivery> {
        if self.waiting.borrow().is_empty() {
            let list = self.next_list().await.expect("the stream ended");
            assert!(!list.is_empty(), "an empty list was handed over");
            self.waiting.borrow_mut().extend(list);
        }
        self.waiting.take().into()
    }

    /// The next delivery, if one comes in time. None also at the end of the stream.
    ///
    /// # Panics
    /// A list has nothing in it.
    pub async fn within(&self, wait: Duration) -> Option<Delivery> {
        let waiting = self.waiting.borrow_mut().pop_front();
        if waiting.is_some() {
            return waiting;
        }
        let list = tokio::time::timeout(wait, self.next_list()).await.ok()??;
        assert!(!list.is_empty(), "an empty list was handed over");
        self.waiting.borrow_mut().extend(list);
        self.waiting.borrow_mut().pop_front()
    }

    async fn next_list(&self) -> Option<Vec<Delivery>> {
        poll_fn(|context| self.lists.borrow_mut().poll_next_unpin(context)).await
    }

    /// The next delivery.
    ///
    /// # Panics
    /// None comes in time.
    pub async fn next(&self) -> Delivery {
        self.within(SOON).await.expect("no delivery")
    }

    /// The next so many.
    ///
    /// # Panics
    /// They do not come in time.
    pub async fn take(&self, count: usize) -> Vec<Delivery> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }

    /// What else comes, until nothing has for a while.
    pub async fn rest(&self) -> Vec<Delivery> {
        let mut all = Vec::new();
        while let Some(delivery) = self.within(A_WHILE).await {
            all.push(delivery);
        }
        all
    }

    /// Whether nothing comes for a while.
    pub async fn is_quiet(&self) -> bool {
        self.within(A_WHILE).await.is_none()
    }

    /// Whether the stream has ended, or ends soon.
    pub async fn has_ended(&self) -> bool {
        self.waiting.borrow_mut().clear();
        let ending = async { while self.next_list().await.is_some() {} };
        tokio::time::timeout(SOON, ending).await.is_ok()
    }

    /// Why the adapter has ended the subscription.
    ///
    /// # Panics
    /// It does not end it, or ends it without a reason.
    pub async fn why_ended(&self) -> Failure {
        let ending = poll_fn(|context| Future::poll(std::pin::Pin::new(&mut *self.ended.borrow_mut()), context));
        tokio::time::timeout(SOON, ending).await.expect("it does not end").expect("it ended without a reason")
    }

    fn live(&self) -> Rc<S> {
        self.subscription.borrow().clone().expect("it is stopped")
    }

    /// Settles one delivery.
    ///
    /// # Errors
    /// What the adapter answers.
    ///
    /// # Panics
    /// It does not answer once, or is stopped.
    pub async fn settle(&self, token: u64, verdict: Verdict) -> Result<(), SettleFailure> {
        let mut results = self.live().settle(vec![Settlement { token, verdict }]).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    /// Acknowledges one delivery.
    ///
    /// # Panics
    /// The adapter does not take it.
    pub async fn ack(&self, delivery: &Delivery) {
        let settled = self.settle(delivery.token, Verdict::Ack).await;
        assert!(settled.is_ok(), "not acknowledged: {settled:?}");
    }

    /// Acknowledges deliveries in one call, and tells what became of each.
    ///
    /// # Panics
    /// It is stopped.
    pub async fn ack_all(&self, deliveries: &[Delivery]) -> Vec<Result<(), SettleFailure>> {
        let settlement = |delivery: &Delivery| Settlement { token: delivery.token, verdict: Verdict::Ack };
        self.live().settle(deliveries.iter().map(settlement).collect()).await
    }

    /// Acknowledges one delivery, unless the subscription is stopped.
    pub async fn ack_unless_stopped(&self, delivery: &Delivery) -> Option<Result<(), SettleFailure>> {
        let live = self.subscription.borrow().clone()?;
        Some(live.settle(vec![Settlement { token: delivery.token, verdict: Verdict::Ack }]).await.remove(0))
    }

    /// Stops fetching.
    ///
    /// # Panics
    /// It is stopped.
    pub async fn pause(&self) {
        self.live().pause().await;
    }

    /// Fetches again.
    ///
    /// # Panics
    /// It is stopped.
    pub async fn resume(&self) {
        self.live().resume().await;
    }

    /// Stops once nobody settles any more, as the host does.
    ///
    /// # Panics
    /// It takes too long, or is stopped already.
    pub async fn stop(&self) {
        let is_alone = || self.subscription.borrow().as_ref().is_none_or(|one| Rc::strong_count(one) == 1);
        until("nobody settles", async || is_alone()).await;
        let subscription = self.subscription.take().and_then(Rc::into_inner).expect("it is stopped");
        tokio::time::timeout(SOON, subscription.stop()).await.expect("stop hangs");
    }
}
