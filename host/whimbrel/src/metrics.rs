//! The port that Prometheus asks, if it is wanted.

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use whimbrel_pubsub::Metrics;

use crate::args::RunArguments;

/// daprd's port for metrics.
const PORT_DEFAULT: u16 = 9090;

/// Serves what is counted until `stop`. The usual port may be another host's on this machine, which is no reason not to
/// start; one that was asked for must be there.
///
/// # Errors
/// The port that was asked for cannot be listened on.
pub(crate) async fn start(arguments: &RunArguments, metrics: &Metrics, stop: &CancellationToken) -> anyhow::Result<()> {
    if !arguments.enable_metrics {
        return Ok(());
    }
    let (address, port) = (&arguments.metrics_listen_address, arguments.metrics_port.unwrap_or(PORT_DEFAULT));
    let bound = TcpListener::bind((address.trim_matches(['[', ']']), port)).await;
    let bound =
        bound.with_context(|| format!("listening on {address}:{port} (--metrics-port, --metrics-listen-address)"));
    let listener = match bound {
        Ok(listener) => listener,
        Err(error) if arguments.metrics_port.is_none() => {
            tracing::warn!("no metrics are served: {error:#}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let at = listener.local_addr().context("asking for the address that is listened on")?;
    tracing::info!("listening metrics={at} ");
    // It ends with `stop`, or with the process: a scrape that is cut off is no loss.
    drop(tokio::spawn(whimbrel_api::serve_metrics(listener, metrics.clone(), stop.clone())));
    Ok(())
}
