//! The door for Prometheus: `GET /metrics`, on a port of its own and without a token, as daprd has it. Called by the binary.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use whimbrel_pubsub::Metrics;

/// Scrapes at the same time. More wait in the backlog of the operating system.
const CONNECTIONS_MAX: usize = 16;

/// How long one scrape may take, its connection included; each has a connection of its own.
const SCRAPE_WAIT: Duration = Duration::from_secs(10);

/// How long to let go of accepting when the operating system refuses.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The text format of Prometheus.
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Serves what is counted until `stop`.
pub async fn serve_metrics(listener: TcpListener, metrics: Metrics, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // None only if the semaphore were closed, which it never is.
        let permit = Arc::clone(&room).acquire_owned().await.ok();
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let metrics = metrics.clone();
                drop(tokio::spawn(async move {
                    scrape(stream, &metrics).await;
                    drop(permit);
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn scrape(stream: TcpStream, metrics: &Metrics) {
    let service = service_fn(|request| ready(Ok::<_, Infallible>(answer(&request, metrics))));
    let exchange = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    match timeout(SCRAPE_WAIT, exchange).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics broke"),
        Err(_) => tracing::debug!("a connection for metrics took too long"),
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" || !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        return answer;
    }
    let mut answer = Response::new(Full::new(metrics.text().into()));
    answer.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    answer
}

#[cfg(test)]
mod tests;
