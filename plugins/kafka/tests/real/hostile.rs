//! Addresses where no Kafka answers, or one that cannot be used: told clearly, soon, and not over and over.

use super::harness::*;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whimbrel_kafka::Kafka;
use whimbrel_sdk::{Adapter, Failure, Status, StatusSink};

/// A server that says these things, one for each read, and then hangs up or stays.
async fn peer(says: Vec<Vec<u8>>, stays: bool) -> (String, Rc<Cell<u32>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let connections: Rc<Cell<u32>> = Rc::default();
    let count = Rc::clone(&connections);
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.set(count.get() + 1);
            let says = says.clone();
            tokio::task::spawn_local(async move {
                let mut heard = vec![0; 4096];
                for answer in says {
                    if stream.read(&mut heard).await.unwrap_or(0) == 0 || stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
                while stays && stream.read(&mut heard).await.unwrap_or(0) > 0 {}
            });
        }
    });
    (host, connections)
}

/// Opens for so long, and returns the end of that, or what was told.
async fn opened(host: &str, wait: Duration) -> Result<Result<Kafka, Failure>, Vec<String>> {
    let (sink, mut news) = StatusSink::channel();
    let opening = Kafka::open(config(host, "i", &[]), sink);
    if let Ok(opened) = tokio::time::timeout(wait, opening).await {
        return Ok(opened);
    }
    let mut told = Vec::new();
    while let Ok(Some(status)) = tokio::time::timeout(Duration::ZERO, futures::StreamExt::next(&mut news)).await {
        if let Status::Connecting(why) = status {
            told.push(why);
        }
    }
    Err(told)
}

#[test]
fn another_protocol() {
    run(async {
        let strangers: [(&[u8], &str); 5] = [
            (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "HTTP"),
            (b"-ERR unknown command\r\n", "Redis"),
            (b"\x15\x03\x03\x00\x02\x02\x28", "TLS"),
            (b"\x7f\xff\xff\xff", "Kafka's protocol"),
            (b"\xff\xff\xff\xff", "Kafka's protocol"),
        ];
        for (says, who) in strangers {
            let (host, _) = peer(vec![says.to_vec()], true).await;
            let failure = opened(&host, Duration::from_secs(3)).await.expect("it hangs").expect_err("it opened");
            let names = |text: &str| text.contains("brokers") && text.contains(who);
            assert!(matches!(&failure, Failure::Invalid(text) if names(text)), "{who}: {failure:?}");
        }
    });
}

#[test]
fn nothing_is_said() {
    run(async {
        let (host, connections) = peer(Vec::new(), true).await;
        let told = opened(&host, Duration::from_secs(4)).await.expect_err("it opened");
        assert!(told.iter().any(|why| why.contains("no answer to the greeting")), "{told:?}");
        assert!(connections.get() <= 3, "{}", connections.get());
    });
}

/// A peer that welcomes everybody and hangs up must not be asked ever faster.
#[test]
fn a_peer_that_hangs_up() {
    run(async {
        let (host, connections) = peer(vec![Vec::new()], false).await;
        let told = opened(&host, Duration::from_secs(2)).await.expect_err("it opened");
        assert!(told.iter().any(|why| why.contains("before it said who it is")), "{told:?}");
        assert!((2..30).contains(&connections.get()), "{} connections in two seconds", connections.get());
        assert!(told.len() < 10, "{told:?}");
    });
}

/// As ApiVersions is answered: every request, in every version.
fn versions(correlation: u8) -> Vec<u8> {
    let mut body = vec![0, 0, 0, correlation, 0, 0];
    body.extend(80i32.to_be_bytes());
    for key in 0..80i16 {
        body.extend([key, 0, 99].iter().flat_map(|number| number.to_be_bytes()));
    }
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

/// Whatever a peer says that claims to be Kafka, it is an error, and the component lives.
#[test]
fn nonsense_in_the_right_frame() {
    run(async {
        let answers: [&[u8]; 6] = [b"", b"\0", b"\0\0\0\x01", b"\0\0\0\x01\0\xff\xff", b"\0\0\0\x63\0\0\0\0", &[0; 64]];
        for answer in answers {
            let (host, connections) = peer(vec![versions(1), framed(answer)], true).await;
            let told = opened(&host, Duration::from_secs(1)).await.expect_err("it opened");
            assert!(told.len() < 20, "{told:?}");
            assert!(connections.get() < 20, "{} connections", connections.get());
        }
    });
}

#[test]
fn a_dead_address_does_not_fill_the_log() {
    run(async {
        let told = opened("127.0.0.1:1", Duration::from_secs(1)).await.expect_err("it opened");
        // The first try, and the first failure; later ones fail for the same reason.
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].is_empty() && told[1].contains("127.0.0.1:1"), "{told:?}");
    });
}

/// Brokers say themselves where they are. Where that is wrong, the address is named.
#[test]
fn an_advertised_address_that_leads_nowhere() {
    run(async {
        let server = Server::own(&["--advertise", "127.0.0.1:1"]).await;
        let told = opened(&server.host(), Duration::from_secs(3)).await.expect_err("it opened");
        assert!(told.iter().any(|why| why.contains("127.0.0.1:1:")), "{told:?}");
        assert!(told.len() < 10, "{told:?}");
    });
}

#[test]
fn names_that_kafka_forbids() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let long = "x".repeat(250);
        for topic in ["a b", "ü", "a/b", "..", long.as_str()] {
            let bad = whimbrel_sdk::Message { topic: topic.to_owned(), ..message("x", b"x") };
            let result = bus.adapter.publish(vec![bad], SOON).await.remove(0);
            assert!(matches!(&result, Err(Failure::Invalid(text)) if text.contains("topic name")), "{result:?}");
        }
        bus.publish("fine", b"x").await.unwrap();
    });
}
