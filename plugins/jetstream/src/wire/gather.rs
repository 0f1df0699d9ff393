//! Puts the answers to the parts of one request together.

use futures::channel::oneshot;

use super::{Answer, Taker};
use crate::failure::Lost;
use crate::protocol::Msg;

/// What became of each part, in their order.
pub(crate) type Gathered<T> = Vec<Result<T, Lost>>;

/// A taker for so many answers, and where they all come out once the last is known. `is_for` tells whether a part was
/// published to a subject, `read` what an answer means.
pub(crate) fn gather<T: 'static>(
    parts: usize,
    is_for: impl Fn(usize, &str) -> bool + 'static,
    read: impl Fn(usize, Msg<'_>) -> T + 'static,
) -> (Taker, oneshot::Receiver<Gathered<T>>) {
    let (sender, answered) = oneshot::channel();
    let mut sender = Some(sender);
    let mut answers: Vec<Option<Result<T, Lost>>> = (0..parts).map(|_| None).collect();
    let mut left = parts;
    let taker = move |answer: Answer<'_>| {
        let mut set = |part: usize, result: &dyn Fn() -> Result<T, Lost>| {
            if let Some(open @ None) = answers.get_mut(part) {
                *open = Some(result());
                left -= 1;
            }
        };
        match answer {
            Answer::Msg(part, msg) => set(part, &|| Ok(read(part, msg))),
            Answer::Denied(subject) => (0..parts)
                .filter(|part| is_for(*part, subject))
                .for_each(|part| set(part, &|| Err(Lost::Denied(subject.to_owned())))),
            Answer::Lost(lost) => (0..parts).for_each(|part| set(part, &|| Err(lost.clone()))),
        }
        if left == 0
            && let Some(sender) = sender.take()
        {
            // Whoever asked may be gone.
            sender.send(std::mem::take(&mut answers).into_iter().flatten().collect()).ok();
        }
        left == 0
    };
    (Box::new(taker), answered)
}
