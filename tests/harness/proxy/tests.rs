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

/// Sends `sent` bytes through the proxy and says how many came back, and how the connection ended.
async fn exchange(proxy: &Proxy, sent: usize) -> Result<(Vec<u8>, Option<std::io::ErrorKind>)> {
    let mut stream = TcpStream::connect(proxy.address()).await?;
    let text: Vec<u8> = (0..sent).map(|i| b'a' + u8::try_from(i % 26).unwrap_or(0)).collect();
    let (mut from, mut to) = stream.split();
    let mut back = vec![];
    let receive = async {
        let mut byte = [0];
        while back.len() < sent {
            match from.read(&mut byte).await {
                Ok(0) => return Some(std::io::ErrorKind::UnexpectedEof),
                Ok(_) => back.push(byte[0]),
                Err(error) => return Some(error.kind()),
            }
        }
        None
    };
    let (_, ended) = tokio::join!(to.write_all(&text), receive);
    Ok((back, ended))
}

fn check(mode: Mode, expect_bytes: usize, expect_end: Option<std::io::ErrorKind>) -> Result<()> {
    run(async |_| {
        let proxy = Proxy::start(echo().await?).await?;
        proxy.set(mode);
        let (back, ended) = exchange(&proxy, 10_000).await?;
        assert_eq!((back.len(), ended), (expect_bytes, expect_end), "{mode:?}");
        assert!(back.iter().enumerate().all(|(i, byte)| usize::from(*byte - b'a') == i % 26), "{mode:?}: altered");
        Ok(())
    })
}

#[test]
fn passes_every_byte() -> Result<()> {
    check(Mode::Pass, 10_000, None)
}

#[test]
fn closes_after_the_byte_asked_for() -> Result<()> {
    check(Mode::CutAfter(Toward::Client, 777, Cut::Close), 777, Some(std::io::ErrorKind::UnexpectedEof))
}

#[test]
fn resets_toward_the_server() -> Result<()> {
    // What was sent back before the reset may be thrown away with it: only the end is certain.
    run(async |_| {
        let proxy = Proxy::start(echo().await?).await?;
        proxy.set(Mode::CutAfter(Toward::Server, 5_000, Cut::Reset));
        let (back, ended) = exchange(&proxy, 10_000).await?;
        assert!(back.len() <= 5_000, "{} bytes came back of what was cut", back.len());
        assert_eq!(ended, Some(std::io::ErrorKind::ConnectionReset));
        assert_eq!(proxy.counts().cuts, 1);
        let (back, ended) = exchange(&proxy, 10_000).await?;
        assert_eq!((back.len(), ended), (10_000, None), "it passes again after its cut");
        Ok(())
    })
}

#[test]
fn swallows_the_answer_then_resets() -> Result<()> {
    check(Mode::Swallow(10_000), 0, Some(std::io::ErrorKind::ConnectionReset))
}

#[test]
fn refuses() -> Result<()> {
    check(Mode::Refuse, 0, Some(std::io::ErrorKind::ConnectionReset))
}

#[test]
fn alters_every_byte_on_request() -> Result<()> {
    run(async |_| {
        let proxy = Proxy::start(echo().await?).await?;
        proxy.set(Mode::Garbage);
        let (back, ended) = exchange(&proxy, 100).await?;
        assert_eq!(ended, None);
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
