//! `--wait`: waits for a host that was started elsewhere, as whoever starts an app after it does (pubsub-behaviour, section
//! 12.2).

use std::time::Duration;

use whimbrel_api::Client;

use crate::error::Exit;

/// How long it may take, as for daprd.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Between two questions.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Returns when the host with its HTTP API on this port can publish.
pub(crate) async fn until_outbound(port: u16) -> Exit {
    let client = match Client::new(format!("127.0.0.1:{port}"), None) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!("{error}");
            return Exit::Failed;
        }
    };
    let mut last = String::new();
    let is_ready = async {
        loop {
            match client.is_outbound_ready().await {
                Ok(true) => return,
                Ok(false) => "it answers, and is not ready".clone_into(&mut last),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    };
    if tokio::time::timeout(WAIT_MAX, is_ready).await.is_err() {
        tracing::error!("the host at --dapr-http-port {port} cannot publish after {WAIT_MAX:?}: {last}");
        return Exit::Failed;
    }
    tracing::info!("the host at --dapr-http-port {port} can publish");
    Exit::Drained
}
