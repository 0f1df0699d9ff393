//! A TCP proxy on loopback that breaks connections on demand, at any byte, in any way a network can, and counts what
//! passes. Called by the fault checks, which stand it between an adapter and its broker, and by the tests outside. It
//! knows no protocol.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::wait::until;

/// The most bytes that are read at once. Small, so that a cut falls inside of what was written in one piece.
const CHUNK_BYTES_MAX: usize = 4096;

/// How long answers are thrown away, at most: whoever waits for one soon has nothing more to ask.
const SWALLOW_MAX: Duration = Duration::from_millis(250);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// From the client to the server.
    Server,
    /// From the server to the client.
    Client,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// At once, unread bytes thrown away.
    Reset,
    /// In good order.
    Close,
    /// Half-open: the server's end is reset, the client's stays open and hears nothing any more, as when a machine on the
    /// way was switched off.
    Strand,
}

/// What the proxy does to connections, old and new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards everything.
    Pass,
    /// Accepts and resets at once; resets what is open.
    Refuse,
    /// Keeps connections open and forwards nothing: what arrives waits.
    BlackHole,
    /// Throws away everything toward the client: what is asked is done, and nobody hears of it.
    Mute,
    /// Cuts the connection that carries the byte after so many of them that way (all connections counted together),
    /// then passes again.
    CutAfter(Toward, u64, Cut),
    /// Throws away so many bytes toward the client, or what comes within [`SWALLOW_MAX`] from the first of them, then
    /// resets every connection and passes again: what was asked was done, and the answer is lost.
    Swallow(u64),
    /// Replaces every byte toward the client by another.
    Garbage,
    /// Sends these bytes in place of the next ones toward the client, then closes that connection and passes again.
    Forge(&'static [u8]),
}

/// A running proxy. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    mode: watch::Sender<Mode>,
    counts: Mutex<Counts>,
    /// A new number ends every connection that is open, in this way.
    cut_all: watch::Sender<(u64, Cut)>,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Connections open now.
    pub open: usize,
    /// Connections accepted, those refused at once included.
    pub accepted: u64,
    /// Cuts, swallows included.
    pub cuts: u64,
    /// Pieces that came from clients, 4 KiB each at most. A client that writes each request at once sends as many.
    pub requests: u64,
    /// Bytes that came from clients.
    pub request_bytes: u64,
    /// When the first byte of the present swallow was thrown away.
    swallowing_since: Option<Instant>,
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, counts| Self {
            open: sum.open + counts.open,
            accepted: sum.accepted + counts.accepted,
            cuts: sum.cuts + counts.cuts,
            requests: sum.requests + counts.requests,
            request_bytes: sum.request_bytes + counts.request_bytes,
            swallowing_since: sum.swallowing_since.or(counts.swallowing_since),
        })
    }
}

