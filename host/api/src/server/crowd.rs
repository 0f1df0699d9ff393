//! Who is connected, and who has to go when the house is full: of those that nobody works for, the one that has been
//! silent longest. Without that, whoever opens enough connections and says nothing, or half of something, keeps everybody
//! else out.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// How long a client may take for the headers of its first request (pubsub-behaviour 1.6).
pub(super) const FIRST_HEAD_WAIT: Duration = Duration::from_secs(10);

/// How long a connection may be without a request. It is closed between once and twice this.
pub(super) const IDLE_WAIT: Duration = Duration::from_secs(120);

/// How long between two looks for somebody silent while everybody's request is worked at.
pub(super) const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How many that never had an answer have to go at the same time when the house is full.
const STRANGERS_AT_ONCE: usize = 32;

/// All connections of a server. The bound is that of `room`.
pub(super) struct Crowd {
    room: Arc<Semaphore>,
    there: Mutex<Vec<Weak<Pulse>>>,
    /// How many have come; the clock by which silence is measured, for it costs a request no look at a real one.
    come: Arc<AtomicU32>,
}

impl Crowd {
    /// Room for so many connections.
    pub(super) fn new(connections_max: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(connections_max)), there: Mutex::default(), come: Arc::default() }
    }

    /// Takes one more in. When the house is full a silent one has to go for it; when all are busy it waits.
    pub(super) async fn admit(&self) -> (Arc<Pulse>, Option<OwnedSemaphorePermit>) {
        let permit = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => self.wait_for_room().await,
        };
        let now = self.come.fetch_add(1, Ordering::Relaxed);
        let pulse = Arc::new(Pulse { clock: Arc::clone(&self.come), spoke: AtomicU32::new(now), ..Pulse::default() });
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        // Those who have left are forgotten before the list grows: it is never longer than twice the room.
        if there.len() == there.capacity() {
            there.retain(|one| one.strong_count() > 0);
        }
        there.push(Arc::downgrade(&pulse));
        (pulse, permit)
    }

    /// `None` only if the semaphore were closed, which it never is.
    async fn wait_for_room(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            self.make_room();
            let room = Arc::clone(&self.room).acquire_owned();
            if let Ok(permit) = timeout(LOOK_AGAIN_AFTER, room).await {
                return permit.ok();
            }
        }
    }

    /// Asks one that nobody works for to go, the one that has been silent longest; but if there are any that have never
    /// had an answer, several of them: under a flood not every admission looks at everybody.
    fn make_room(&self) {
        let there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.come.load(Ordering::Relaxed);
        let silent = || there.iter().filter_map(Weak::upgrade).filter(|one| !one.is_worked_for());
        let silence = |one: &Arc<Pulse>| now.wrapping_sub(one.spoke.load(Ordering::Relaxed));
        if silent().any(|one| one.leaves.load(Ordering::Relaxed)) {
            return;
        }
        let mut strangers: Vec<_> = silent().filter(|one| !one.answered()).collect();
        // The later half may only not have come to speak yet.
        let go = strangers.len().div_ceil(2).min(STRANGERS_AT_ONCE);
        if go < strangers.len() {
            strangers.select_nth_unstable_by_key(go, |one| Reverse(silence(one)));
            strangers.truncate(go);
        }
        if strangers.is_empty() {
            strangers.extend(silent().max_by_key(silence));
        }
        for one in strangers {
            one.leaves.store(true, Ordering::Relaxed);
            one.leave.notify_one();
        }
    }
}

/// Requests begun and ended on one connection.
#[derive(Default)]
pub(super) struct Pulse {
    begun: AtomicU32,
    ended: AtomicU32,
    /// Requests in progress that wait for the client to send more of their bodies.
    awaited: Arc<AtomicU32>,
    clock: Arc<AtomicU32>,
    /// When it came, or its last request began, by `clock`.
    spoke: AtomicU32,
    leaves: AtomicBool,
    leave: Notify,
}

impl Pulse {
    /// Returns when the client has been silent for too long: no whole head within [`FIRST_HEAD_WAIT`] of the start, or no
    /// request in progress and none begun for [`IDLE_WAIT`].
    pub(super) fn stopped(&self) -> impl Future<Output = ()> {
        let mut patience = Box::pin(sleep(FIRST_HEAD_WAIT));
        async move {
            let mut known = 0;
            loop {
                patience.as_mut().await;
                let begun = self.begun.load(Ordering::Relaxed);
                if begun == known && !self.busy() {
                    return;
                }
                known = begun;
                patience.as_mut().reset(Instant::now() + IDLE_WAIT);
            }
        }
    }

    /// Returns when its place is needed for somebody else.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// It has made a request.
    pub(super) fn known(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// One of its requests has had its end.
    fn answered(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > 0
    }

    /// A request is in progress.
    pub(super) fn busy(&self) -> bool {
        self.in_progress() != 0
    }

    /// A request is in progress, and it is not the client that is waited for.
    pub(super) fn is_worked_for(&self) -> bool {
        self.in_progress() > self.awaited.load(Ordering::Relaxed)
    }

    /// Where bodies count themselves while the client is waited for.
    pub(super) fn awaited(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.awaited)
    }

    fn in_progress(&self) -> u32 {
        self.begun.load(Ordering::Relaxed).wrapping_sub(self.ended.load(Ordering::Relaxed))
    }
}

/// One request; counted when it begins and, however it ends, when it ends.
pub(super) struct Beat(Arc<Pulse>);

impl Beat {
    pub(super) fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.begun.fetch_add(1, Ordering::Relaxed);
        pulse.spoke.store(pulse.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(pulses: &[Arc<Pulse>]) -> Vec<usize> {
        let leaves = |place: &usize| pulses[*place].leaves.load(Ordering::Relaxed);
        (0..pulses.len()).filter(leaves).collect()
    }

    async fn full(connections: usize) -> (Crowd, Vec<Arc<Pulse>>, Vec<Option<OwnedSemaphorePermit>>) {
        let crowd = Crowd::new(connections);
        let (mut pulses, mut permits) = (Vec::new(), Vec::new());
        for _ in 0..connections {
            let (pulse, permit) = crowd.admit().await;
            pulses.push(pulse);
            permits.push(permit);
        }
        (crowd, pulses, permits)
    }

    #[tokio::test]
    async fn the_older_strangers_go_several_at_a_time_and_no_more_until_they_are_gone() {
        for (connections, gone) in [(1, 1), (2, 1), (9, 5), (100, STRANGERS_AT_ONCE)] {
            let (crowd, pulses, _permits) = full(connections).await;
            crowd.make_room();
            assert_eq!(leaving(&pulses), (0..gone).collect::<Vec<_>>(), "of {connections}");
            crowd.make_room();
            assert_eq!(leaving(&pulses).len(), gone, "of {connections}");
        }
    }

    #[tokio::test]
    async fn of_those_that_had_answers_one_goes_and_of_the_busy_none() {
        let (crowd, pulses, _permits) = full(3).await;
        pulses.iter().rev().for_each(|pulse| drop(Beat::new(pulse)));
        let beat = Beat::new(&pulses[0]);
        let later = crowd.admit();
        tokio::pin!(later);
        assert!(futures::poll!(later.as_mut()).is_pending());
        assert_eq!(leaving(&pulses).len(), 1);
        assert!(!leaving(&pulses).contains(&0), "it waits for an answer");
        drop(beat);
    }
}
