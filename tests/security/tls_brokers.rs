//! TLS to real brokers of the other kinds, spoken by the host for their sandboxed adapters, as `tls` shows it for Redis.

use anyhow::{Context, Result, ensure};

use crate::harness::app::App;
use crate::harness::brokers::{Kind, Server, topic};
use crate::harness::certificates::Authority;
use crate::harness::{Test, http, resource, run, until};

/// A certificate's common name that every broker can make a user of.
const CLIENT: &str = "guest";

/// The settings of one kind: where it listens, and what it calls the three PEM texts.
struct Spelling {
    kind: Kind,
    plugin: &'static str,
    address: fn(&str) -> (&'static str, String),
    pem: [&'static str; 3],
    more: &'static [(&'static str, &'static str)],
}

const NATS: Spelling = Spelling {
    kind: Kind::Nats,
    plugin: "pubsub.jetstream",
    address: |address| ("natsURL", format!("tls://{address}")),
    pem: ["caCert", "tls_client_cert", "tls_client_key"],
    more: &[("streamCreate", "auto")],
};

const RABBITMQ: Spelling = Spelling {
    kind: Kind::RabbitMq,
    plugin: "pubsub.rabbitmq",
    address: |address| ("connectionString", format!("amqps://guest:guest@{address}")),
    pem: ["caCert", "clientCert", "clientKey"],
    more: &[],
};

const KAFKA: Spelling = Spelling {
    kind: Kind::Kafka,
    plugin: "pubsub.kafka",
    address: |address| ("brokers", address.to_owned()),
    pem: ["caCert", "clientCert", "clientKey"],
    more: &[("authType", "none"), ("initialOffset", "oldest")],
};

impl Spelling {
    async fn start(&self, test: &Test, authority: &Authority, asks: bool) -> Result<Server> {
        let folder = authority.sign_server("127.0.0.1")?.display().to_string();
        let asking: &[&str] = if asks { &["--ask-clients"] } else { &[] };
        Server::start(test, self.kind, &[&["--tls", folder.as_str()], asking].concat()).await
    }

    /// The component, with the PEM texts that are given.
    fn component(&self, server: &Server, pem: [Option<&str>; 3]) -> String {
        let plain = server.address().to_string();
        let (name, address) = (self.address)(server.known("tls_address").unwrap_or(&plain));
        let mut yaml = resource::component("bus", self.plugin, &[&[(name, address.as_str())], self.more].concat());
        yaml = yaml.replace("spec:\n", "spec:\n  initTimeout: 5s\n");
        for (name, text) in self.pem.iter().zip(pem).filter_map(|(name, text)| Some((name, text?))) {
            let lines: String = text.lines().map(|line| format!("      {line}\n")).collect();
            yaml += &format!("  - name: {name}\n    value: |\n{lines}");
        }
        yaml
    }
}

/// Publishes and is delivered to.
async fn works(test: &Test, component: &str) -> Result<()> {
    let (app, topic) = (App::start().await?, topic("tls"));
    let plan = test.host("me")?.resource(component)?.resource(resource::subscription("bus", &topic, "/in", None))?;
    let host = plan.app(&app).start().await?;
    // Not every broker keeps what is published before somebody asked for it.
    until("a message to arrive", async || {
        http::publish(host.http().ok()?, &format!("bus/{topic}"), "1").await.ok()?;
        (!app.seen_on("/in").is_empty()).then_some(())
    })
    .await
}

/// The start fails, says why in these words, and shows no key.
async fn fails(test: &Test, component: &str, words: &[&str]) -> Result<()> {
    let ended = test.host("me")?.resource(component)?.run_to_the_end().await?;
    ensure!(ended.code == Some(1), "it ended with {:?}:\n{}", ended.code, ended.log);
    for word in words {
        ensure!(ended.log.contains(word), "{word:?} is not in\n{}", ended.log);
    }
    ensure!(!ended.log.contains("PRIVATE KEY"), "{}", ended.log);
    Ok(())
}

/// An authority of the resource is trusted, a stranger is refused.
async fn trusts(test: &Test, spelling: &Spelling) -> Result<()> {
    let (authority, other) = (Authority::new(test)?, Authority::new(test)?);
    let server = spelling.start(test, &authority, false).await?;
    works(test, &spelling.component(&server, [Some(&authority.pem), None, None])).await?;
    let stranger = spelling.component(&server, [Some(&other.pem), None, None]);
    fails(test, &stranger, &["bus", "TLS", "certificate"]).await
}

/// A broker that asks gets this side's certificate; without one it refuses; a broken key is named and not shown.
async fn shows_itself(test: &Test, spelling: &Spelling) -> Result<()> {
    let authority = Authority::new(test)?;
    let server = spelling.start(test, &authority, true).await?;
    let me = authority.sign(CLIENT)?;
    let ca = Some(authority.pem.as_str());
    works(test, &spelling.component(&server, [ca, Some(&me.certificate), Some(&me.key)])).await?;
    fails(test, &spelling.component(&server, [ca, None, None]), &["bus"]).await?;
    let broken = me.key.replace('A', "*");
    let component = spelling.component(&server, [ca, Some(&me.certificate), Some(&broken)]);
    let key = spelling.pem.last().context("a name for the key")?;
    fails(test, &component, &["bus", key]).await
}

#[test]
fn jetstream_trusts_the_authority_of_its_resource() -> Result<()> {
    run(async |test| trusts(test, &NATS).await)
}

#[test]
fn jetstream_shows_its_certificate() -> Result<()> {
    run(async |test| shows_itself(test, &NATS).await)
}

#[test]
fn rabbitmq_trusts_the_authority_of_its_resource() -> Result<()> {
    run(async |test| trusts(test, &RABBITMQ).await)
}

#[test]
fn rabbitmq_shows_its_certificate() -> Result<()> {
    run(async |test| shows_itself(test, &RABBITMQ).await)
}

#[test]
fn kafka_trusts_the_authority_of_its_resource() -> Result<()> {
    run(async |test| trusts(test, &KAFKA).await)
}

#[test]
fn kafka_shows_its_certificate() -> Result<()> {
    run(async |test| shows_itself(test, &KAFKA).await)
}
