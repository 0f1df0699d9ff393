//! Peers that are no broker, or one gone mad: whatever they send, the adapter answers with errors, in bounded memory, and
//! lives on. And a long run with a cut now and then.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use whimbrel_wasm::BrokerState;

use super::behind::behind;
use super::load::{Load, RECOVER_WAIT};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::proxy::{Cut, Mode, Toward};
use crate::rig::{Instance, Proxies, Rig};
use crate::scale::scaled_time;

/// How long an adapter is left with each peer.
const EACH: Duration = Duration::from_millis(600);

/// How long a dripping peer waits between two bytes.
const DRIP_WAIT: Duration = Duration::from_millis(20);

/// Bytes that a peer sends at a time, and in all to one client: more than an adapter's memory.
const FLOOD_CHUNK_BYTES: usize = 64 << 10;
const FLOOD_BYTES_MAX: usize = 300 << 20;

/// Where the broker's first answers are cut.
const TRUNCATED_AT: [u64; 8] = [1, 2, 4, 7, 12, 24, 60, 150];

/// How long a soak at scale 1 takes, and how often it is cut.
const SOAK: Duration = Duration::from_secs(4);
const CUT_EVERY: Duration = Duration::from_millis(1500);

/// What the component's memory may grow by in a soak after its first cut: what allocators keep, and no more for more cuts.
const GROWTH_BYTES_MAX: usize = 16 << 20;

