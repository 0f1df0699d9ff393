//! Opening: credentials, permissions, servers that are not there yet or are something else.

use super::harness::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use whimbrel_sdk::{Adapter, Failure, Status};

/// How long the host waits for `open` by default.
const INIT_TIMEOUT: Duration = Duration::from_secs(5);

async fn refused(url: &str, settings: &[(&str, &str)]) -> Failure {
    let since = Instant::now();
    let Err(failure) = try_open(url, settings).await else { panic!("it opened: {settings:?}") };
    assert!(since.elapsed() < INIT_TIMEOUT, "not in time: {:?}", since.elapsed());
    assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    failure
}

fn with_login(server: &Server, login: &str) -> String {
    format!("nats://{login}@127.0.0.1:{}", server.port)
}

async fn works(bus: &Bus) {
    bus.publish("orders", b"1").await.unwrap();
    let inbox = bus.subscribe("orders", "app", 10).await;
    inbox.ack(&inbox.next().await).await;
    inbox.stop().await;
}

#[test]
fn a_user_and_a_password() {
    run(async {
        let server = Server::with("authorization { users: [{user: app, password: \"p@ss:w\"}] }", "").await;
        let urls = [server.url(), with_login(&server, "app:hunter2"), with_login(&server, "who:hunter2")];
        for url in urls {
            let failure = refused(&url, &[]).await;
            assert!(matches!(&failure, Failure::Unauthorized(text) if text.contains("natsURL")), "{failure:?}");
        }
        works(&open(&with_login(&server, "app:p%40ss%3Aw"), &[]).await).await;
    });
}

#[test]
fn a_token() {
    run(async {
        let server = Server::with("authorization { token: right }", "").await;
        let failure = refused(&server.url(), &[("token", "hunter2")]).await;
        assert!(matches!(&failure, Failure::Unauthorized(text) if text.contains("token")), "{failure:?}");
        works(&open(&server.url(), &[("token", "right")]).await).await;
        works(&open(&with_login(&server, "right"), &[]).await).await;
    });
}

#[test]
fn an_nkey() {
    run(async {
        let (pair, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
        let server = Server::with(&format!("authorization {{ users: [{{nkey: {}}}] }}", pair.public_key()), "").await;
        let failure = refused(&server.url(), &[("seedKey", &other.seed().unwrap())]).await;
        assert!(matches!(&failure, Failure::Unauthorized(text) if text.contains("seedKey")), "{failure:?}");
        works(&open(&server.url(), &[("seedKey", &pair.seed().unwrap())]).await).await;
    });
}

/// A token as NATS has them: signed claims, with the subject's and the issuer's public keys.
fn jwt(issuer: &nkeys::KeyPair, subject: &nkeys::KeyPair, expires: Option<u64>, nats: &Value) -> String {
    use base64::Engine as _;
    let part = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let mut claims =
        json!({"jti": "x", "iat": 1, "iss": issuer.public_key(), "sub": subject.public_key(), "nats": nats});
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let signed = format!("{}.{}", part(json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature))
}

/// `storage`: -1 is any amount, 0 is no JetStream.
fn account_jwt(operator: &nkeys::KeyPair, account: &nkeys::KeyPair, storage: i32) -> String {
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": storage, "disk_storage": storage, "streams": -1, "consumer": -1,
    });
    jwt(operator, account, None, &json!({"type": "account", "version": 2, "limits": limits}))
}

fn user_jwt(account: &nkeys::KeyPair, user: &nkeys::KeyPair, expires: Option<u64>) -> String {
    jwt(account, user, expires, &json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}))
}

