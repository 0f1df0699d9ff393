//! A peer that is not NATS, or means harm.

use super::harness::*;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whimbrel_sdk::{Adapter, Failure, Status};

const GREETING: &[u8] = b"INFO {\"headers\":true,\"max_payload\":1048576,\"jetstream\":true}\r\n";

/// The answer to what a connection begins with, and to the question after JetStream: it may be denied.
const WELCOME: &[u8] = b"PONG\r\n-ERR 'Permissions Violation for Publish to \"$JS.API.INFO\"'\r\n";

/// Greets everybody with the first bytes, answers the first thing said with the second, and everything else with the third.
async fn peer(says: [&'static [u8]; 3]) -> (String, Rc<Cell<u32>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let connections = Rc::new(Cell::new(0));
    let counted = Rc::clone(&connections);
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.set(counted.get() + 1);
            tokio::task::spawn_local(async move {
                let [greeting, mut answer, then] = says;
                stream.write_all(greeting).await.ok();
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
    (url, connections)
}

/// Whatever it is, the status says so in time, and which setting names it; nothing is sent, and it is not tried like mad.
#[test]
fn an_address_that_is_something_else() {
    run(async {
        let others: [[&'static [u8]; 3]; 8] = [
            // An HTTP server or a Redis: they wait to be spoken to.
            [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""],
            [b"", b"-ERR unknown command\r\n", b""],
            [b"220 mail ESMTP\r\n", b"", b""],
            [b"\0\0\0\0\0\0\0\n", b"", b""],
            [b"INFO {\"max_payload\":-1}\r\n", b"", b""],
            [b"MSG a 1 2147483647\r\n", b"", b""],
            [b"PING\r\n", b"", b""],
            [GREETING, b"-ERR 'Attempted To Connect To Route Port'\r\n", b""],
        ];
        for says in others {
            let (url, connections) = peer(says).await;
            let since = Instant::now();
            let bus = open(&url, &[]).await;
            let why = bus.hears("why not", |status| matches!(status, Status::Connecting(why) if !why.is_empty())).await;
            assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
            let text = format!("{why:?}");
            assert!(text.contains("natsURL") || text.contains("NATS refuses"), "{text}");
            let result = bus.adapter.publish(vec![message("orders", b"x")], Duration::from_millis(500)).await;
            assert!(matches!(&result[..], [Err(Failure::Transient(_))]), "{result:?}");
            assert!((1..=40).contains(&connections.get()), "{} connections", connections.get());
        }
    });
}

#[test]
fn garbage_instead_of_a_confirm() {
    run(async {
        let garbage: [&'static [u8]; 6] = [
            b"!\r\n",
            b"MSG x 1 99999999999999999999\r\n",
            b"MSG x 1 3\r\nxxxxxxx\r\n",
            b"HMSG x 1 9 3\r\nxxx\r\n",
            b"\xff\xff\xff\r\n",
            b"-ERR 'Stale Connection'\r\n",
        ];
        for bytes in garbage {
            let (url, connections) = peer([GREETING, WELCOME, bytes]).await;
            let bus = open(&url, &[("pingInterval", "30s")]).await;
            let result = bus.adapter.publish(vec![message("orders", b"x")], Duration::from_secs(1)).await;
            assert!(matches!(result[..], [Err(Failure::Unknown(_) | Failure::Transient(_))]), "{result:?}");
            until("it connects again", async || connections.get() >= 2).await;
        }
    });
}

/// Messages for nobody are nobody's: the connection goes on.
#[test]
fn what_nobody_asked_for_is_passed_over() {
    run(async {
        let foreign: [&'static [u8]; 3] =
            [b"MSG x 1 3\r\nxxx\r\n", b"MSG _INBOX.a.r.7.8 77 0\r\n\r\n", b"+OK\r\nPONG\r\nPONG\r\n"];
        for bytes in foreign {
            let (url, connections) = peer([GREETING, WELCOME, bytes]).await;
            let bus = open(&url, &[("pingInterval", "30s")]).await;
            let result = bus.adapter.publish(vec![message("orders", b"x")], Duration::from_millis(200)).await;
            assert!(matches!(result[..], [Err(Failure::Unknown(_))]), "{result:?}");
            assert_eq!(connections.get(), 1);
        }
    });
}

/// A server that welcomes everybody and hangs up must not be asked ever faster.
#[test]
fn a_peer_that_hangs_up() {
    run(async {
        let (url, connections) = peer([GREETING, WELCOME, b""]).await;
        let bus = open(&url, &[]).await;
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(2) {
            let result = bus.adapter.publish(vec![message("orders", b"x")], Duration::from_millis(50)).await;
            assert!(matches!(result[..], [Err(Failure::Unknown(_) | Failure::Transient(_))]), "{result:?}");
        }
        assert!(connections.get() <= 30, "{} connections in two seconds", connections.get());
    });
}
