//! One connection to the app, driven by whoever uses it: no task of its own, so a request costs no hop between tasks.
//! Called by `App::exchange`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::dial::{AppProtocol, Stream};

/// The head of an answer, bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How often the dialogue and the connection take turns before the task waits.
const TURNS: usize = 2;

/// What the app answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// The body, or its beginning.
    pub(crate) body: Bytes,
    /// Whether there was more than could be read.
    pub(crate) is_cut: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the app broke: {error}")]
pub(crate) struct Broken {
    /// What happened.
    error: hyper::Error,
    /// Something of an answer had arrived.
    answered: bool,
}

impl Broken {
    /// Whether the app may have closed the connection before it saw the request.
    pub(crate) fn is_unanswered(&self) -> bool {
        !self.answered
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Lane {
    sender: Sender,
    /// None once it has ended. It must go then: only with it goes a request that it never took, and whoever waits for that
    /// request's answer is told.
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What moves a request to the stream. Of HTTP/2 the library runs a task for the stream itself, so that pings have an
/// answer at any time.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one is the usual one")]
enum Connection {
    Http1(http1::Connection<TokioIo<Stream>, Full<Bytes>>),
    Http2(http2::Connection<TokioIo<Stream>, Full<Bytes>, TokioExecutor>),
}

impl Lane {
    /// Speaks HTTP on a stream, one request at a time in either version.
    pub(crate) async fn open(stream: Stream, protocol: AppProtocol) -> Result<Self, Broken> {
        let broken = |error| Broken { error, answered: false };
        let io = TokioIo::new(stream);
        let (sender, connection) = match protocol {
            AppProtocol::Http | AppProtocol::Https => {
                let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(io).await;
                let (sender, connection) = handshake.map_err(broken)?;
                (Sender::Http1(sender), Connection::Http1(connection))
            }
            AppProtocol::H2c => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_header_list_size(HEAD_BYTES_MAX as u32);
                let (sender, connection) = builder.handshake(io).await.map_err(broken)?;
                (Sender::Http2(sender), Connection::Http2(connection))
            }
        };
        Ok(Self { sender, connection: Some(connection) })
    }

    /// Whether it may be used again.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Sends a request and reads its answer, the body up to a bound.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
    ) -> Result<Reply, Broken> {
        let Self { sender, connection } = self;
        let mut dialogue = pin!(dialogue(sender, request, body_bytes_max));
        let reply = poll_fn(|context| {
            // The two hand things to each other, and each is looked at after the other had its turn: the connection gets
            // ready, takes the request and writes it; the dialogue takes the answer. Without this each step would be a
            // round through the scheduler.
            for _ in 0..TURNS {
                if let Poll::Ready(reply) = dialogue.as_mut().poll(context) {
                    return Poll::Ready(reply);
                }
                let ended = connection.as_mut().is_some_and(|connection| connection.poll(context).is_ready());
                if ended {
                    *connection = None;
                }
            }
            dialogue.as_mut().poll(context)
        });
        let reply = reply.await;
        // The rest of a body that was cut is not waited for.
        if !reply.as_ref().is_ok_and(|reply| !reply.is_cut) {
            self.connection = None;
        }
        reply
    }
}

impl Connection {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match self {
            Self::Http1(connection) => Pin::new(connection).poll(context),
            Self::Http2(connection) => Pin::new(connection).poll(context),
        }
    }
}

impl Sender {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(absolute(request)).await
            }
        }
    }
}

/// With the authority where HTTP/2 has it (RFC 9113, section 8.3.1).
fn absolute(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let host = request.headers_mut().remove(header::HOST).unwrap_or(HeaderValue::from_static("localhost"));
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = host.as_bytes().try_into().ok();
    // Whole parts make a whole address; if not, the library refuses the request.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

async fn dialogue(sender: &mut Sender, request: Request<Full<Bytes>>, body_bytes_max: usize) -> Result<Reply, Broken> {
    let unanswered = |error: hyper::Error| Broken { answered: error.is_parse(), error };
    let (head, mut body) = sender.send(request).await.map_err(unanswered)?.into_parts();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Broken { error, answered: true })?;
        let Ok(bytes) = frame.into_data() else { continue };
        let room = body_bytes_max - whole.len();
        whole.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            return Ok(Reply { status: head.status, body: whole.freeze(), is_cut: true });
        }
    }
    Ok(Reply { status: head.status, body: whole.freeze(), is_cut: false })
}