/// A server that trusts an operator, who vouches for accounts, which vouch for users.
#[test]
fn a_jwt_and_its_seed() {
    run(async {
        let (operator, account, system) =
            (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_account(), nkeys::KeyPair::new_account());
        let preload =
            |one: &nkeys::KeyPair, storage| format!("{}: {}", one.public_key(), account_jwt(&operator, one, storage));
        let told = [preload(&account, -1), preload(&system, 0)];
        let trusted = jwt(&operator, &operator, None, &json!({"type": "operator", "version": 2}));
        let server = Server::with(
            &format!(
                "operator: {trusted}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}\n}}",
                system.public_key(),
                told.join("\n"),
            ),
            "",
        )
        .await;
        let (user, other, stranger) =
            (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user(), nkeys::KeyPair::new_account());
        let (seed, right) = (user.seed().unwrap(), user_jwt(&account, &user, None));
        for (jwt, seed) in [
            (right.as_str(), other.seed().unwrap()),
            (&user_jwt(&stranger, &user, None), seed.clone()),
            (&user_jwt(&account, &user, Some(2)), seed.clone()),
            ("no.such.thing", seed.clone()),
        ] {
            let failure = refused(&server.url(), &[("jwt", jwt), ("seedKey", &seed)]).await;
            let names = |text: &str| text.contains("jwt") && text.contains("seedKey");
            let tells = |text: &str| text.contains(&seed) || text.contains(jwt);
            let is_named = matches!(&failure, Failure::Unauthorized(text) if names(text) && !tells(text));
            assert!(is_named, "{failure:?}");
        }
        works(&open(&server.url(), &[("jwt", &right), ("seedKey", &seed)]).await).await;
    });
}

#[test]
fn a_signature_that_nobody_asks_for() {
    run(async {
        let server = Server::start().await;
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let failure = refused(&server.url(), &[("seedKey", &seed)]).await;
        assert!(matches!(&failure, Failure::Unauthorized(text) if text.contains("seedKey")), "{failure:?}");
    });
}

#[test]
fn an_invalid_setting() {
    run(async {
        let server = Server::start().await;
        let failure = refused(&server.url(), &[("ackWait", "hunter2")]).await;
        assert!(matches!(&failure, Failure::Invalid(text) if text.contains("ackWait")), "{failure:?}");
    });
}

/// Everything that this adapter needs to publish and to subscribe, and no more.
const RIGHTS: &str = r#"publish: ["orders", "$JS.API.STREAM.NAMES", "$JS.API.CONSUMER.INFO.S.*", "$JS.API.CONSUMER.CREATE.S.>",
"$JS.API.CONSUMER.MSG.NEXT.S.*", "$JS.ACK.S.>"], subscribe: ["_APP.>"]"#;

fn users(rights: &str) -> String {
    format!(
        "authorization {{ users: [{{user: app, password: x, permissions: {{ {rights} }} }}, {{user: all, password: x}}] }}"
    )
}

async fn with_rights(rights: &str) -> Server {
    let server = Server::with(&users(rights), "all").await;
    server.api("STREAM.CREATE.S", serde_json::json!({"name": "S", "subjects": ["orders"], "storage": "file"})).await;
    server
}

#[test]
fn a_user_who_may_do_little() {
    run(async {
        let server = with_rights(RIGHTS).await;
        let url = with_login(&server, "app:x");
        works(&open(&url, &[("inboxPrefix", "_APP")]).await).await;
        let failure = refused(&url, &[]).await;
        assert!(matches!(&failure, Failure::Unauthorized(text) if text.contains("inboxPrefix")), "{failure:?}");
    });
}

