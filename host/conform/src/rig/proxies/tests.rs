//! They break as one.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::proxy::Toward;

/// Two servers that say their own number to everybody, for ever.
async fn two() -> io::Result<Proxies> {
    let mut servers = Vec::new();
    for number in [b'0', b'1'] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        servers.push(listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move { while client.write_all(&[number]).await.is_ok() {} });
            }
        });
    }
    Proxies::start(servers).await
}

/// What each of the two says first; none: nothing.
async fn heard(proxies: &Proxies) -> io::Result<Vec<Option<u8>>> {
    let mut heard = Vec::new();
    for address in proxies.addresses() {
        let mut stream = TcpStream::connect(address).await?;
        heard.push(stream.read_u8().await.ok());
    }
    Ok(heard)
}

#[tokio::test]
async fn each_stands_before_its_own_server() -> io::Result<()> {
    let proxies = two().await?;
    assert_eq!(heard(&proxies).await?, [Some(b'0'), Some(b'1')]);
    assert_eq!(proxies.counts().accepted, 2);
    Ok(())
}

#[tokio::test]
async fn they_refuse_together() -> io::Result<()> {
    let proxies = two().await?;
    proxies.set(Mode::Refuse);
    assert_eq!(heard(&proxies).await?, [None, None]);
    Ok(())
}

#[tokio::test]
async fn one_cut_is_a_strike_and_the_others_pass_again() -> io::Result<()> {
    let proxies = two().await?;
    let mut second = TcpStream::connect(proxies.addresses()[1]).await?;
    second.read_u8().await?;
    // Nobody talks to the first.
    proxies.strike(Mode::CutAfter(Toward::Client, 10, Cut::Reset)).await?;
    assert_eq!(proxies.counts().cuts, 1);
    assert_eq!(heard(&proxies).await?, [Some(b'0'), Some(b'1')], "they pass again");
    Ok(())
}
