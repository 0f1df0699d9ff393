//! A peer that is not Redis, or means harm.

use super::harness::*;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whimbrel_sdk::{Adapter, Failure, StatusSink};

/// The answers to what a connection begins with: `CLIENT SETNAME`, `CLIENT ID`, `PING`.
const WELCOME: &[u8] = b"+OK\r\n:7\r\n+PONG\r\n";

/// Answers every connection with these bytes as soon as something is said, and then each thing said with those.
async fn peer(first: &'static [u8], then: &'static [u8]) -> (String, Rc<Cell<u32>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let connections = Rc::new(Cell::new(0));
    let counted = Rc::clone(&connections);
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.set(counted.get() + 1);
            tokio::task::spawn_local(async move {
                let mut answer = first;
                let mut heard = vec![0; 4096];
                while stream.read(&mut heard).await.is_ok_and(|count| count > 0) && !answer.is_empty() {
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                    answer = then;
                }
            });
        }
    });
    (host, connections)
}

#[test]
fn garbage_instead_of_a_welcome() {
    run(async {
        let garbage: [&'static [u8]; 7] = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\0\0\0\0\0\0\0\0",
            b"$2147483647\r\n",
            b"*2147483647\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
            b"*3\r\n+OK\r\n+OK\r\n",
            b"",
        ];
        for bytes in garbage {
            let (host, connections) = peer(bytes, bytes).await;
            let (sink, _news) = StatusSink::channel();
            let opening = whimbrel_redis::Redis::open(config(&host, "i", &[("dialTimeout", "200ms")]), sink);
            assert!(tokio::time::timeout(Duration::from_millis(1500), opening).await.is_err(), "it opened");
            assert!((1..=30).contains(&connections.get()), "{} connections", connections.get());
        }
    });
}

#[test]
fn garbage_instead_of_a_confirm() {
    run(async {
        let garbage: [&'static [u8]; 5] =
            [b"\r\n", b"!\r\n", b"$2147483647\r\nxx", b"+1-0\r\n+2-0\r\n+3-0\r\n+4-0\r\n", b"*1000000000\r\n"];
        for bytes in garbage {
            let (host, connections) = peer(WELCOME, bytes).await;
            let bus = open(&host, "i", &[]).await;
            let result = bus.publish("orders", b"x").await;
            // The first of several answers is one; the others end the connection.
            if !bytes.starts_with(b"+") {
                assert!(matches!(result, Err(Failure::Unknown(_))), "{result:?}");
            }
            until("it connects again", async || connections.get() >= 2).await;
        }
    });
}

/// A server that welcomes everybody and hangs up must not be asked ever faster.
#[test]
fn a_peer_that_hangs_up() {
    run(async {
        let (host, connections) = peer(WELCOME, b"").await;
        let bus = open(&host, "i", &[]).await;
        let since = std::time::Instant::now();
        while since.elapsed() < Duration::from_secs(2) {
            let result = bus.adapter.publish(vec![message("orders", b"x")], Duration::from_millis(50)).await;
            assert!(matches!(result[..], [Err(Failure::Unknown(_) | Failure::Transient(_))]), "{result:?}");
        }
        assert!(connections.get() <= 30, "{} connections in two seconds", connections.get());
    });
}

/// Slow as can be: one byte at a time is still a welcome.
#[test]
fn a_reply_in_pieces() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 4096];
            for answer in [WELCOME, b"$3\r\n1-0\r\n"] {
                assert!(stream.read(&mut heard).await.unwrap() > 0);
                for byte in answer {
                    stream.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            // The connection stays open until the test is over.
            drop(stream.read(&mut heard).await);
        });
        let bus = open(&host, "i", &[]).await;
        bus.publish("orders", b"x").await.unwrap();
    });
}