#[test]
fn a_missing_permission_is_named() {
    run(async {
        let server = with_rights(r#"publish: ["$JS.API.INFO"], subscribe: [">"]"#).await;
        let bus = open(&with_login(&server, "app:x"), &[]).await;
        let result = bus.publish("orders", b"1").await;
        assert!(matches!(&result, Err(Failure::Unauthorized(text)) if text.contains("orders")), "{result:?}");
        let result = bus.try_subscribe("orders", "app", options(10)).await.err();
        assert!(matches!(&result, Some(Failure::Unauthorized(text)) if text.contains("STREAM.NAMES")), "{result:?}");
    });
}

/// What is missing may show only later: the subscription ends, and says so.
#[test]
fn a_missing_permission_to_pull_ends_the_subscription() {
    run(async {
        let rights = RIGHTS.replace("\"$JS.API.CONSUMER.MSG.NEXT.S.*\",", "");
        let server = with_rights(&rights).await;
        let bus = open(&with_login(&server, "app:x"), &[("inboxPrefix", "_APP")]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        let ended = inbox.why_ended().await;
        assert!(matches!(&ended, Failure::Unauthorized(text) if text.contains("MSG.NEXT")), "{ended:?}");
    });
}

#[test]
fn an_account_or_a_server_without_jetstream() {
    run(async {
        let accounts = "accounts { A { users: [{user: app, password: x}] }, B { jetstream: enabled, users: [{user: all, password: x}] } }";
        let server = Server::with(accounts, "all").await;
        let failure = refused(&with_login(&server, "app:x"), &[]).await;
        assert!(matches!(&failure, Failure::Permanent(text) if text.contains("JetStream")), "{failure:?}");

        let plain = Peer::says(PLAIN_NATS).await;
        let failure = refused(&plain.url, &[]).await;
        assert!(matches!(&failure, Failure::Permanent(text) if text.contains("JetStream")), "{failure:?}");
    });
}

/// A NATS server that has no JetStream answers the question after it so. The inbox is in the question: `%`.
const PLAIN_NATS: &str = "INFO {\"headers\":true,\"max_payload\":1048576,\"jetstream\":false} \r\n";

/// Greets, answers `PING`, and tells of everything else that nobody listens.
struct Peer {
    url: String,
}

impl Peer {
    async fn says(greeting: &'static str) -> Self {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (reading, mut writing) = stream.split();
                let mut lines = BufReader::new(reading).lines();
                writing.write_all(greeting.as_bytes()).await.unwrap();
                while let Ok(Some(line)) = lines.next_line().await {
                    let words: Vec<&str> = line.split(' ').collect();
                    let answer = match words[..] {
                        ["PING"] => "PONG\r\n".to_owned(),
                        ["PUB", _, reply, _] => format!("HMSG {reply} 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"),
                        _ => continue,
                    };
                    writing.write_all(answer.as_bytes()).await.ok();
                }
            }
        });
        Self { url }
    }
}

#[test]
fn tls_where_there_is_none() {
    run(async {
        let server = Server::start().await;
        let url = server.url().replace("nats://", "tls://");
        for (url, settings) in [(url.as_str(), &[][..]), (&server.url(), &[("tlsRequired", "true")])] {
            let failure = refused(url, settings).await;
            assert!(matches!(&failure, Failure::Invalid(text) if text.contains("tlsRequired")), "{failure:?}");
        }
    });
}

#[test]
fn a_server_that_comes_later() {
    run(async {
        let server = Server::start().await;
        server.kill();
        let url = server.url();
        let (opened, ()) = tokio::join!(try_open(&url, &[]), server.restart());
        let bus = opened.unwrap();
        bus.hears("trying", |status| matches!(status, Status::Connecting(why) if why.is_empty())).await;
        bus.is_back().await;
        bus.adapter.ping().await.unwrap();
    });
}

#[test]
fn a_dead_server_is_named_in_time_and_does_not_fill_the_log() {
    run(async {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let since = Instant::now();
        let bus = open(&format!("nats://127.0.0.1:{port}"), &[]).await;
        assert!(since.elapsed() < INIT_TIMEOUT);
        let result = bus.adapter.publish(vec![message("orders", b"x")], Duration::from_secs(1)).await;
        assert!(matches!(&result[..], [Err(Failure::Transient(why))] if why.contains(&port.to_string())), "{result:?}");
        // The first try, and the first failure; later ones fail for the same reason.
        let mut told = 0;
        while tokio::time::timeout(Duration::ZERO, bus.news()).await.is_ok() {
            told += 1;
        }
        assert_eq!(told, 2);
    });
}
