//! Every broker keeps what it confirmed, and leaves nothing behind.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;
use crate::harness::certificates::Authority;
use crate::harness::{run, run_within, until};

/// A broker may need half a minute for a start on a machine that builds at the same time.
const STARTS_MAX: Duration = Duration::from_secs(240);

/// What a TLS server says to whoever does not speak TLS, if it says anything.
const TLS_ALERT: u8 = 21;

fn messages(label: &str, count: usize) -> Vec<Stored> {
    let message = |n| Stored { data: format!("{label} {n} \0\u{fffd}").into(), metadata: BTreeMap::new() };
    (0..count).map(message).collect()
}

/// What was read, as far as a test wrote it: without what the broker adds, and without the order among partitions.
fn bytes(stored: &[Stored]) -> Vec<&Bytes> {
    let mut bytes: Vec<_> = stored.iter().map(|message| &message.data).collect();
    bytes.sort();
    bytes
}

fn keeps_what_it_confirmed(kind: Kind) -> Result<()> {
    run_within(STARTS_MAX, async |test| {
        let server = Server::start(test, kind, &[]).await?;
        let (topic, mut expected) = (topic("kept"), messages("before", 200));
        server.prepare(&topic).await?;
        server.write(&topic, &expected).await?;
        server.kill().await?;
        assert!(tokio::net::TcpStream::connect(server.address()).await.is_err(), "a killed broker still answers");
        server.start_again().await?;
        let more = messages("after", 3);
        server.write(&topic, &more).await?;
        expected.extend(more);
        server.stop().await?;
        server.start_again().await?;
        for _ in 0..2 {
            assert_eq!(bytes(&server.read(&topic).await?), bytes(&expected), "reading takes nothing away");
        }
        Ok(())
    })
}

#[test]
fn redis_keeps_what_it_confirmed() -> Result<()> {
    keeps_what_it_confirmed(Kind::Redis)
}

#[test]
fn nats_keeps_what_it_confirmed() -> Result<()> {
    keeps_what_it_confirmed(Kind::Nats)
}

#[test]
fn rabbitmq_keeps_what_it_confirmed() -> Result<()> {
    keeps_what_it_confirmed(Kind::RabbitMq)
}

#[test]
fn kafka_keeps_what_it_confirmed() -> Result<()> {
    keeps_what_it_confirmed(Kind::Kafka)
}

#[test]
fn three_nodes_go_on_without_one() -> Result<()> {
    run_within(STARTS_MAX, async |test| {
        let server = Server::start(test, Kind::Kafka, &["--nodes", "3"]).await?;
        let (topic, mut expected) = (topic("kept"), messages("before", 100));
        server.prepare(&topic).await?;
        server.write(&topic, &expected).await?;
        server.run("kill", &["--node", "2"], &[]).await?;
        let more = messages("after", 100);
        server.write(&topic, &more).await?;
        expected.extend(more);
        assert_eq!(bytes(&server.read(&topic).await?), bytes(&expected));
        Ok(())
    })
}

#[test]
fn a_frozen_broker_says_nothing_until_it_thaws() -> Result<()> {
    run(async |test| {
        let server = Server::start(test, Kind::Redis, &[]).await?;
        server.run("freeze", &[], &[]).await?;
        let mut reading = std::pin::pin!(server.read("t"));
        let early = tokio::time::timeout(Duration::from_millis(500), &mut reading).await;
        assert!(early.is_err(), "a frozen broker answers: {early:?}");
        server.run("thaw", &[], &[]).await?;
        assert_eq!(reading.await?, vec![]);
        Ok(())
    })
}

#[test]
fn speaks_tls_besides_when_asked() -> Result<()> {
    run_within(STARTS_MAX, async |test| {
        let authority = Authority::new(test)?;
        let files = authority.sign_server("127.0.0.1")?.to_str().context("a path in UTF-8")?;
        for kind in [Kind::Redis, Kind::RabbitMq] {
            let server = Server::start(test, kind, &["--tls", files, "--auth", "me:s3cret"]).await?;
            let address = server.known("tls_address").context("no address for TLS")?;
            let mut client = tokio::net::TcpStream::connect(address).await?;
            // Without TLS it would complain in its own protocol: `-` or `A`.
            client.write_all(b"this is no handshake\r\n").await?;
            let greeting = client.read_u8().await;
            assert!(matches!(greeting, Ok(TLS_ALERT) | Err(_)), "{kind:?}: {greeting:?}");
            let topic = topic("kept");
            server.prepare(&topic).await?;
            server.write(&topic, &messages("secret", 2)).await?;
            assert_eq!(server.read(&topic).await?.len(), 2, "the tests' own commands log in");
        }
        Ok(())
    })
}

#[test]
fn nothing_outlives_whom_it_was_started_for() -> Result<()> {
    run(async |test| {
        let folder = test.folder("redis")?;
        let mut owner = Command::new("sleep").arg("600").kill_on_drop(true).spawn()?;
        let id = owner.id().context("the owner has ended")?.to_string();
        let output = broker(Kind::Redis, "start", &folder)?.args(["--owner", &id, "--throw-away"]).output().await?;
        let known: Value = serde_json::from_slice(&printed("start", output)?)?;
        let address: SocketAddr = known["address"].as_str().context("no address")?.parse()?;
        assert!(tokio::net::TcpStream::connect(address).await.is_ok(), "it was started");
        owner.kill().await?;
        until("the broker and its folder to be gone", async || (!folder.exists()).then_some(())).await?;
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it outlives its owner");
        Ok(())
    })
}

#[test]
fn what_is_wrong_is_said() -> Result<()> {
    run(async |test| {
        let nothing = Server {
            kind: Kind::Nats,
            folder: test.folder("nothing")?,
            address: ([127, 0, 0, 1], 1).into(),
            known: Value::Null,
        };
        let error = nothing.read("t").await.err().context("it reads from nowhere")?.to_string();
        assert!(error.contains("no broker was started in"), "{error}");
        let server = Server::shared(Kind::Nats).await?;
        let error = server.read(&topic("unknown")).await.err().context("it reads what is not there")?.to_string();
        assert!(error.contains("no stream covers unknown-"), "{error}");
        Ok(())
    })
}
