//! A cut really cuts, and everything else passes.

use super::*;

/// What should not happen would have by now.
const A_WHILE: Duration = Duration::from_millis(200);

/// A server that sends back whatever it gets.
async fn echo() -> io::Result<SocketAddr> {
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
async fn exchange(proxy: &Proxy, sent: usize) -> io::Result<(Vec<u8>, bool)> {
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

async fn check(mode: Mode, expect_bytes: usize, breaks: bool) -> io::Result<()> {
    let proxy = Proxy::start(echo().await?).await?;
    proxy.set(mode);
    let (back, broke) = exchange(&proxy, 10_000).await?;
    assert_eq!((back.len(), broke), (expect_bytes, breaks), "{mode:?}");
    assert!(back.iter().enumerate().all(|(i, byte)| usize::from(*byte - b'a') == i % 26), "{mode:?}: altered");
    Ok(())
}

#[tokio::test]
async fn passes_every_byte() -> io::Result<()> {
    check(Mode::Pass, 10_000, false).await
}

#[tokio::test]
async fn closes_after_the_byte_asked_for() -> io::Result<()> {
    check(Mode::CutAfter(Toward::Client, 777, Cut::Close), 777, true).await
}

#[tokio::test]
async fn resets_toward_the_server() -> io::Result<()> {
    // What was sent back before the reset may be thrown away with it: only the end is certain.
    let proxy = Proxy::start(echo().await?).await?;
    proxy.set(Mode::CutAfter(Toward::Server, 5_000, Cut::Reset));
    let (back, broke) = exchange(&proxy, 10_000).await?;
    assert!(back.len() <= 5_000, "{} bytes came back of what was cut", back.len());
    assert!(broke);
    assert_eq!(proxy.counts().cuts, 1);
    let (back, broke) = exchange(&proxy, 10_000).await?;
    assert_eq!((back.len(), broke), (10_000, false), "it passes again after its cut");
    Ok(())
}

#[tokio::test]
async fn swallows_the_answer_then_resets() -> io::Result<()> {
    check(Mode::Swallow(10_000), 0, true).await
}

#[tokio::test]
async fn swallows_no_longer_than_it_may_when_nothing_more_comes() -> io::Result<()> {
    let proxy = Proxy::start(echo().await?).await?;
    let (struck, exchanged) = tokio::join!(proxy.strike(Mode::Swallow(1_000_000)), exchange(&proxy, 100));
    struck?;
    let (back, broke) = exchanged?;
    assert_eq!((back.len(), broke), (0, true));
    Ok(())
}

#[tokio::test]
async fn refuses_and_counts_who_came() -> io::Result<()> {
    let proxy = Proxy::start(echo().await?).await?;
    proxy.set(Mode::Refuse);
    for _ in 0..2 {
        assert_eq!(exchange(&proxy, 100).await?, (vec![], true));
    }
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.requests), (2, 0));
    Ok(())
}

#[tokio::test]
async fn counts_what_clients_ask() -> io::Result<()> {
    let proxy = Proxy::start(echo().await?).await?;
    exchange(&proxy, 100).await?;
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.requests, counts.request_bytes), (1, 1, 100));
    Ok(())
}

#[tokio::test]
async fn alters_every_byte_on_request() -> io::Result<()> {
    let proxy = Proxy::start(echo().await?).await?;
    proxy.set(Mode::Garbage);
    let (back, broke) = exchange(&proxy, 100).await?;
    assert!(!broke);
    assert!(back.iter().all(|byte| !byte.is_ascii_lowercase()), "{back:?}");
    Ok(())
}

#[tokio::test]
async fn forges_one_answer_and_closes() -> io::Result<()> {
    let proxy = Proxy::start(echo().await?).await?;
    proxy.set(Mode::Forge(b"hello"));
    assert_eq!(exchange(&proxy, 100).await?, (b"hello".to_vec(), true));
    assert!(!exchange(&proxy, 100).await?.1, "it passes again");
    Ok(())
}

#[tokio::test]
async fn holds_everything_back_until_it_passes_again() -> io::Result<()> {
    let proxy = Proxy::start(echo().await?).await?;
    proxy.set(Mode::BlackHole);
    let mut exchange = std::pin::pin!(exchange(&proxy, 100));
    let early = tokio::time::timeout(A_WHILE, &mut exchange).await;
    assert!(early.is_err(), "something came through a black hole");
    proxy.set(Mode::Pass);
    assert_eq!(exchange.await?.0.len(), 100);
    Ok(())
}

#[tokio::test]
async fn mutes_answers_until_they_are_cut_off() -> io::Result<()> {
    let proxy = Proxy::start(echo().await?).await?;
    proxy.set(Mode::Mute);
    let mut exchange = std::pin::pin!(exchange(&proxy, 100));
    let early = tokio::time::timeout(A_WHILE, &mut exchange).await;
    assert!(early.is_err(), "an answer came through");
    proxy.cut_all(Cut::Reset);
    assert_eq!(exchange.await?, (vec![], true));
    assert_eq!(proxy.counts().cuts, 1);
    Ok(())
}

#[tokio::test]
async fn strands_a_client_and_serves_the_next() -> io::Result<()> {
    let proxy = Proxy::start(echo().await?).await?;
    let mut stranded = TcpStream::connect(proxy.address()).await?;
    stranded.write_all(b"a").await?;
    stranded.read_exact(&mut [0]).await?;
    proxy.cut_all(Cut::Strand);
    let mut byte = [0];
    let silence = tokio::time::timeout(A_WHILE, stranded.read(&mut byte)).await;
    assert!(silence.is_err(), "a stranded client heard {silence:?}");
    assert!(!exchange(&proxy, 100).await?.1);
    drop(stranded);
    until("the stranded connection to be gone", async || (proxy.counts().open == 0).then_some(()))
        .await
        .map_err(io::Error::other)
}
