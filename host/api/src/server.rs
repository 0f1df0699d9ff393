//! Listens, speaks HTTP/1.1 and cleartext HTTP/2 on the same port, and ends in good order. Called by the binary. What a
//! request means is `http`'s business.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::doors::Doors;
use crate::http::{self, Api};

/// Connections served at the same time. More wait in the backlog of the operating system.
const CONNECTIONS_MAX: usize = 4096;

/// The same on the public port.
const PUBLIC_CONNECTIONS_MAX: usize = 64;

/// How long a client may take for the headers of its first request (pubsub-behaviour 1.6).
const FIRST_HEAD_WAIT: Duration = Duration::from_secs(10);

/// How long a connection may be without a request. It is closed between once and twice this.
const IDLE_WAIT: Duration = Duration::from_secs(120);

/// How long requests in flight may take to finish once the server stops.
const DRAIN_WAIT: Duration = Duration::from_secs(10);

/// How long to let go of accepting when the operating system refuses (no file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The read and write buffer of one connection, bytes; larger where larger heads are allowed.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;

/// Requests at the same time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

/// Serves the API on all listeners until `stop`, then lets what is in flight finish, for ten seconds at most.
pub async fn serve(listeners: Vec<TcpListener>, doors: Arc<Doors>, stop: CancellationToken) {
    run(listeners, Arc::new(Server::new(doors, CONNECTIONS_MAX)), stop).await;
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
    room: Arc<Semaphore>,
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
        Self { api: Api::new(doors), protocols, room: Arc::new(Semaphore::new(connections_max)), public: false }
    }
}

/// Takes connections while there is room, until `stop`.
async fn accept(listener: &TcpListener, server: &Arc<Server>, connections: &TaskTracker, stop: &CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = next(listener, &server.room) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                drop(connections.spawn(connection(stream, permit, Arc::clone(server), stop.clone())));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The next connection, once there is room for it.
async fn next(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
    // None only if the semaphore were closed, which it never is.
    let permit = Arc::clone(room).acquire_owned().await.ok();
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// One connection, from its first byte to its last.
async fn connection(
    stream: TcpStream,
    permit: Option<OwnedSemaphorePermit>,
    server: Arc<Server>,
    stop: CancellationToken,
) {
    // Only a socket that is gone refuses, and that shows at the first read.
    stream.set_nodelay(true).ok();
    let pulse = Arc::new(Pulse::default());
    let service = service_fn(|request| {
        let server = Arc::clone(&server);
        let beat = Beat::new(&pulse);
        async move {
            let answer = if server.public {
                http::answer_public(&server.api, &request)
            } else {
                http::answer(&server.api, request).await
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
    }
    drop(permit);
}

/// Requests begun and ended on one connection.
#[derive(Default)]
struct Pulse {
    begun: AtomicU32,
    ended: AtomicU32,
}

impl Pulse {
    /// Returns when the client has been silent for too long: no whole head within [`FIRST_HEAD_WAIT`] of the start, or no
    /// request in progress and none begun for [`IDLE_WAIT`].
    fn stopped(&self) -> impl Future<Output = ()> {
        let mut patience = Box::pin(sleep(FIRST_HEAD_WAIT));
        async move {
            let mut known = 0;
            loop {
                patience.as_mut().await;
                let begun = self.begun.load(Ordering::Relaxed);
                if begun == known && begun == self.ended.load(Ordering::Relaxed) {
                    return;
                }
                known = begun;
                patience.as_mut().reset(Instant::now() + IDLE_WAIT);
            }
        }
    }
}

/// One request; counted when it begins and, however it ends, when it ends.
struct Beat(Arc<Pulse>);

impl Beat {
    fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.begun.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
