//! Reading what is new: for each group one connection that blocks until there is something for any of its streams.
//!
//! One connection cannot block for two groups at once without one of them waiting for the other, so a component that
//! serves several apps has a blocking connection for each. What does not block goes over the main one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{log, task, timer};

use crate::commands;
use crate::connection::{Link, Progress, Why, dial};
use crate::entries;
use crate::hub::{Hub, PATIENCE};
use crate::pending;
use crate::pipe::text;
use crate::protocol::{Parsed, Reply, command};
use crate::subscription::{FETCH_BYTES, Sub};
use whimbrel_sdk::signal::Signal;

/// How long a read blocks where the Redis user may not cut it short (`CLIENT UNBLOCK`).
const BLIND_BLOCK: Duration = Duration::from_millis(100);

/// Tries to cut a blocking read short: a try that comes before the read does nothing.
const UNBLOCK_TRIES: u32 = 50;

/// Between two such tries.
const UNBLOCK_EVERY: Duration = Duration::from_millis(2);

/// A group's consumer, and the subscriptions it reads for.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) group: String,
    pub(crate) consumer: String,
    subs: RefCell<Vec<Rc<Sub>>>,
    wake: Signal,
    closed: Cell<bool>,
    progress: Progress,
    /// How many reads there were.
    turn: Cell<u64>,
    /// A read is going on.
    reading: Cell<bool>,
    interrupting: Cell<bool>,
    cannot_interrupt: Cell<bool>,
    /// Told when the read that goes on is over.
    waiters: RefCell<Vec<oneshot::Sender<()>>>,
    next_claim: Cell<Option<Instant>>,
}

/// What a read asked for: a subscription, and how many entries.
type Asked = (Rc<Sub>, usize);

impl Reader {
    /// A reader for nothing yet; [`run`](Self::run) serves it.
    pub(crate) fn new(group: String, consumer: String) -> Rc<Self> {
        Rc::new(Self {
            group,
            consumer,
            subs: RefCell::default(),
            wake: Signal::default(),
            closed: Cell::new(false),
            progress: Progress::default(),
            turn: Cell::new(0),
            reading: Cell::new(false),
            interrupting: Cell::new(false),
            cannot_interrupt: Cell::new(false),
            waiters: RefCell::default(),
            next_claim: Cell::new(None),
        })
    }

    /// Its live subscriptions.
    pub(crate) fn subs(&self) -> Vec<Rc<Sub>> {
        self.subs.borrow().clone()
    }

