//! The two directions of a connection as streams of the component model: bytes go straight between the socket and the
//! guest's memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult, VecBuffer};

use crate::bindings::adapter::whimbrel::pubsub::net::NetError;
use crate::state::BusyTicks;

/// The half of a connection that is read.
pub(crate) type ReadHalf = Box<dyn ReadStream>;

/// The half of a connection that is written.
pub(crate) type WriteHalf = Box<dyn WriteStream>;

/// Room for a read whose reader is not a guest, bytes. (It always is one.)
const READ_BYTES: usize = 64 * 1024;

/// What may stand behind a [`ReadHalf`].
pub(crate) trait ReadStream: AsyncRead + Send + Unpin + std::fmt::Debug {}
impl<T: AsyncRead + Send + Unpin + std::fmt::Debug> ReadStream for T {}

/// What may stand behind a [`WriteHalf`].
pub(crate) trait WriteStream: AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<T: AsyncWrite + Send + Unpin + std::fmt::Debug> WriteStream for T {}

type Done = oneshot::Sender<Result<(), NetError>>;

/// Ends a direction, and tells why. Nobody may be interested any more.
fn end(done: &mut Option<Done>, result: Result<(), std::io::Error>) {
    if let Some(done) = done.take() {
        done.send(result.map_err(|error| NetError::Broken(error.to_string()))).ok();
    }
}

/// Bytes from the socket to the guest.
pub(crate) struct Incoming {
    half: Option<ReadHalf>,
    done: Option<Done>,
    busy: BusyTicks,
    _share: Arc<OwnedSemaphorePermit>,
}

impl Incoming {
    pub(crate) fn new(half: Option<ReadHalf>, done: Done, busy: BusyTicks, share: Arc<OwnedSemaphorePermit>) -> Self {
        Self { half, done: Some(done), busy, _share: share }
    }

    fn close(&mut self, result: Result<(), std::io::Error>) -> Poll<wasmtime::Result<StreamResult>> {
        self.half = None;
        end(&mut self.done, result);
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl<D> StreamProducer<D> for Incoming {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        destination: Destination<'a, u8, VecBuffer<u8>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        self.busy.reset();
        let Some(half) = self.half.as_mut() else { return Poll::Ready(Ok(StreamResult::Dropped)) };
        if destination.remaining(&mut store) == Some(0) {
            // A guest that asks whether a read would find something may as well read.
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let mut destination = destination.as_direct(store, READ_BYTES);
        let mut buffer = ReadBuf::new(destination.remaining());
        match Pin::new(half).poll_read(cx, &mut buffer) {
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => self.close(Err(error)),
            Poll::Ready(Ok(())) => match buffer.filled().len() {
                0 => self.close(Ok(())),
                count => {
                    destination.mark_written(count);
                    Poll::Ready(Ok(StreamResult::Completed))
                }
            },
        }
    }
}

/// Bytes from the guest to the socket.
pub(crate) struct Outgoing {
    half: WriteHalf,
    done: Option<Done>,
    /// Bytes were taken and are not flushed: TLS keeps what the socket did not take at once.
    flushing: bool,
    busy: BusyTicks,
    _share: Arc<OwnedSemaphorePermit>,
}

impl Outgoing {
    pub(crate) fn new(half: WriteHalf, done: Done, busy: BusyTicks, share: Arc<OwnedSemaphorePermit>) -> Self {
        Self { half, done: Some(done), flushing: false, busy, _share: share }
    }

    fn close(&mut self, error: std::io::Error) -> Poll<wasmtime::Result<StreamResult>> {
        end(&mut self.done, Err(error));
        Poll::Ready(Ok(StreamResult::Dropped))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<wasmtime::Result<StreamResult>> {
        match ready!(Pin::new(&mut self.half).poll_flush(cx)) {
            Err(error) => self.close(error),
            Ok(()) => {
                self.flushing = false;
                Poll::Ready(Ok(StreamResult::Completed))
            }
        }
    }
}

impl<D> StreamConsumer<D> for Outgoing {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        self.busy.reset();
        if self.flushing {
            return self.poll_flush(cx);
        }
        let mut source = source.as_direct(store);
        if source.remaining().is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match Pin::new(&mut self.half).poll_write(cx, source.remaining()) {
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => self.close(error),
            Poll::Ready(Ok(count)) => {
                source.mark_read(count);
                self.flushing = true;
                self.poll_flush(cx)
            }
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // The guest closed its side: what it wrote is with the socket, and the half's own end closes the direction.
        end(&mut self.done, Ok(()));
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        end(&mut self.done, Ok(()));
    }
}
