//! Reads a request body within its limit, within a budget that all bodies share, and within a wait for each piece.
//! Called by the routes that take a body.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// How long the next piece of a body may take.
const PIECE_WAIT: Duration = Duration::from_secs(30);

/// What all bodies may hold together, from their arrival to the broker's answer, KiB.
pub(crate) const BUDGET_KIB: usize = 256 * 1024;

/// Space made in advance for a body that comes in several pieces, bytes; a client may announce more than it sends.
const RESERVE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What is read and thrown away of a body that is too large, bytes, so that a client which is still writing gets to read
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

/// Reads it all. `awaits_continue`: the client sends nothing until it is told to.
pub(crate) async fn read(
    mut body: Incoming,
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
    let Some(first) = piece(&mut body).await? else { return Ok(Held { bytes: Bytes::new(), _share: None }) };
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
        grow(&mut share, total, budget)?;
        whole.extend_from_slice(&bytes);
        next = piece(&mut body).await?;
    }
    Ok(Held { bytes: whole.freeze(), _share: share })
}

/// The next bytes; none at the end. Trailers are passed over.
async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    loop {
        let frame = timeout(PIECE_WAIT, body.frame()).await;
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

async fn discard(mut body: Incoming) {
    let all = async {
        let mut left = DISCARD_BYTES_MAX;
        while let Ok(Some(bytes)) = piece(&mut body).await {
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                return;
            }
        }
    };
    // Whether it came to the end makes no difference to the answer.
    timeout(DISCARD_WAIT, all).await.ok();
}

#[cfg(test)]
mod tests;
