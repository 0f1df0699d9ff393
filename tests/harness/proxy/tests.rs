//! A cut really cuts, and everything else passes.

use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::harness::run;

/// A server that sends back whatever it gets.
async fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    Ok(address)
}

/// Sends `sent` bytes through the proxy and says what came back, and whether the connection broke before all had.
/// (Which end of it notices a reset first is a race, and so is how it is told.)
async fn exchange(proxy: &Proxy, sent: usize) -> Result<(Vec<u8>, bool)> {
    let Ok(mut stream) = TcpStream::connect(proxy.address()).await else { return Ok((vec![], true)) };
    let text: Vec<u8> = (0..sent).map(|i| b'a' + u8::try_from(i % 26).unwrap_or(0)).collect();
    let (mut from, mut to) = stream.split();
    let mut back = vec![];
    let receive = async {
        let mut byte = [0];
        while back.len() < sent {
            match from.read(&mut byte).await {
                Ok(1..) => back.push(byte[0]),
                Ok(0) | Err(_) => return true,
            }
        }
        false
    };
    let (_, broke) = tokio::join!(to.write_all(&text), receive);
    Ok((back, broke))
}

fn check(mode: Mode, expect_bytes: usize, breaks: bool) -> Result<()> {
    run(async |_| {
        let proxy = Proxy::start(echo().await?).await?;
        proxy.set(mode);
        let (back, broke) = exchange(&proxy, 10_000).await?;
        assert_eq!((back.len(), broke), (expect_bytes, breaks), "{mode:?}");
        assert!(back.iter().enumerate().all(|(i, byte)| usize::from(*byte - b'a') == i % 26), "{mode:?}: altered");
        Ok(())
    })
}

#[test]
fn passes_every_byte() -> Result<()> {
    check(Mode::Pass, 10_000, false)
}

#[test]
fn closes_after_the_byte_asked_for() -> Result<()> {
    check(Mode::CutAfter(Toward::Client, 777, Cut::Close), 777, true)
}

#[test]
fn resets_toward_the_server() -> Result<()> {
    // What was sent back before the reset may be thrown away with it: only the end is certain.
    run(async |_| {
        let proxy = Proxy::start(echo().await?).await?;
        proxy.set(Mode::CutAfter(Toward::Server, 5_000, Cut::Reset));
        let (back, broke) = exchange(&proxy, 10_000).await?;
        assert!(back.len() <= 5_000, "{} bytes came back of what was cut", back.len());
        assert!(broke);
        assert_eq!(proxy.counts().cuts, 1);
        let (back, broke) = exchange(&proxy, 10_000).await?;
        assert_eq!((back.len(), broke), (10_000, false), "it passes again after its cut");
        Ok(())
    })
}

#[test]
fn swallows_the_answer_then_resets() -> Result<()> {
    check(Mode::Swallow(10_000), 0, true)
}

#[test]
fn swallows_no_longer_than_it_may_when_nothing_more_comes() -> Result<()> {
    run(async |_| {
        let proxy = Proxy::start(echo().await?).await?;
        let (struck, exchanged) = tokio::join!(proxy.strike(Mode::Swallow(1_000_000)), exchange(&proxy, 100));
        struck?;
        let (back, broke) = exchanged?;
        assert_eq!((back.len(), broke), (0, true));
        Ok(())
    })
}

#[test]
fn refuses() -> Result<()> {
    check(Mode::Refuse, 0, true)
}

#[test]
fn alters_every_byte_on_request() -> Result<()> {
    run(async |_| {
        let proxy = Proxy::start(echo().await?).await?;
        proxy.set(Mode::Garbage);
        let (back, broke) = exchange(&proxy, 100).await?;
        assert!(!broke);
        assert!(back.iter().all(|byte| !byte.is_ascii_lowercase()), "{back:?}");
        Ok(())
    })
}

#[test]
fn holds_everything_back_until_it_passes_again() -> Result<()> {
    run(async |_| {
        let proxy = Proxy::start(echo().await?).await?;
        proxy.set(Mode::BlackHole);
        let mut exchange = std::pin::pin!(exchange(&proxy, 100));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut exchange).await;
        assert!(early.is_err(), "something came through a black hole");
        proxy.set(Mode::Pass);
        assert_eq!(exchange.await?.0.len(), 100);
        Ok(())
    })
}
