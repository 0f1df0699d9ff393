//! Publishers that send the ledger's messages to a host, each until it is confirmed. Called by the loss runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ledger::Ledger;

/// How many publishers send at the same time.
pub(crate) const PUBLISHERS: usize = 48;

/// How long a publisher waits for an answer. Longer than any fault of these tests lasts.
const ANSWER_MAX: Duration = Duration::from_secs(45);

/// How long a publisher waits before it sends a message again.
const AGAIN_AFTER: Duration = Duration::from_millis(25);

type Connections = Client<HttpConnector, Full<Bytes>>;

/// Publishes every message of the ledger to `<pubsub>/<topic>` of the host that listens at this address. Returns when
/// all are confirmed.
///
/// # Errors
/// A message was refused for good, or the host is gone for good.
pub(crate) async fn publish_all(
    ledger: Arc<Ledger>,
    host: watch::Receiver<Option<SocketAddr>>,
    place: String,
) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Connections = Client::builder(TokioExecutor::new()).build(connector);
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let (ledger, mut host) = (Arc::clone(&ledger), host.clone());
        let (client, place) = (client.clone(), place.clone());
        publishers.spawn(async move {
            while let Some(n) = ledger.next().await {
                while !publish(&client, &ledger, &mut host, &place, n).await? {
                    ledger.doubt();
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                ledger.confirm(n);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = publishers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Whether the message is confirmed. If not, it may be stored or not.
async fn publish(
    client: &Connections,
    ledger: &Ledger,
    host: &mut watch::Receiver<Option<SocketAddr>>,
    place: &str,
    n: u64,
) -> Result<bool> {
    let Some(address) = *host.wait_for(Option::is_some).await? else { return Ok(false) };
    let id = ledger.event_id(n);
    let request = Request::post(format!("http://{address}/v1.0/publish/{place}?metadata.cloudevent.id={id}"))
        .header("content-type", "application/json")
        .body(Full::from(ledger.send(n)))?;
    match tokio::time::timeout(ANSWER_MAX, client.request(request)).await {
        Ok(Ok(answer)) if answer.status() == StatusCode::NO_CONTENT => Ok(true),
        Ok(Ok(answer)) if answer.status().is_client_error() && answer.status() != StatusCode::TOO_MANY_REQUESTS => {
            bail!("message {n} was refused: {}", answer.status())
        }
        _ => Ok(false),
    }
}