    /// Whether it reads a topic already.
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.subs.borrow().iter().any(|sub| sub.topic == topic)
    }

    /// Reads for one more. What died before it came is looked for at once.
    pub(crate) fn add(&self, sub: Rc<Sub>) {
        self.subs.borrow_mut().push(sub);
        self.next_claim.set(None);
        self.wake.raise();
    }

    /// Reads for one less, and ends with the last.
    pub(crate) fn remove(&self, sub: &Rc<Sub>) {
        let mut subs = self.subs.borrow_mut();
        subs.retain(|other| !Rc::ptr_eq(other, sub));
        self.closed.set(subs.is_empty());
        self.wake.raise();
    }

    /// Whether it has ended, or is about to.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Something has changed.
    pub(crate) fn wake(&self) {
        self.wake.raise();
    }

    /// A subscription has credit again. One that is being read for gets its share with the next read anyway.
    pub(crate) fn wake_for(&self, sub: &Sub) {
        if !sub.reading.get() {
            self.wake.raise();
        }
    }

    /// Returns when no read goes on any more that asked for this subscription.
    pub(crate) async fn wait_for_turn(&self, sub: &Sub) {
        self.wake.raise();
        if sub.reading.get() {
            let (sender, over) = oneshot::channel();
            self.waiters.borrow_mut().push(sender);
            // It is dropped, not sent: either way the read is over.
            over.await.ok();
        }
    }

    /// Connects and reads, again and again, until the last subscription is gone.
    pub(crate) async fn run(self: Rc<Self>, hub: Rc<Hub>) {
        let standing = hub.health.standing();
        let mut backoff = Backoff::default();
        let name = format!("whimbrel-read-{}", self.consumer);
        while !self.closed.get() {
            match dial(&hub.settings, &name, hub.settings.dial_wait).await {
                Err(failure) => standing.is_down(&text(failure)),
                Ok(link) => {
                    standing.is_up();
                    let since = Instant::now();
                    let why = self.serve(&hub, link).await;
                    self.end_turn();
                    if self.closed.get() {
                        break;
                    }
                    // What the lost connection was about to bring is pending for us now.
                    self.subs().iter().for_each(|sub| sub.recover_anew());
                    standing.is_down(&why);
                    backoff.lived(since.elapsed());
                }
            }
            timer::sleep(backoff.next_wait()).await;
        }
        standing.is_up();
    }

    async fn serve(&self, hub: &Rc<Hub>, link: Link) -> Why {
        // Another user's permissions, perhaps.
        self.cannot_interrupt.set(link.client_id.is_none());
        let patience = hub.settings.read_wait + self.block(hub);
        let reading = self.read_on(hub, link);
        let watching = self.progress.watch(patience, || ());
        pin_mut!(reading);
        pin_mut!(watching);
        match select(reading, watching).await {
            Either::Left((why, _)) | Either::Right((why, _)) => why,
        }
    }

    async fn read_on(&self, hub: &Rc<Hub>, mut link: Link) -> Why {
        let mut trouble = Backoff::default();
        loop {
            if self.closed.get() {
                let mut bytes = Vec::new();
                command(&mut bytes, &[b"QUIT"]);
                link.send(bytes).await.ok();
                return "closed".to_owned();
            }
            let turn = match self.tend(hub).await {
                Err(why) => Ok(Err(why)),
                Ok(()) => self.turn(hub, &mut link).await,
            };
            match turn {
                Err(why) => return why,
                Ok(Ok(())) => trouble.reset(),
                Ok(Err(refused)) => {
                    log::warn(&format!("reading for group {:?}: {refused}", self.group));
                    pending::restore_groups(hub, &self.subs()).await;
                    timer::sleep(trouble.next_wait()).await;
                }
            }
        }
    }

    /// Takes over what was delivered before and is not settled.
    async fn tend(&self, hub: &Hub) -> Result<(), String> {
        for sub in self.subs() {
            if sub.must_recover() {
                pending::recover(hub, &sub).await.map_err(text)?;
            }
        }
        let (Some(lease), Some(every)) = (hub.settings.lease, hub.settings.claim_every) else { return Ok(()) };
        let now = Instant::now();
        if self.next_claim.get().is_some_and(|at| now < at) {
            return Ok(());
        }
        for sub in self.subs() {
            if sub.is_ready() {
                pending::claim(hub, &sub, lease).await.map_err(text)?;
            }
        }
        self.next_claim.set(Some(now + every));
        Ok(())
    }

    /// One read, or the wait until there is something to read for.
    async fn turn(&self, hub: &Rc<Hub>, link: &mut Link) -> Result<Result<(), String>, Why> {
        let ready: Vec<Rc<Sub>> = self.subs().into_iter().filter(|sub| sub.is_ready()).collect();
        if ready.is_empty() {
            if !self.subs().iter().any(|sub| sub.must_recover()) {
                self.wake.wait().await;
            }
            return Ok(Ok(()));
        }
        // A stream that had more than was asked for is asked alone, for as much as there is credit; all others together,
        // and the wait is theirs. With only one there is nothing to tell apart.
        let alone = ready.len() > 1;
        let (hot, cold): (Vec<_>, Vec<_>) = ready.into_iter().partition(|sub| alone && sub.hot.get());
        let mut out = Vec::new();
        let mut reads: Vec<Vec<Asked>> = Vec::new();
        for sub in hot {
            reads.push(self.ask(&mut out, vec![sub], None));
        }
        if !cold.is_empty() {
            let block = reads.is_empty().then(|| self.block(hub));
            reads.push(self.ask(&mut out, cold, block));
        }
        link.send(out).await?;
        self.begin_turn(&reads);
        let mut refused = Ok(());
        for asked in &reads {
            let parsed = self.reply(hub, link, &reads).await?;
            self.progress.one_more();
            if let Err(error) = take(hub, asked, link.decoder.reply(&parsed)) {
                refused = Err(error);
            }
        }
        self.end_turn();
        Ok(refused)
    }

    /// Writes one read for some subscriptions.
    fn ask(&self, out: &mut Vec<u8>, subs: Vec<Rc<Sub>>, block: Option<Duration>) -> Vec<Asked> {
        let bytes: usize = subs.iter().map(|sub| sub.entry_bytes()).sum();
        let credit = subs.iter().map(|sub| sub.want()).min().unwrap_or(1);
        // The count holds for each stream.
        let count = credit.min(FETCH_BYTES / bytes.max(1)).max(1);
        let streams: Vec<&str> = subs.iter().map(|sub| sub.topic.as_str()).collect();
        commands::read_new(out, &self.group, &self.consumer, count, block, &streams);
        subs.into_iter().map(|sub| (sub, count)).collect()
    }

    fn block(&self, hub: &Hub) -> Duration {
        let longest = hub.settings.read_wait.min(hub.settings.claim_every.unwrap_or(Duration::MAX));
        let blind = self.cannot_interrupt.get();
        if blind { longest.min(BLIND_BLOCK) } else { longest }
    }

    fn begin_turn(&self, reads: &[Vec<Asked>]) {
        self.turn.set(self.turn.get() + 1);
        self.reading.set(true);
        self.progress.waiting.set(true);
        reads.iter().flatten().for_each(|(sub, _)| sub.reading.set(true));
    }

    fn end_turn(&self) {
        self.reading.set(false);
        self.progress.waiting.set(false);
        // Those that were stopped meanwhile are not among these; nobody asks them any more.
        self.subs.borrow().iter().for_each(|sub| sub.reading.set(false));
        self.waiters.take();
    }

    /// The next reply. If meanwhile the read turns out to be the wrong one, it is cut short.
    async fn reply(&self, hub: &Rc<Hub>, link: &mut Link, reads: &[Vec<Asked>]) -> Result<Parsed, Why> {
        let client = link.client_id;
        let reading = link.next();
        pin_mut!(reading);
        loop {
            let waking = self.wake.wait();
            pin_mut!(waking);
            match select(reading.as_mut(), waking).await {
                Either::Left((parsed, _)) => return parsed,
                Either::Right(((), _)) => {
                    if self.is_wrong(reads) {
                        self.interrupt(hub, client, reads);
                    }
                }
            }
        }
    }

    /// Whether the read that goes on leaves somebody out, or asks for somebody who is not ready any more.
    fn is_wrong(&self, reads: &[Vec<Asked>]) -> bool {
        let gone = reads.iter().flatten().any(|(sub, _)| !sub.live.get() || sub.paused.get());
        let left_out = |sub: &Rc<Sub>| sub.must_recover() || (sub.is_ready() && !sub.reading.get());
        gone || self.closed.get() || self.subs.borrow().iter().any(left_out)
    }

    fn interrupt(&self, hub: &Rc<Hub>, client: Option<u64>, reads: &[Vec<Asked>]) {
        let Some(client) = client.filter(|_| !self.cannot_interrupt.get()) else { return };
        let Some((sub, _)) = reads.iter().flatten().next() else { return };
        if !self.interrupting.replace(true) {
            task::spawn(Rc::clone(&sub.reader).unblock(Rc::clone(hub), client, self.turn.get()));
        }
    }

    async fn unblock(self: Rc<Self>, hub: Rc<Hub>, client: u64, turn: u64) {
        for _ in 0..UNBLOCK_TRIES {
            if !self.reading.get() || self.turn.get() != turn {
                break;
            }
            let mut bytes = Vec::new();
            command(&mut bytes, &[b"CLIENT", b"UNBLOCK", itoa::Buffer::new().format(client).as_bytes()]);
            match hub.pipe.call(bytes, PATIENCE, |reply| reply.integer()).await {
                Ok(Some(0)) => timer::sleep(UNBLOCK_EVERY).await,
                Ok(Some(_)) | Err(_) => break,
                Ok(None) => {
                    log::info("the Redis user may not use CLIENT UNBLOCK: reads are kept short instead");
                    self.cannot_interrupt.set(true);
                    break;
                }
            }
        }
        self.interrupting.set(false);
    }
}

/// Hands over what a read brought.
fn take(hub: &Hub, asked: &[Asked], reply: Reply<'_>) -> Result<(), String> {
    if let Some(error) = reply.error() {
        return Err(error.to_owned());
    }
    asked.iter().for_each(|(sub, _)| sub.hot.set(false));
    for (stream, list) in entries::streams(reply) {
        let Some((sub, count)) = asked.iter().find(|(sub, _)| sub.topic == stream) else { continue };
        let (mut read, mut largest) = (0, 0);
        for entry in entries::entries(list) {
            largest = largest.max(entry.size());
            read += 1;
            sub.hand(hub, &entry, 1);
        }
        sub.hot.set(read >= *count);
        sub.learn(largest);
    }
    Ok(())
}