impl Proxy {
    /// A proxy on a port that the system chooses, which passes everything to this server.
    ///
    /// # Errors
    /// The system has no port to give.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), server).await
    }

    /// A proxy that listens here: for brokers that tell their clients where they are.
    ///
    /// # Errors
    /// Somebody else listens there.
    pub async fn start_at(address: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            mode: watch::Sender::new(Mode::Pass),
            counts: Mutex::default(),
            cut_all: watch::Sender::new((0, Cut::Reset)),
        });
        let server = tokio::spawn(serve(listener, server, Arc::clone(&shared)));
        Ok(Self { address, shared, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts()
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Ends every connection that is open. New ones are treated as the mode says.
    pub fn cut_all(&self, how: Cut) {
        self.shared.count_cut();
        self.shared.end_all(how);
    }

    /// Sets a mode that ends with a cut, and returns when the cut has happened.
    ///
    /// # Errors
    /// Too few bytes came.
    pub async fn strike(&self, mode: Mode) -> io::Result<()> {
        let before = self.counts().cuts;
        self.set(mode);
        let cut = until("the proxy to cut a connection", async || {
            self.shared.end_long_swallow();
            (self.counts().cuts > before).then_some(())
        });
        let late = |late| io::Error::new(io::ErrorKind::TimedOut, format!("{late} ({mode:?}, {:?})", self.counts()));
        cut.await.map_err(late)
    }

    /// Passes again, whatever was set. A swallow that has begun ends as it would have: what comes after lost bytes must not
    /// pass for what they were.
    pub fn calm(&self) {
        if self.counts().swallowing_since.is_some() {
            self.cut_all(Cut::Reset);
        }
        self.set(Mode::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do with so many bytes that go this way. Changes the mode when its time has come.
    fn judge(&self, toward: Toward, bytes: usize) -> Judgement {
        let mut judgement = Judgement::Forward;
        self.mode.send_if_modified(|mode| {
            judgement = judge(mode, toward, bytes);
            match (&judgement, &*mode) {
                (Judgement::Cut { .. } | Judgement::Forge(_), _) => self.count_cut(),
                (Judgement::Discard, Mode::Swallow(_)) => {
                    self.counts().swallowing_since.get_or_insert_with(Instant::now);
                }
                _ => {}
            }
            // Whoever waits for a mode waits for one that a test sets, or for the end of a strike.
            matches!(judgement, Judgement::Cut { .. } | Judgement::Forge(_))
        });
        judgement
    }

    fn count_request(&self, bytes: usize) {
        let mut counts = self.counts();
        counts.requests += 1;
        counts.request_bytes += bytes as u64;
    }

    fn count_cut(&self) {
        let mut counts = self.counts();
        counts.cuts += 1;
        counts.swallowing_since = None;
    }

    fn end_all(&self, how: Cut) {
        self.cut_all.send_modify(|(times, cut)| {
            *times += 1;
            *cut = how;
        });
    }

    fn end_long_swallow(&self) {
        let since = self.counts().swallowing_since;
        if since.is_some_and(|since| since.elapsed() > SWALLOW_MAX) {
            self.mode.send_replace(Mode::Pass);
            self.count_cut();
            self.end_all(Cut::Reset);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Forward,
    Wait,
    Discard,
    Garble,
    /// Send these in their place, then close this connection.
    Forge(&'static [u8]),
    /// Forward the first bytes, then cut this connection, or all of them.
    Cut {
        first: usize,
        how: Cut,
        all: bool,
    },
}

fn judge(mode: &mut Mode, toward: Toward, bytes: usize) -> Judgement {
    let all = bytes as u64;
    match mode {
        Mode::Pass => Judgement::Forward,
        Mode::Refuse => Judgement::Cut { first: 0, how: Cut::Reset, all: false },
        Mode::BlackHole => Judgement::Wait,
        Mode::Mute if toward == Toward::Client => Judgement::Discard,
        Mode::Garbage if toward == Toward::Client => Judgement::Garble,
        Mode::Forge(forged) if toward == Toward::Client => {
            let forgery = Judgement::Forge(forged);
            *mode = Mode::Pass;
            forgery
        }
        Mode::CutAfter(way, left, how) if *way == toward => {
            if let Some(rest) = left.checked_sub(all).filter(|rest| *rest > 0) {
                *left = rest;
                return Judgement::Forward;
            }
            let cut = Judgement::Cut { first: usize::try_from(*left).unwrap_or(bytes), how: *how, all: false };
            *mode = Mode::Pass;
            cut
        }
        Mode::Swallow(left) if toward == Toward::Client => {
            if let Some(rest) = left.checked_sub(all).filter(|rest| *rest > 0) {
                *left = rest;
                return Judgement::Discard;
            }
            *mode = Mode::Pass;
            Judgement::Cut { first: 0, how: Cut::Reset, all: true }
        }
        Mode::Garbage | Mode::Mute | Mode::Forge(_) | Mode::CutAfter(..) | Mode::Swallow(_) => Judgement::Forward,
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let open = Open::new(&shared);
            carry(client, server, &shared, open).await;
        });
    }
}

/// A connection that counts as open until this is dropped.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut counts = shared.counts();
        counts.accepted += 1;
        counts.open += 1;
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counts().open -= 1;
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, shared: &Shared, open: Open<'_>) {
    let mut cut_all = shared.cut_all.subscribe();
    let refused = matches!(*shared.mode.borrow(), Mode::Refuse);
    let server = if refused { None } else { TcpStream::connect(server).await.ok() };
    let Some(mut server) = server else {
        end(client, Cut::Reset);
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let how = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::select! {
            how = pump(from_client, to_server, Toward::Server, shared) => how,
            how = pump(from_server, to_client, Toward::Client, shared) => how,
            _ = cut_all.changed() => cut_all.borrow().1,
            () = refuses(shared) => Cut::Reset,
        }
    };
    end(server, how);
    if how == Cut::Strand {
        strand(&mut client).await;
    }
    end(client, how);
    drop(open);
}

async fn refuses(shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    // The sender lives as long as this connection's task.
    drop(mode.wait_for(|mode| *mode == Mode::Refuse).await);
}

/// Takes what the client sends, says nothing, and returns when the client has given up.
async fn strand(client: &mut TcpStream) {
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    while matches!(client.read(&mut chunk).await, Ok(1..)) {}
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, toward: Toward, shared: &Shared) -> Cut {
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    let mut mode = shared.mode.subscribe();
    loop {
        let Ok(length @ 1..) = from.read(&mut chunk).await else { return Cut::Close };
        let Some(bytes) = chunk.get_mut(..length) else { return Cut::Close };
        if toward == Toward::Server {
            shared.count_request(length);
        }
        let mut judgement = shared.judge(toward, length);
        while judgement == Judgement::Wait {
            drop(mode.wait_for(|mode| *mode != Mode::BlackHole).await);
            judgement = shared.judge(toward, length);
        }
        let (send, cut) = match judgement {
            Judgement::Cut { first, how, all } => {
                if all {
                    shared.end_all(how);
                }
                (bytes.get(..first).unwrap_or_default(), Some(how))
            }
            Judgement::Forge(forged) => (forged, Some(Cut::Close)),
            Judgement::Discard => (Default::default(), None),
            Judgement::Garble => {
                bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
                (&*bytes, None)
            }
            Judgement::Forward | Judgement::Wait => (&*bytes, None),
        };
        if to.write_all(send).await.is_err() {
            return Cut::Close;
        }
        if let Some(how) = cut {
            return how;
        }
    }
}

fn end(stream: TcpStream, how: Cut) {
    if how != Cut::Close {
        stream.set_zero_linger().ok();
    }
    drop(stream);
}

#[cfg(test)]
mod tests;
