//! Who we are to the brokers, so that a batch that is written twice is stored once.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::lock::Mutex;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::InitProducerIdRequest;
use whimbrel_sdk::{Failure, log, timer};

use crate::cluster::{CallError, Cluster, Lane, To};
use crate::config::Acks;
use crate::failure::{error, of_any};

/// The producer's number at the brokers. `None`: batches are not numbered.
pub(super) type ProducerId = Option<i64>;

/// Said once.
const UNNUMBERED: &str = "Kafka does not let this user (metadata saslUsername) number its messages: grant it WRITE on the topic it \
                          publishes to, and before Kafka 2.8 IDEMPOTENT_WRITE on the cluster. Where an answer is lost, a \
                          publish fails as unknown until then instead of being tried again";

/// A user that may not number its messages may be allowed to later: so long after the refusal it is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Identity {
    cluster: Rc<Cluster>,
    known: Cell<Option<ProducerId>>,
    /// When the brokers last said that this user may not.
    refused: Cell<Option<Instant>>,
    asking: Mutex<()>,
}

impl Identity {
    pub(super) fn new(cluster: Rc<Cluster>) -> Self {
        // Numbers are of use only where the broker says what it has stored.
        let known = (cluster.settings().acks != Acks::All).then_some(None);
        Self { cluster, known: Cell::new(known), refused: Cell::new(None), asking: Mutex::new(()) }
    }

    /// Whether it is for lack of a permission that batches are not numbered.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.get().is_some()
    }

    /// The number if it is known, or known not to be had.
    fn known(&self) -> Option<ProducerId> {
        let lately = |at: Instant| timer::now().saturating_duration_since(at) < ASK_AGAIN_AFTER;
        self.known.get().or_else(|| self.refused.get().filter(|at| lately(*at)).map(|_| None))
    }

    /// The number, asked for once.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) async fn get(&self, patience: Duration) -> Result<ProducerId, Failure> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let _turn = self.asking.lock().await;
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(0)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let answer = self.cluster.call(&To::Any, Lane::Main, request, patience).await.map_err(CallError::harmless)?;
        match error(answer.error_code) {
            None => {
                let known = Some(answer.producer_id.0);
                self.known.set(Some(known));
                self.refused.set(None);
                Ok(known)
            }
            // Before Kafka 2.8 this needs a permission of its own, which a publisher may well do without.
            Some(ResponseError::ClusterAuthorizationFailed) => {
                if self.refused.replace(Some(timer::now())).is_none() {
                    log::warn(UNNUMBERED);
                }
                Ok(None)
            }
            Some(error) => Err(of_any(error)),
        }
    }
}
