//! A peer that is not RabbitMQ, or means harm.

use super::harness::*;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whimbrel_rabbitmq::Rabbitmq;
use whimbrel_sdk::{Adapter, Failure, StatusSink};

/// Answers the first thing said on every connection with these bytes, and each later one with those; none: it hangs up.
pub(crate) async fn peer(first: &'static [u8], then: &'static [u8]) -> (u16, Rc<Cell<u32>>) {
    script(move |turn| Some(if turn == 0 { first.to_vec() } else { then.to_vec() })).await
}

/// Answers each thing said with what the script says for that turn.
async fn script(answer: impl Fn(usize) -> Option<Vec<u8>> + 'static) -> (u16, Rc<Cell<u32>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connections, answer) = (Rc::new(Cell::new(0)), Rc::new(answer));
    let counted = Rc::clone(&connections);
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.set(counted.get() + 1);
            let answer = Rc::clone(&answer);
            tokio::task::spawn_local(async move {
                let mut heard = vec![0; 1 << 16];
                let mut turn = 0;
                while stream.read(&mut heard).await.is_ok_and(|count| count > 0) {
                    let Some(bytes) = answer(turn).filter(|bytes| !bytes.is_empty()) else { break };
                    if stream.write_all(&bytes).await.is_err() {
                        break;
                    }
                    turn += 1;
                }
            });
        }
    });
    (port, connections)
}

fn frame(channel: u8, class: u8, method: u8, arguments: &[u8]) -> Vec<u8> {
    let length = u32::try_from(arguments.len() + 4).unwrap().to_be_bytes();
    [&[1, 0, channel][..], &length, &[0, class, 0, method], arguments, &[0xCE]].concat()
}

/// The three answers of a handshake.
fn handshake(turn: usize) -> Option<Vec<u8>> {
    match turn {
        0 => Some(frame(0, 10, 10, b"\x00\x09\x00\x00\x00\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US")),
        1 => Some(frame(0, 10, 30, &[7, 0xFF, 0, 2, 0, 0, 0, 60])),
        2 => Some(frame(0, 10, 41, &[0])),
        _ => None,
    }
}

#[test]
fn garbage_instead_of_a_welcome() {
    run(async {
        let start = &frame(0, 10, 10, b"\x00\x09\xff\xff\xff\xff\x00\x00\x00\x05PLAIN")[..];
        let garbage: [&[u8]; 7] = [
            b"\0\0\0\0\0\0\0\0",
            b"\x01\x00\x00\x7f\xff\xff\xff",
            b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x63\xce",
            b"\x01\x00\x00\x00\x00\x00\x01\x00\xcd",
            b"\x03\x00\x01\x00\x00\x00\x01x\xce",
            start,
            b"",
        ];
        for bytes in garbage {
            let bytes = bytes.to_vec();
            let shown = bytes.clone();
            let (port, connections) = script(move |_| Some(bytes.clone())).await;
            let (sink, _news) = StatusSink::channel();
            let opening = Rabbitmq::open(config(&url(port), "i", &[("dialTimeout", "200ms")]), sink);
            assert!(tokio::time::timeout(Duration::from_millis(1200), opening).await.is_err(), "it opened: {shown:?}");
            assert!((1..=30).contains(&connections.get()), "{} connections", connections.get());
        }
    });
}

/// After the handshake each of these ends the connection, and nothing else: it is made again, with a growing wait.
#[test]
fn garbage_instead_of_an_answer() {
    run(async {
        let garbage = [
            b"HTTP".to_vec(),
            b"\x01\x00\x01\x7f\xff\xff\xff".to_vec(),
            // An answer on a channel that nobody opened, one that nobody asked for, a body that nobody announced.
            frame(9, 20, 11, &[0; 4]),
            frame(1, 40, 11, &[]).repeat(3),
            b"\x03\x00\x01\x00\x00\x00\x01x\xce".to_vec(),
            b"\x02\x00\x01\x00\x00\x00\x0e\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\xce".to_vec(),
            frame(0, 10, 10, &[0; 10]),
            // A confirmation of what was never sent, and the end of the connection.
            frame(1, 60, 80, &[0xFF; 9]),
            frame(0, 10, 50, b"\x02\x1d\x03bye\x00\x00\x00\x00"),
        ];
        for bytes in garbage {
            let shown = bytes.clone();
            let (port, connections) = script(move |turn| handshake(turn).or_else(|| Some(bytes.clone()))).await;
            let bus = open(&url(port), &[]).await;
            let results = bus.adapter.publish(vec![message("t", b"x")], Duration::from_millis(700)).await;
            assert!(
                matches!(results[..], [Err(Failure::Unknown(_) | Failure::Transient(_))]),
                "{shown:?}: {results:?}"
            );
            assert!(connections.get() <= 30, "{} connections", connections.get());
        }
    });
}

/// A broker that welcomes everybody and hangs up must not be asked ever faster.
#[test]
fn a_peer_that_hangs_up() {
    run(async {
        let (port, connections) = script(handshake).await;
        let bus = open(&url(port), &[]).await;
        let subscribing = bus.try_subscribe("t", "app", with(10, &[]));
        let publishing = async {
            let since = std::time::Instant::now();
            while since.elapsed() < Duration::from_secs(2) {
                let result = bus.adapter.publish(vec![message("t", b"x")], Duration::from_millis(50)).await;
                assert!(matches!(result[..], [Err(Failure::Unknown(_) | Failure::Transient(_))]), "{result:?}");
            }
        };
        tokio::select! { _ = subscribing => {}, () = publishing => {} };
        assert!(connections.get() <= 60, "{} connections in two seconds", connections.get());
    });
}
