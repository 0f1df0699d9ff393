//! Reads a request body within its limit, within a budget that all bodies share, and within a wait for each piece and for
//! all of them. Called by the routes that take a body.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// How long the next piece of a body may take.
pub(crate) const PIECE_WAIT: Duration = Duration::from_secs(30);

/// How long a body may take in all, however little of it there is.
pub(crate) const WHOLE_WAIT: Duration = Duration::from_secs(60);

/// What else it may take depends on what has arrived: a client that is slower than this for long is given up, bytes a
/// second. An honest one is not, on the slowest of lines; one that sends a byte now and then is.
pub(crate) const PACE_MIN: u64 = 1024;

/// What all bodies may hold together, from their arrival to the broker's answer, KiB.
pub(crate) const BUDGET_KIB: usize = 256 * 1024;

/// Space made in advance for a body that comes in several pieces, bytes; a client may announce more than it sends.
const RESERVE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What is read and thrown away of a body that is refused, bytes, so that a client which is still writing gets to read
/// the answer instead of a reset.
const DISCARD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How long that may take.
const DISCARD_WAIT: Duration = Duration::from_secs(1);

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// More than the limit.
    TooLarge,
    /// The shared budget is used up.
    Busy,
    /// The connection broke, or a piece took too long.
    Broken(String),
}

/// A body, and its share of the budget for as long as it is held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    /// The bytes.
    pub(crate) bytes: Bytes,
    /// Given back when dropped.
    pub(crate) _share: Option<SemaphorePermit<'a>>,
}

/// A body on its way in. While it is asked for more than the client has sent, it is counted.
#[derive(Debug)]
pub(crate) struct Arriving {
    incoming: Incoming,
    awaited: Arc<AtomicU32>,
    counts: bool,
}

impl Arriving {
    /// Counted in `awaited`.
    pub(crate) fn new(incoming: Incoming, awaited: Arc<AtomicU32>) -> Self {
        Self { incoming, awaited, counts: false }
    }

    fn count(&mut self, counts: bool) {
        if counts != self.counts {
            let change = if counts { 1 } else { u32::MAX };
            self.awaited.fetch_add(change, Ordering::Relaxed);
            self.counts = counts;
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(context);
        self.count(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.count(false);
    }
}

/// Reads it all. `awaits_continue`: the client sends nothing until it is told to.
pub(crate) async fn read(
    mut body: Arriving,
    bytes_max: Option<u64>,
    budget: &Semaphore,
    awaits_continue: bool,
) -> Result<Held<'_>, BodyError> {
    let announced = body.size_hint().lower();
    let bytes_max = bytes_max.unwrap_or(u64::MAX);
    if announced > bytes_max {
        if !awaits_continue {
            discard(body).await;
        }
        return Err(BodyError::TooLarge);
    }
    let mut share = None;
    let begun = Instant::now();
    let Some(first) = piece(&mut body, begun + PIECE_WAIT).await? else {
        return Ok(Held { bytes: Bytes::new(), _share: None });
    };
    if body.is_end_stream() && first.len() as u64 <= bytes_max {
        // What every request pays: no more than a counter.
        grow(&mut share, first.len() as u64, budget)?;
        return Ok(Held { bytes: first, _share: share });
    }
    let mut whole = BytesMut::with_capacity(usize::try_from(announced.min(RESERVE_BYTES_MAX)).unwrap_or(0));
    let mut next = Some(first);
    while let Some(bytes) = next {
        let total = (whole.len() + bytes.len()) as u64;
        if total > bytes_max {
            discard(body).await;
            return Err(BodyError::TooLarge);
        }
        if let Err(busy) = grow(&mut share, total, budget) {
            discard(body).await;
            return Err(busy);
        }
        whole.extend_from_slice(&bytes);
        next = piece(&mut body, due(begun, total)).await?;
    }
    Ok(Held { bytes: whole.freeze(), _share: share })
}

/// When the next piece of a body has to be there, after so many bytes.
fn due(begun: Instant, bytes: u64) -> Instant {
    let all = begun + WHOLE_WAIT + Duration::from_secs(bytes / PACE_MIN);
    all.min(Instant::now() + PIECE_WAIT)
}

/// The next bytes; none at the end. Trailers are passed over.
async fn piece(body: &mut Arriving, due: Instant) -> Result<Option<Bytes>, BodyError> {
    loop {
        let frame = timeout_at(due, body.frame()).await;
        match frame.map_err(|_| BodyError::Broken("the body did not arrive in time".into()))? {
            None => return Ok(None),
            Some(Err(error)) => return Err(BodyError::Broken(error.to_string())),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Takes as much of the budget as the body has grown to.
fn grow<'a>(share: &mut Option<SemaphorePermit<'a>>, total: u64, budget: &'a Semaphore) -> Result<(), BodyError> {
    let wanted = usize::try_from(total.div_ceil(1024)).unwrap_or(usize::MAX);
    let held = share.as_ref().map_or(0, SemaphorePermit::num_permits);
    let more = u32::try_from(wanted.saturating_sub(held)).map_err(|_| BodyError::Busy)?;
    let taken = budget.try_acquire_many(more).map_err(|_| BodyError::Busy)?;
    match share {
        Some(share) => share.merge(taken),
        None => *share = Some(taken),
    }
    Ok(())
}

async fn discard(mut body: Arriving) {
    let due = Instant::now() + DISCARD_WAIT;
    let mut left = DISCARD_BYTES_MAX;
    // Whether it came to the end makes no difference to the answer.
    while let Ok(Some(bytes)) = piece(&mut body, due).await {
        left = left.saturating_sub(bytes.len() as u64);
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
