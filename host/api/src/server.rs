//! Listens, speaks HTTP/1.1 and cleartext HTTP/2 on the same port, and ends in good order. Called by the binary. What a
//! request means is `http`'s business.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::doors::Doors;
use crate::http::{self, Api, Arriving};

mod crowd;

use crowd::{Beat, Crowd, Pulse};

/// Connections served at the same time on the public port.
const PUBLIC_CONNECTIONS_MAX: usize = 64;

/// How long requests in flight may take to finish once the server stops.
const DRAIN_WAIT: Duration = Duration::from_secs(10);

/// How long a connection that has to go may take for what it has begun to send.
const LEAVE_WAIT: Duration = Duration::from_millis(500);

/// How long to let go of accepting when the operating system refuses (no file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The read and write buffer of one connection, bytes; larger where larger heads are allowed.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;

/// Requests at the same time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

/// Serves the API on all listeners until `stop`, then lets what is in flight finish, for ten seconds at most.
pub async fn serve(listeners: Vec<TcpListener>, doors: Arc<Doors>, stop: CancellationToken) {
    let connections_max = doors.connections_max;
    run(listeners, Arc::new(Server::new(doors, connections_max)), stop).await;
}

/// Serves health and metadata alone, to whoever asks, until `stop`.
pub async fn serve_public(listener: TcpListener, doors: Arc<Doors>, stop: CancellationToken) {
    let server = Server { public: true, ..Server::new(doors, PUBLIC_CONNECTIONS_MAX) };
    run(vec![listener], Arc::new(server), stop).await;
}

async fn run(listeners: Vec<TcpListener>, server: Arc<Server>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let accepting = listeners.iter().map(|listener| accept(listener, &server, &connections, &stop));
    join_all(accepting).await;
    drop(listeners);
    connections.close();
    connections.wait().await;
}

struct Server {
    api: Api,
    protocols: auto::Builder<TokioExecutor>,
    crowd: Crowd,
    /// Only health and metadata.
    public: bool,
}

impl Server {
    fn new(doors: Arc<Doors>, connections_max: usize) -> Self {
        let mut protocols = auto::Builder::new(TokioExecutor::new());
        // Timeouts are kept by `Pulse`: hyper's own would arm a timer for each request.
        let head_room = usize::try_from(doors.head_bytes_max.saturating_mul(2)).unwrap_or(usize::MAX);
        protocols.http1().max_buf_size(CONNECTION_BUFFER_BYTES.max(head_room)).header_read_timeout(None);
        let head_bytes_max = u32::try_from(doors.head_bytes_max).unwrap_or(u32::MAX);
        protocols.http2().max_concurrent_streams(STREAMS_MAX).max_header_list_size(head_bytes_max.saturating_mul(2));
        let protocols = if doors.http2 { protocols } else { protocols.http1_only() };
        Self { api: Api::new(doors), protocols, crowd: Crowd::new(connections_max), public: false }
    }
}

/// Takes connections while there is room, until `stop`.
async fn accept(listener: &TcpListener, server: &Arc<Server>, connections: &TaskTracker, stop: &CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (pulse, permit) = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    admitted = server.crowd.admit() => admitted,
                };
                let server = Arc::clone(server);
                drop(connections.spawn(connection(stream, pulse, permit, server, stop.clone())));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from its first byte to its last.
async fn connection(
    stream: TcpStream,
    pulse: Arc<Pulse>,
    permit: Option<OwnedSemaphorePermit>,
    server: Arc<Server>,
    stop: CancellationToken,
) {
    // Only a socket that is gone refuses, and that shows at the first read.
    stream.set_nodelay(true).ok();
    let service = service_fn(|request: Request<Incoming>| {
        let server = Arc::clone(&server);
        let (beat, awaited) = (Beat::new(&pulse), pulse.awaited());
        async move {
            let answer = if server.public {
                http::answer_public(&server.api, request)
            } else {
                http::answer(&server.api, request.map(|body| Arriving::new(body, awaited))).await
            };
            drop(beat);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut exchange = pin!(server.protocols.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        ended = exchange.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        }
        () = stop.cancelled() => {
            exchange.as_mut().graceful_shutdown();
            // Whoever has not finished by then is cut off.
            timeout(DRAIN_WAIT, exchange).await.ok();
        }
        () = pulse.stopped() => tracing::debug!("a connection without requests is closed"),
        () = pulse.asked_to_leave() => {
            tracing::debug!("a silent connection is closed, for its place is needed");
            exchange.as_mut().graceful_shutdown();
            // A request that came at the same moment is still answered, but to one that never made any. Half a body is not
            // waited for: with enough of those, others would wait as long.
            let may_have_come = pulse.known() && (!pulse.busy() || pulse.is_worked_for());
            if may_have_come && timeout(LEAVE_WAIT, exchange.as_mut()).await.is_err() && pulse.is_worked_for() {
                timeout(DRAIN_WAIT, exchange).await.ok();
            }
        }
    }
    drop(permit);
}

#[cfg(test)]
mod tests;
