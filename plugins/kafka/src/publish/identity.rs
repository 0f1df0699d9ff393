//! Who we are to the brokers, so that a batch that is written twice is stored once.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures::lock::Mutex;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::InitProducerIdRequest;
use whimbrel_sdk::{Failure, log};

use crate::cluster::{CallError, Cluster, Lane, To};
use crate::config::Acks;
use crate::failure::{error, of_any};

/// The producer's number at the brokers. `None`: batches are not numbered.
pub(super) type ProducerId = Option<i64>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Identity {
    cluster: Rc<Cluster>,
    known: Cell<Option<ProducerId>>,
    asking: Mutex<()>,
}

impl Identity {
    pub(super) fn new(cluster: Rc<Cluster>) -> Self {
        // Numbers are of use only where the broker says what it has stored.
        let known = (cluster.settings().acks != Acks::All).then_some(None);
        Self { cluster, known: Cell::new(known), asking: Mutex::new(()) }
    }

    /// The number, asked for once.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) async fn get(&self, patience: Duration) -> Result<ProducerId, Failure> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let _turn = self.asking.lock().await;
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(0)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let answer = self.cluster.call(&To::Any, Lane::Main, request, patience).await.map_err(CallError::harmless)?;
        let known = match error(answer.error_code) {
            None => Some(answer.producer_id.0),
            // Before Kafka 2.8 this needs a permission of its own, which a publisher may well do without.
            Some(ResponseError::ClusterAuthorizationFailed) => {
                log::warn(
                    "Kafka does not let this user number its messages (IDEMPOTENT_WRITE on the cluster): where an answer \
                     is lost, a publish fails as unknown instead of being tried again",
                );
                None
            }
            Some(error) => return Err(of_any(error)),
        };
        self.known.set(Some(known));
        Ok(known)
    }
}
