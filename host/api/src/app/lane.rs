//! One connection to the app, driven by whoever uses it: no task of its own, so a request costs no hop between tasks.
//! Called by `App::exchange`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

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
    sender: http1::SendRequest<Full<Bytes>>,
    /// None once it has ended. It must go then: only with it goes a request that it never took, and whoever waits for that
    /// request's answer is told.
    connection: Option<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>,
}

impl Lane {
    /// Speaks HTTP/1.1 on a stream.
    pub(crate) async fn open(stream: TcpStream) -> Result<Self, Broken> {
        // Only a socket that is gone refuses, and that shows at the first write.
        stream.set_nodelay(true).ok();
        let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| Broken { error, answered: false })?;
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
                let ended = connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(context).is_ready());
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

async fn dialogue(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<Reply, Broken> {
    let unanswered = |error: hyper::Error| Broken { answered: error.is_parse(), error };
    sender.ready().await.map_err(unanswered)?;
    let (head, mut body) = sender.send_request(request).await.map_err(unanswered)?.into_parts();
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