/// What a peer does with whoever connects.
#[derive(Debug, Clone, Copy)]
enum Peer {
    /// Says this again and again.
    Says(&'static [u8]),
    /// Says this, a byte at a time.
    Drips(&'static [u8]),
    /// Says this for as long as it is listened to.
    Floods(&'static [u8]),
    /// Says this once, and closes.
    Closes(&'static [u8]),
    /// Says nothing.
    Silent,
}

/// Lengths of two and four gigabytes in the forms that protocols have them, opcodes that nobody knows, and no protocol.
const PEERS: &[Peer] = &[
    Peer::Silent,
    Peer::Closes(b""),
    Peer::Closes(b"\0"),
    Peer::Says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    Peer::Says(b"\x7f\xff\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff"),
    Peer::Says(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    Peer::Says(b"\x80\0\0\0\x80\0\0\0\x80\0\0\0"),
    Peer::Says(b"$2147483647\r\n*2147483647\r\n%2147483647\r\n"),
    Peer::Says(b"*-2\r\n$-9\r\n:99999999999999999999\r\n"),
    Peer::Says(b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"),
    Peer::Says(b"MSG a 1 2147483647\r\nHMSG a 1 4 2\r\nINFO {\r\nINFO []\r\n"),
    Peer::Says(b"\x01\0\x01\x7f\xff\xff\xff\0\x0a\0\x0a\xce"),
    Peer::Says(b"AMQP\0\0\x09\x01\x01\0\0\0\0\0\0\xce"),
    Peer::Drips(b"+OK\r\n$5\r\nhello\r\nINFO {\"a\":1}\r\n\0\0\0\x05hello"),
    Peer::Floods(b"a"),
    Peer::Floods(b"INFO {\"a\":"),
    Peer::Floods(b"*1\r\n"),
    Peer::Floods(b"\0\0\0\0"),
];

/// What the broker suddenly says in the midst of a session.
const FORGERIES: &[&[u8]] = &[
    b"\x7f\xff\xff\xff\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"$2147483647\r\n",
    b"*2147483647\r\n*2147483647\r\n",
    b"MSG x 99999 2147483647\r\n",
    b"\x03\0\x01\x7f\xff\xff\xff\0",
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\r\n\r\n\r\n",
];

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S15",
    title: "survives hostile peers and a long run",
    expects: "whatever a peer says or keeps back (no protocol at all, lengths of gigabytes, an endless line, a byte at a time, \
              truncated and forged answers), the adapter answers with errors and never traps; through a run with a cut now \
              and then nothing is lost and memory does not grow",
    cause: "a panic where input is parsed (indexing, unwrap, overflow), a buffer made as large as the peer says, or a line \
            without a bound",
    read: "wit/README.md, \"Traps\" and \"Limits\"",
    needs: &[Need::Proxy],
    bound: Some(Duration::from_secs(300)),
    run: |rig| Box::pin(hostile(rig)),
}];

async fn hostile(rig: &Rig) -> Tested {
    for peer in PEERS {
        meet(rig, *peer).await?;
    }
    let proxies = rig.proxies().await?;
    for bytes in TRUNCATED_AT {
        truncated(rig, &proxies, bytes).await?;
    }
    let instance = behind(rig, &proxies).await?;
    let dies = dies(instance.states(), false);
    let working = async {
        forged(rig, &proxies, &instance).await?;
        soak(rig, &proxies, &instance).await
    };
    let outcome = tokio::select! {
        worked = working => worked,
        why = dies => Err(Wrong::new(format!("the adapter died where it should have answered an error: {why}"))),
    };
    proxies.set(Mode::Pass);
    instance.kill().await;
    outcome?;
    Ok(Finding::Passed)
}

/// Returns when the instance is lost, with the reason. One that has never opened may answer an error instead.
async fn dies(mut states: watch::Receiver<BrokerState>, opening: bool) -> String {
    loop {
        let state = states.borrow_and_update().clone();
        if let BrokerState::Restarting(why) = state
            && (!opening || why.contains("wasm"))
        {
            return why;
        }
        if states.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Leaves an adapter with a peer for a while.
async fn meet(rig: &Rig, peer: Peer) -> Result<(), Wrong> {
    let server = Server::start(peer).await.map_err(|error| Wrong::new(format!("no port for a peer: {error}")))?;
    let instance = rig.instance_begun("meets", &rig.profile().at(&[server.address]))?;
    let died = timeout(EACH, dies(instance.states(), true)).await;
    instance.kill().await;
    match died {
        Err(_) => Ok(()),
        Ok(why) => Err(Wrong::new(format!("a peer that does {peer:?} killed the adapter: {why}"))),
    }
}

/// The broker's first answers are cut short after so many bytes.
async fn truncated(rig: &Rig, proxies: &Proxies, bytes: u64) -> Result<(), Wrong> {
    proxies.set(Mode::CutAfter(Toward::Client, bytes, Cut::Close));
    let mut instance = rig.instance_begun("truncated", &rig.profile().at(&proxies.addresses()))?;
    let states = instance.states();
    let opens = instance.reaches(RECOVER_WAIT, |state| *state == BrokerState::Ready);
    let outcome = tokio::select! {
        opened = opens => Ok(opened),
        why = dies(states, true) => Err(why),
    };
    proxies.set(Mode::Pass);
    let state = instance.state();
    instance.kill().await;
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => {
            let what = format!(
                "cut after {bytes} bytes of the broker's first answers, the adapter is not ready {} s later: {state}",
                RECOVER_WAIT.as_secs()
            );
            Err(Wrong::of("S3", what))
        }
        Err(why) => {
            Err(Wrong::new(format!("an answer of the broker, cut after {bytes} bytes, killed the adapter: {why}")))
        }
    }
}

/// The broker's answers are garbled and forged in the midst of a session.
async fn forged(rig: &Rig, proxies: &Proxies, instance: &Instance) -> Result<(), Wrong> {
    let load = Load::new(rig).await?;
    let inbox = load.subscribe(instance).await?;
    let account = load
        .run(instance, vec![(instance, inbox)], async {
            load.flows(1).await?;
            for mode in FORGERIES.iter().map(|forged| Mode::Forge(forged)).chain([Mode::Garbage]) {
                load.ledger.fault(format!("{mode:?}"));
                let struck = if mode == Mode::Garbage { garble(proxies).await } else { proxies.strike(mode).await };
                struck.map_err(|error| Wrong::new(error.to_string()))?;
                load.recovers(instance).await.map_err(|wrong| wrong.and(&format!("after {mode:?}")))?;
            }
            Ok(())
        })
        .await?;
    // Forged answers are lies: what they confirmed is not the adapter's fault.
    drop(account);
    Ok(())
}

async fn garble(proxies: &Proxies) -> std::io::Result<()> {
    proxies.set(Mode::Garbage);
    sleep_until(Instant::now() + EACH).await;
    proxies.set(Mode::Pass);
    proxies.cut_all(Cut::Reset);
    Ok(())
}

/// A run with a cut now and then.
async fn soak(rig: &Rig, proxies: &Proxies, instance: &Instance) -> Result<(), Wrong> {
    let load = Load::new(rig).await?;
    let inbox = load.subscribe(instance).await?;
    let until = Instant::now() + scaled_time(SOAK);
    let mut before = None;
    let account = load
        .run(instance, vec![(instance, inbox)], async {
            while Instant::now() < until {
                sleep_until(Instant::now() + CUT_EVERY).await;
                // Counted from the first cut on: by then everything that is made once is there.
                before = before.or_else(|| Some(instance.memory_bytes()));
                load.ledger.fault("cut");
                proxies.cut_all(Cut::Reset);
                load.recovers(instance).await?;
            }
            Ok(())
        })
        .await?;
    let grown = before.map_or(0, |before| instance.memory_bytes().saturating_sub(before));
    if grown > GROWTH_BYTES_MAX {
        let what = format!(
            "the component's memory has grown by {} MiB in a run of {:?}; {account}",
            grown >> 20,
            scaled_time(SOAK)
        );
        return Err(Wrong::new(what));
    }
    account.judge()
}

/// A peer on loopback. Dropped, it is gone.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(peer: Peer) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                while clients.try_join_next().is_some() {}
                let Ok((client, _)) = listener.accept().await else { continue };
                clients.spawn(async move {
                    // Whoever hangs up has heard enough.
                    serve(client, peer).await.ok();
                });
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Speaks until the client hangs up, and takes no notice of what it says.
async fn serve(mut client: TcpStream, peer: Peer) -> std::io::Result<()> {
    let (mut from, mut to) = client.split();
    let hearing = async {
        let mut heard = vec![0; FLOOD_CHUNK_BYTES];
        while from.read(&mut heard).await? > 0 {}
        Ok(())
    };
    let speaking = async {
        match peer {
            Peer::Silent => std::future::pending().await,
            Peer::Closes(text) => to.write_all(text).await,
            Peer::Says(text) => loop {
                to.write_all(text).await?;
                sleep_until(Instant::now() + DRIP_WAIT).await;
            },
            Peer::Drips(text) => {
                for byte in text.iter().cycle() {
                    to.write_all(&[*byte]).await?;
                    sleep_until(Instant::now() + DRIP_WAIT).await;
                }
                Ok(())
            }
            Peer::Floods(text) => {
                let chunk: Vec<u8> = text.iter().copied().cycle().take(FLOOD_CHUNK_BYTES).collect();
                for _ in 0..FLOOD_BYTES_MAX / FLOOD_CHUNK_BYTES {
                    to.write_all(&chunk).await?;
                }
                std::future::pending().await
            }
        }
    };
    tokio::select! { heard = hearing => heard, spoken = speaking => spoken }
}
