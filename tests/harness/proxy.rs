//! A TCP proxy on loopback that breaks connections on demand, at any byte, in any way a network can. Called by the
//! tests that stand it between the host and a broker, or between the host and an app.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::until;

/// The most bytes that are read at once. Small, so that a cut falls inside of what was written in one piece.
const CHUNK_BYTES_MAX: usize = 4096;

/// How long answers are thrown away, at most: whoever waits for one soon has nothing more to ask.
const SWALLOW_MAX: Duration = Duration::from_millis(250);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    /// From the client to the server.
    Server,
    /// From the server to the client.
    Client,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// At once, unread bytes thrown away.
    Reset,
    /// In good order.
    Close,
}

/// What the proxy does to connections, old and new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Forwards everything.
    Pass,
    /// Accepts and resets at once; resets what is open.
    Refuse,
    /// Keeps connections open and forwards nothing: what arrives waits.
    BlackHole,
    /// Cuts the connection that carries the byte after so many of them that way (all connections counted together),
    /// then passes again.
    CutAfter(Toward, u64, Cut),
    /// Throws away so many bytes toward the client, or what comes within [`SWALLOW_MAX`] from the first of them, then
    /// resets every connection and passes again: what was asked was done, and the answer is lost.
    Swallow(u64),
    /// Replaces every byte toward the client by another.
    Garbage,
}

/// A running proxy. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    mode: watch::Sender<Mode>,
    counts: Mutex<Counts>,
    /// A new number resets every connection that is open.
    reset_all: watch::Sender<u64>,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Connections open now.
    pub(crate) open: usize,
    /// Cuts, swallows included.
    pub(crate) cuts: u64,
    /// When the first byte of the present swallow was thrown away.
    swallowing_since: Option<Instant>,
}

impl Proxy {
    /// A proxy that passes everything to this server.
    pub(crate) async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            mode: watch::Sender::new(Mode::Pass),
            counts: Mutex::default(),
            reset_all: watch::Sender::new(0),
        });
        let server = tokio::spawn(serve(listener, server, Arc::clone(&shared)));
        Ok(Self { address, shared, server })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has happened so far.
    pub(crate) fn counts(&self) -> Counts {
        *self.shared.counts()
    }

    /// From now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Sets a mode that ends with a cut, and returns when the cut has happened.
    pub(crate) async fn strike(&self, mode: Mode) -> Result<()> {
        let before = self.counts().cuts;
        self.set(mode);
        let cut = until("the proxy to cut a connection", async || {
            self.shared.end_long_swallow();
            (self.counts().cuts > before).then_some(())
        });
        match cut.await {
            Ok(()) => Ok(()),
            Err(late) => bail!("{late} ({mode:?}, {:?})", self.counts()),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do with so many bytes that go this way. Changes the mode when its time has come.
    fn judge(&self, toward: Toward, bytes: usize) -> Judgement {
        let mut judgement = Judgement::Forward;
        self.mode.send_if_modified(|mode| {
            judgement = judge(mode, toward, bytes);
            match judgement {
                Judgement::Cut { .. } => self.count_cut(),
                Judgement::Discard => {
                    self.counts().swallowing_since.get_or_insert_with(Instant::now);
                }
                _ => {}
            }
            // Whoever waits for a mode waits for one that a test sets, or for the end of a strike.
            matches!(judgement, Judgement::Cut { .. })
        });
        judgement
    }
}

impl Shared {
    fn count_cut(&self) {
        let mut counts = self.counts();
        counts.cuts += 1;
        counts.swallowing_since = None;
    }

    fn end_long_swallow(&self) {
        let since = self.counts().swallowing_since;
        if since.is_some_and(|since| since.elapsed() > SWALLOW_MAX) {
            self.mode.send_replace(Mode::Pass);
            self.count_cut();
            self.reset_all.send_modify(|times| *times += 1);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Forward,
    Wait,
    Discard,
    Garble,
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
        Mode::Garbage if toward == Toward::Client => Judgement::Garble,
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
        Mode::Garbage | Mode::CutAfter(..) | Mode::Swallow(_) => Judgement::Forward,
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            shared.counts().open += 1;
            carry(client, server, &shared).await;
            shared.counts().open -= 1;
        });
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, shared: &Shared) {
    let refused = matches!(*shared.mode.borrow(), Mode::Refuse);
    let server = if refused { None } else { TcpStream::connect(server).await.ok() };
    let Some(mut server) = server else {
        end(client, Cut::Reset);
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let mut reset_all = shared.reset_all.subscribe();
    let how = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::select! {
            how = pump(from_client, to_server, Toward::Server, shared) => how,
            how = pump(from_server, to_client, Toward::Client, shared) => how,
            _ = reset_all.changed() => Cut::Reset,
            () = refuses(shared) => Cut::Reset,
        }
    };
    end(client, how);
    end(server, how);
}

async fn refuses(shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    // The sender lives as long as this connection's task.
    drop(mode.wait_for(|mode| *mode == Mode::Refuse).await);
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, toward: Toward, shared: &Shared) -> Cut {
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    let mut mode = shared.mode.subscribe();
    loop {
        let Ok(length @ 1..) = from.read(&mut chunk).await else { return Cut::Close };
        let Some(bytes) = chunk.get_mut(..length) else { return Cut::Close };
        let mut judgement = shared.judge(toward, length);
        while judgement == Judgement::Wait {
            drop(mode.wait_for(|mode| *mode != Mode::BlackHole).await);
            judgement = shared.judge(toward, length);
        }
        let (send, cut) = match judgement {
            Judgement::Cut { first, how, all } => {
                if all {
                    shared.reset_all.send_modify(|times| *times += 1);
                }
                (first, Some(how))
            }
            Judgement::Discard => (0, None),
            Judgement::Garble => {
                bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
                (length, None)
            }
            Judgement::Forward | Judgement::Wait => (length, None),
        };
        if to.write_all(bytes.get(..send).unwrap_or_default()).await.is_err() {
            return Cut::Close;
        }
        if let Some(how) = cut {
            return how;
        }
    }
}

fn end(stream: TcpStream, how: Cut) {
    if how == Cut::Reset {
        stream.set_zero_linger().ok();
    }
    drop(stream);
}

#[cfg(test)]
mod tests;
