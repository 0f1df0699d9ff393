//! A real server on a free port, spoken to in raw HTTP, with a fake broker behind it.

mod bulk;
mod host;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use whimbrel_pubsub::{Broker, BrokerError, BrokerJob, Message};
use whimbrel_resources::{Origin, Subscription, Text, TopicScopes};

use super::crowd::{FIRST_HEAD_WAIT, IDLE_WAIT, LOOK_AGAIN_AFTER};
use crate::http::body::{PACE_MIN, PIECE_WAIT, WHOLE_WAIT};
use crate::{AppConnection, Doors, Probe};
use host::{Client, Host, Reply, Stored, component, fake_broker, host, host_public, host_with};

/// Longer than anything here takes, so that a test which would hang fails.
const PATIENCE: Duration = Duration::from_secs(60);

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn publish(target: &str) -> String {
    request("POST", target, "content-type: application/json\r\n", r#"{"a":1}"#)
}

async fn check(host: &Host, request: &str, status: u16, code: &str) -> Reply {
    let reply = host.ask(request).await;
    assert_eq!(reply.status, status, "{request}\n{reply:?}");
    let actual =
        if status >= 400 && reply.body.starts_with('{') { reply.json()["errorCode"].clone() } else { "".into() };
    assert_eq!(actual, code, "{request}\n{reply:?}");
    if !code.is_empty() {
        assert_eq!(reply.header("content-type"), Some("application/json"), "{request}");
    }
    reply
}

/// A topic that is denied shows how the path was read, as in the recorded scene "paths, seen through a scope error".
async fn check_topic(host: &Host, path: &str, topic: &str) {
    let reply = check(host, &publish(path), 403, "ERR_PUBSUB_FORBIDDEN").await;
    let message = format!("topic {topic} is not allowed for app id me");
    assert_eq!(reply.json()["message"], message, "{path}");
    assert_eq!(reply.json()["details"][0]["resource_name"], "bus", "{path}");
    assert_eq!(reply.json()["details"][1]["metadata"], json!({ "topic": topic, "error": message }), "{path}");
}

#[tokio::test]
async fn paths_are_read_as_daprd_reads_them() {
    let scopes = TopicScopes { allowed: vec!["none".into()], ..TopicScopes::default() };
    let host = host_with(fake_broker(scopes, |_| Ok(())), |_| {}).await;
    for (path, topic) in [
        ("/v1.0/publish/bus/a%2Fb", "a/b"),
        ("/v1.0/publish/bus/a/b/c", "a/b/c"),
        ("/v1.0/publish/bus/a+b", "a b"),
        ("/v1.0/publish/bus/a%2Bb", "a+b"),
        ("/v1.0/publish/bus/a%252Fb", "a%2Fb"),
        ("/v1.0/publish/bus/a//b", "a/b"),
        ("/v1.0/publish/bus/a/", "a"),
        ("/v1.0/publish/bus/%20", " "),
        ("/v1.0/publish/b%75s/t", "t"),
        ("/v1.0/publish/bus/caf%C3%A9", "café"),
        ("/v1.0/publish/bus/a/../b", "b"),
        ("/v1.0/publish/bus/t?", "t"),
        ("/v1.0/publish/bus/t%23x", "t#x"),
        ("/v1.0/publish/bus/%2F", "/"),
        ("//v1.0/./publish/bus/t", "t"),
    ] {
        check_topic(&host, path, topic).await;
    }
    for path in [
        "/v1.0/publish/bus/",
        "/v1.0/publish/bus",
        "/v1.0/publish//t",
        "/v1.0/publish/",
        "/v1.0/publish",
        "/v1.0/publish/bus/..",
        "/V1.0/publish/bus/t",
        "/v1.0/Publish/bus/t",
        "/v2.0/publish/bus/t",
        "/v1.0-alpha1/publish/bus/t",
        "/",
        "/v1.0",
        "/publish/bus/t",
        "/nope",
    ] {
        check(&host, &publish(path), 404, "ERR_DIRECT_INVOKE").await;
    }
    for path in ["/v1.0/publish/nobus/t", "/v1.0/publish/BUS/t", "/v1.0/publish/bulk/nobus/t"] {
        check(&host, &publish(path), 404, "ERR_PUBSUB_NOT_FOUND").await;
    }
    let malformed = check(&host, &publish("/v1.0/publish/bus/%zz"), 400, "").await;
    assert_eq!(malformed.body, "400 Bad Request");
    assert_eq!(malformed.header("content-type"), Some("text/plain; charset=utf-8"));
    let undecodable = check(&host, &publish("/v1.0/publish/bus/%FF"), 400, "").await;
    assert!(undecodable.body.starts_with("failed to unescape request parameter \"*\""), "{undecodable:?}");
    assert_eq!(host.topics(), Vec::<String>::new());
}

#[tokio::test]
async fn other_methods_are_no_routes() {
    let host = host().await;
    for method in ["GET", "DELETE", "PATCH", "HEAD", "OPTIONS", "ODD"] {
        let code = if method == "HEAD" { "" } else { "ERR_DIRECT_INVOKE" };
        check(&host, &request(method, "/v1.0/publish/bus/t", "", ""), 404, code).await;
    }
    assert_eq!(host.topics(), Vec::<String>::new());
}

#[tokio::test]
async fn a_publish_reaches_the_broker() {
    let host = host().await;
    let reply = host.ask(&request("PUT", "/v1.0/publish/bus/t?metadata.k=v&x=y", "", "hello")).await;
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    assert_eq!(reply.header("content-type"), None);
    assert_eq!(reply.header("traceparent"), Some("00-00000000000000000000000000000000-0000000000000000-00"));
    let stored = host.stored.lock().expect("no test panics with it").clone();
    assert_eq!(stored.len(), 1);
    assert_eq!(&*stored[0].topic, "t");
    assert!(stored[0].metadata.contains(&("k".to_owned(), "v".to_owned())), "{stored:?}");
    assert!(stored[0].data.windows(5).any(|window| window == b"hello"), "{stored:?}");
}

async fn check_trace(host: &Host, sent: &str, expect: &str) {
    let headers = format!("traceparent: {sent}\r\n");
    let reply = host.ask(&request("POST", "/v1.0/publish/bus/t", &headers, "x")).await;
    assert_eq!((reply.status, reply.header("traceparent")), (204, Some(expect)), "{sent}");
}

#[tokio::test]
async fn the_answer_names_the_trace() {
    let host = host().await;
    check_trace(&host, TRACE, TRACE).await;
    check_trace(&host, "garbage", "00-00000000000000000000000000000000-0000000000000000-00").await;
}

#[tokio::test]
async fn baggage_comes_back_or_is_refused() {
    let host = host().await;
    let ask = async |target: &str, baggage: &str| {
        host.ask(&request("POST", target, &format!("baggage: {baggage}\r\n"), "[]")).await
    };
    for target in ["/v1.0/publish/bus/t", "/v1.0/publish/bulk/bus/t"] {
        let (sound, broken) = (ask(target, "a=1;p").await, ask(target, "a").await);
        assert_eq!((sound.status, sound.header("baggage")), (204, Some("a=1;p")), "{target}");
        assert_eq!((broken.status, broken.header("baggage")), (400, None), "{target}");
        assert!(broken.body.starts_with("invalid baggage header: "), "{}", broken.body);
    }
}

async fn check_size(host: &Host, target: &str, bytes: usize, status: u16) {
    let body = "x".repeat(bytes);
    let whole = request("POST", target, "", &body);
    let middle = bytes / 2;
    let (first, second) = body.split_at(middle);
    let chunked = format!(
        "POST {target} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{middle:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        bytes - middle
    );
    for request in [whole, chunked] {
        let reply = host.ask(&request).await;
        assert_eq!(reply.status, status, "{bytes} bytes: {reply:?}");
        if status == 500 {
            let json = reply.json();
            assert_eq!(json["errorCode"], "ERR_PUBSUB_PUBLISH_MESSAGE");
            assert_eq!(json["message"], "error when publishing to topic t in pubsub bus: stream too large");
            assert_eq!(json["details"][1]["metadata"], json!({ "topic": "t", "error": "stream too large" }));
        }
    }
}

#[tokio::test]
async fn a_body_has_a_limit() {
    const LIMIT: usize = 200_000;
    let limited = |doors: &mut Doors| doors.body_bytes_max = Some(LIMIT as u64);
    let host = host_with(fake_broker(TopicScopes::default(), |_| Ok(())), limited).await;
    for bytes in [2, 1024, 64 * 1024, 64 * 1024 + 1, LIMIT - 1, LIMIT] {
        check_size(&host, "/v1.0/publish/bus/t", bytes, 204).await;
    }
    let stored = host.topics().len();
    for bytes in [LIMIT + 1, LIMIT * 10] {
        check_size(&host, "/v1.0/publish/bus/t", bytes, 500).await;
        check_size(&host, "/v1.0/publish/nobus/t", bytes, 404).await;
    }
    assert_eq!(host.topics().len(), stored, "nothing of a body that is too large is stored");
    let unlimited = |doors: &mut Doors| doors.body_bytes_max = None;
    let host = host_with(fake_broker(TopicScopes::default(), |_| Ok(())), unlimited).await;
    check_size(&host, "/v1.0/publish/bus/t", 6_000_000, 204).await;
}

#[tokio::test]
async fn a_client_that_waits_for_permission_to_send_is_told() {
    let host =
        host_with(fake_broker(TopicScopes::default(), |_| Ok(())), |doors| doors.body_bytes_max = Some(10)).await;
    let head = |length| {
        format!(
            "POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut client = host.connect().await;
    client.send(head(5).as_bytes()).await;
    assert_eq!(client.reply(false).await.status, 100);
    client.send(b"hello").await;
    assert_eq!(client.reply(true).await.status, 204);
    assert_eq!(host.ask(&head(11)).await.status, 500);
}

#[tokio::test]
async fn requests_share_a_connection() {
    let host = host().await;
    let mut client = host.connect().await;
    let three: String = ["a", "b", "c"].map(|topic| publish(&format!("/v1.0/publish/bus/{topic}"))).concat();
    client.send(three.as_bytes()).await;
    for _ in 0..3 {
        assert_eq!(client.reply(true).await.status, 204);
    }
    client.send(publish("/v1.0/publish/bus/d").as_bytes()).await;
    assert_eq!(client.reply(true).await.status, 204);
    assert_eq!(host.topics(), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_silent_connection_makes_place_for_another() {
    let host = host_with(fake_broker(TopicScopes::default(), |_| Ok(())), |doors| doors.connections_max = 2).await;
    let (mut speaks, mut silent) = (host.connect().await, host.connect().await);
    silent.send(b"POST /v1.0/pub").await;
    for n in 0..20 {
        speaks.send(publish("/v1.0/publish/bus/known").as_bytes()).await;
        assert_eq!(speaks.reply(true).await.status, 204, "who speaks stays, round {n}");
        let mut comes = host.connect().await;
        comes.send(publish("/v1.0/publish/bus/new").as_bytes()).await;
        // Long before anybody is closed for being silent.
        let reply = timeout(FIRST_HEAD_WAIT / 2, comes.reply(true)).await.expect("there is place for it");
        assert_eq!(reply.status, 204);
        if n == 0 {
            let mut rest = Vec::new();
            timeout(PATIENCE, silent.stream.read_to_end(&mut rest)).await.expect("it has to go").ok();
            assert_eq!(rest, b"");
        }
    }
}

/// A publish of eight bytes that are still to come.
const AWAITED: &str =
    "POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 8\r\n\r\n";

/// Those that have sent half a body go, and those that have had an answer stay.
#[tokio::test]
async fn half_a_body_makes_place_for_a_whole_one() {
    let host = host_with(fake_broker(TopicScopes::default(), |_| Ok(())), |doors| doors.connections_max = 2).await;
    let half = async || {
        let mut client = host.connect().await;
        client.send(AWAITED.as_bytes()).await;
        assert_eq!(client.reply(false).await.status, 100, "the server asks for the body");
        client.send(b"half").await;
        client
    };
    let mut halves = [half().await, half().await];
    let mut whole = Vec::new();
    for half in &mut halves {
        let mut comes = host.connect().await;
        comes.send(publish("/v1.0/publish/bus/t").as_bytes()).await;
        let reply = timeout(PIECE_WAIT / 2, comes.reply(true)).await.expect("there is place for it");
        assert_eq!(reply.status, 204);
        assert!(timeout(PIECE_WAIT / 2, half.is_closed()).await.expect("it has to go"));
        whole.push(comes);
    }
    for client in &mut whole {
        client.send(publish("/v1.0/publish/bus/t").as_bytes()).await;
        assert_eq!(client.reply(true).await.status, 204, "who had an answer stays");
    }
}

#[tokio::test]
async fn whoever_waits_for_an_answer_keeps_its_place() {
    // The first to come has gone by then, for the second.
    let (host, mut busy, mut gone, answer) = busy_host_with(|doors| doors.connections_max = 1).await;
    assert!(gone.is_closed().await);
    let mut other = host.connect().await;
    other.send(publish("/v1.0/publish/bus/other").as_bytes()).await;
    assert!(timeout(10 * LOOK_AGAIN_AFTER, other.reply(true)).await.is_err(), "the house is full");
    answer.notify_one();
    assert_eq!(busy.reply(true).await.status, 204);
    answer.notify_one();
    assert_eq!(other.reply(true).await.status, 204);
}

#[tokio::test]
async fn http2_without_tls() {
    let host = host().await;
    let stream = TcpStream::connect(host.address).await.expect("the server listens");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    let uri = format!("http://{}/v1.0/publish/bus/t", host.address);
    let request = http::Request::post(uri).body(Full::<bytes::Bytes>::from("hello")).expect("a request");
    let reply = sender.send_request(request).await.expect("an answer");
    assert_eq!(reply.status(), 204);
    assert!(reply.into_body().collect().await.expect("a body").to_bytes().is_empty());
    assert_eq!(host.topics(), ["t"]);
}

#[tokio::test]
async fn http2_may_be_switched_off() {
    let host = host_with(fake_broker(TopicScopes::default(), |_| Ok(())), |doors| doors.http2 = false).await;
    assert_eq!(host.ask(&publish("/v1.0/publish/bus/t")).await.status, 204);
    let stream = TcpStream::connect(host.address).await.expect("the server listens");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("nothing is answered yet");
    tokio::spawn(connection);
    let uri = format!("http://{}/v1.0/publish/bus/t", host.address);
    let request = http::Request::post(uri).body(Full::<bytes::Bytes>::from("hello")).expect("a request");
    assert!(sender.send_request(request).await.is_err());
    assert_eq!(host.topics().len(), 1);
}

/// How long a silent client stays connected. Time is paused: it jumps to the next timer whenever all tasks wait.
async fn check_patience(host: &Host, sent: &str, replies: usize, at_least: Duration, at_most: Duration) {
    let mut client = host.connect().await;
    let begin = Instant::now();
    client.send(sent.as_bytes()).await;
    for _ in 0..replies {
        assert_eq!(client.reply(true).await.status, 204);
    }
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.expect("it is closed in good order");
    let waited = begin.elapsed();
    assert!((at_least..=at_most).contains(&waited), "{waited:?} after {sent}");
}

#[tokio::test(start_paused = true)]
async fn silent_clients_are_cut_off() {
    let host = host().await;
    let head = (FIRST_HEAD_WAIT, FIRST_HEAD_WAIT + Duration::from_secs(1));
    check_patience(&host, "", 0, head.0, head.1).await;
    check_patience(&host, "P", 0, head.0, head.1).await;
    check_patience(&host, "POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\n", 0, head.0, head.1).await;
    let idle = (IDLE_WAIT, 2 * IDLE_WAIT + FIRST_HEAD_WAIT);
    check_patience(&host, &publish("/v1.0/publish/bus/t"), 1, idle.0, idle.1).await;
}

/// A client sends a piece of so many bytes every so often, as long as it is let: until it has sent `bytes`, or is
/// answered. Returns the answer's status, and how long it took.
async fn drip(host: &Host, every: Duration, piece: usize, bytes: usize) -> (u16, Duration) {
    let mut client = host.connect().await;
    let begin = Instant::now();
    let head = format!("POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n");
    client.send(head.as_bytes()).await;
    let piece = "x".repeat(piece);
    for _ in 0..bytes / piece.len() {
        client.send(piece.as_bytes()).await;
        // What is answered before all is sent is read by `reply`.
        if timeout(every, client.stream.readable()).await.is_ok() {
            break;
        }
    }
    (client.reply(true).await.status, begin.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_body_must_not_take_for_ever() {
    let host = host().await;
    let (status, took) = drip(&host, PIECE_WAIT - Duration::from_secs(1), 1, 100_000).await;
    assert_eq!(status, 500);
    assert!((WHOLE_WAIT..WHOLE_WAIT + PIECE_WAIT).contains(&took), "a byte now and then: {took:?}");
    let (status, took) = drip(&host, 2 * PIECE_WAIT, 50_000, 100_000).await;
    assert_eq!(status, 500);
    assert!((PIECE_WAIT..WHOLE_WAIT).contains(&took), "half of it and then nothing: {took:?}");
    let pace = usize::try_from(PACE_MIN).expect("a small number");
    let (status, took) = drip(&host, Duration::from_secs(1), pace, 300 * pace).await;
    assert_eq!(status, 204, "slow and steady");
    assert!(took > 4 * WHOLE_WAIT, "{took:?}");
}

#[tokio::test]
async fn headers_have_a_limit() {
    let host = host().await;
    let padded =
        |bytes: usize| request("POST", "/v1.0/publish/bus/t", &format!("x-pad: {}\r\n", "x".repeat(bytes)), "x");
    for (bytes, status) in [(4096, 204), (8300, 431), (200_000, 431)] {
        assert_eq!(host.ask(&padded(bytes)).await.status, status, "{bytes}");
    }
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let host = host().await;
    for garbage in
        ["\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n", "nonsense\r\n\r\n", "POST t HTTP/9.9\r\n\r\n"]
    {
        let mut client = host.connect().await;
        client.send(garbage.as_bytes()).await;
        assert!(client.is_closed().await, "{garbage}");
    }
    let mut gone = host.connect().await;
    gone.send(b"POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf").await;
    drop(gone);
    assert_eq!(host.ask(&publish("/v1.0/publish/bus/t")).await.status, 204);
    assert_eq!(host.topics(), ["t"]);
}

#[tokio::test]
async fn the_token_opens_all_but_health() {
    let token = |doors: &mut Doors| doors.api_token = Some(Text::new("secret".into()));
    let host = host_with(fake_broker(TopicScopes::default(), |_| Ok(())), token).await;
    host.health.set_ready(true);
    for headers in ["", "dapr-api-token: wrong\r\n", "dapr-api-token: secret2\r\n", "dapr-api-token: \r\n"] {
        for target in ["/v1.0/publish/bus/t", "/v1.0/metadata", "/nope"] {
            let reply = check(&host, &request("POST", target, headers, "x"), 401, "").await;
            assert_eq!(reply.body, "invalid api token", "{target} {headers}");
        }
    }
    check(&host, &request("POST", "/v1.0/publish/bus/t", "dapr-api-token: secret\r\n", "x"), 204, "").await;
    check(&host, &request("GET", "/v1.0/healthz", "", ""), 204, "").await;
    assert_eq!(host.topics(), ["t"]);
}

#[tokio::test]
async fn health_follows_the_host() {
    let host = host().await;
    let outbound = request("GET", "/v1.0/healthz/outbound", "", "");
    let health = request("GET", "/v1.0/healthz", "", "");
    check(&host, &outbound, 500, "ERR_OUTBOUND_HEALTH_NOT_READY").await;
    let reply = check(&host, &health, 500, "ERR_HEALTH_NOT_READY").await;
    let missing = "dapr is not ready: [broker bus: restarting (3 of 10): trapped; outbound; app subscriptions]";
    assert_eq!(reply.json()["message"], missing);
    host.health.set_outbound(true);
    check(&host, &outbound, 204, "").await;
    check(&host, &health, 500, "ERR_HEALTH_NOT_READY").await;
    host.health.set_ready(true);
    check(&host, &health, 204, "").await;
    check(&host, &request("GET", "/v1.0/healthz?appid=me", "", ""), 204, "").await;
    check(&host, &request("GET", "/v1.0/healthz?appid=you", "", ""), 500, "ERR_HEALTH_APPID_NOT_MATCH").await;
}

async fn check_broker(error: BrokerError, status: u16, retry_after: Option<&str>) {
    let answer = move |_: &Message| Err(error.clone());
    let host = host_with(fake_broker(TopicScopes::default(), answer), |_| {}).await;
    let reply = check(&host, &publish("/v1.0/publish/bus/t"), status, "ERR_PUBSUB_PUBLISH_MESSAGE").await;
    assert_eq!(reply.header("retry-after"), retry_after, "{reply:?}");
}

#[tokio::test]
async fn what_the_broker_refuses_is_no_success() {
    check_broker(BrokerError::Transient("down".into()), 500, None).await;
    check_broker(BrokerError::Unknown("cut".into()), 500, None).await;
    check_broker(BrokerError::Overloaded, 503, Some("1")).await;
    let throttled = BrokerError::Throttled { message: "slow".into(), retry_after: Duration::from_secs(7) };
    check_broker(throttled, 503, Some("7")).await;
}

#[tokio::test]
async fn metadata_shows_what_runs() {
    let subscription = Subscription {
        name: "s".into(),
        pubsub: "bus".into(),
        topic: "t".into(),
        rules: Vec::new(),
        default_route: Some("/in".into()),
        dead_letter_topic: None,
        metadata: Vec::new(),
        bulk: None,
        scopes: Vec::new(),
        origin: Origin::Declarative,
    };
    let change = |doors: &mut Doors| {
        doors.subscriptions = ArcSwap::from_pointee(vec![Arc::new(subscription)]);
        doors.app = Some(AppConnection {
            address: "127.0.0.1".into(),
            port: 3000,
            protocol: crate::AppProtocol::H2c,
            concurrency_max: None,
            app_id: "me".into(),
            token: None,
            probe: Probe::new("well", Duration::from_secs(90), Duration::from_millis(500), 3).ok(),
        });
        doors.enabled_features = vec!["HotReload"];
        doors.app_health = Some(tokio::sync::watch::Sender::new(false).subscribe());
    };
    let host = host_with(fake_broker(TopicScopes::default(), |_| Ok(())), change).await;
    check(&host, &request("PUT", "/v1.0/metadata/key1", "", "value1"), 204, "").await;
    check(&host, &request("PUT", "/v1.0/metadata/", "", "v"), 404, "ERR_DIRECT_INVOKE").await;
    let reply = check(&host, &request("GET", "/v1.0/metadata", "", ""), 200, "").await;
    let version = env!("CARGO_PKG_VERSION");
    let expect = json!({
        "id": "me",
        "runtimeVersion": version,
        "enabledFeatures": ["HotReload"],
        "components": [{ "name": "bus", "type": "pubsub.fake", "version": "v1", "capabilities": [] }],
        "extended": {
            "daprRuntimeVersion": version, "key1": "value1", "broker.bus": "restarting (3 of 10): trapped",
            "appHealth": "unhealthy",
        },
        "subscriptions": [{
            "pubsubname": "bus", "topic": "t", "rules": [{ "path": "/in" }], "deadLetterTopic": "",
            "type": "DECLARATIVE",
        }],
        "appConnectionProperties": {
            "port": 3000, "protocol": "h2c", "channelAddress": "127.0.0.1",
            "health": {
                "healthCheckPath": "/well", "healthProbeInterval": "1m30s", "healthProbeTimeout": "500ms",
                "healthThreshold": 3,
            },
        },
        "actorRuntime": { "runtimeStatus": "DISABLED", "hostReady": false, "placement": "placement: disconnected" },
    });
    assert_eq!(reply.json(), expect);
}

#[tokio::test]
async fn metadata_values_have_a_bound() {
    let host = host().await;
    let large = "x".repeat(4097);
    check(&host, &request("PUT", "/v1.0/metadata/large", "", &large), 400, "ERR_METADATA_SET").await;
    for key in 0..64 {
        check(&host, &request("PUT", &format!("/v1.0/metadata/k{key}"), "", "v"), 204, "").await;
    }
    check(&host, &request("PUT", "/v1.0/metadata/k64", "", "v"), 400, "ERR_METADATA_SET").await;
    check(&host, &request("PUT", "/v1.0/metadata/k0", "", "again"), 204, "").await;
}

#[tokio::test]
async fn shutdown_is_asked_for() {
    let (gentle, force) = (CancellationToken::new(), CancellationToken::new());
    let tokens = (gentle.clone(), force.clone());
    let change = |doors: &mut Doors| (doors.shutdown, doors.force_shutdown) = tokens;
    let host = host_with(fake_broker(TopicScopes::default(), |_| Ok(())), change).await;
    check(&host, &request("POST", "/v1.0/shutdown", "dapr-force-shutdown: no\r\n", ""), 204, "").await;
    assert!(gentle.is_cancelled() && !force.is_cancelled());
    check(&host, &request("POST", "/v1.0/shutdown", "dapr-force-shutdown: True\r\n", ""), 204, "").await;
    assert!(force.is_cancelled());
}

/// A host whose broker answers only when it is told to, with one publish under way and one idle connection.
async fn busy_host() -> (Host, Client, Client, Arc<Notify>) {
    busy_host_with(|_| {}).await
}

/// The same with doors that are changed.
async fn busy_host_with(change: impl FnOnce(&mut Doors)) -> (Host, Client, Client, Arc<Notify>) {
    let (broker, mut queue) = Broker::new(component(TopicScopes::default()));
    let (taken, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (taken_too, gone) = (Arc::clone(&taken), Arc::clone(&go));
    tokio::spawn(async move {
        while let Some(BrokerJob::Publish(job)) = queue.recv().await {
            taken_too.notify_one();
            gone.notified().await;
            job.reply.send(vec![Ok(()); job.messages.len()]).ok();
        }
    });
    let host = host_with((broker, Stored::default()), change).await;
    let mut idle = host.connect().await;
    idle.send(request("GET", "/nope", "", "").as_bytes()).await;
    idle.reply(true).await;
    let mut busy = host.connect().await;
    busy.send(publish("/v1.0/publish/bus/t").as_bytes()).await;
    taken.notified().await;
    (host, busy, idle, go)
}

#[tokio::test]
async fn a_server_that_stops_finishes_what_is_under_way() {
    let (host, mut busy, mut idle, go) = busy_host().await;
    host.stop.cancel();
    assert!(idle.is_closed().await);
    assert!(!host.served.is_finished());
    go.notify_one();
    assert_eq!(busy.reply(true).await.status, 204);
    assert!(busy.is_closed().await);
    timeout(PATIENCE, host.served).await.expect("the server ends").expect("it does not panic");
    assert!(TcpStream::connect(host.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_ever() {
    let (host, mut busy, _idle, _go) = busy_host().await;
    tokio::time::pause();
    let begin = Instant::now();
    host.stop.cancel();
    host.served.await.expect("it does not panic");
    assert!(begin.elapsed() >= super::DRAIN_WAIT && begin.elapsed() < 2 * super::DRAIN_WAIT, "{:?}", begin.elapsed());
    assert!(busy.is_closed().await);
}

/// Pages of other origins are told so by the missing header; a preflight needs no token.
#[tokio::test]
async fn browsers_are_told_which_pages_may_call() {
    let host = host_with(fake_broker(TopicScopes::default(), |_| Ok(())), |doors| {
        doors.api_token = Some(Text::new("secret".to_owned()));
        doors.origins = crate::Origins::parse("https://a.example");
    })
    .await;
    let asked = "origin: https://a.example\r\naccess-control-request-method: POST\r\n";
    let reply = check(&host, &request("OPTIONS", "/v1.0/publish/bus/t", asked, ""), 200, "").await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://a.example"));
    for (origin, allowed) in [("https://a.example", Some("https://a.example")), ("https://b.example", None)] {
        let headers = format!("origin: {origin}\r\ndapr-api-token: secret\r\n");
        let reply = check(&host, &request("POST", "/v1.0/publish/bus/t", &headers, "x"), 204, "").await;
        assert_eq!((reply.header("access-control-allow-origin"), reply.header("vary")), (allowed, Some("origin")));
    }
    let refused = host.ask(&request("POST", "/v1.0/publish/bus/t", "origin: https://a.example\r\n", "x")).await;
    assert_eq!((refused.status, refused.header("vary")), (401, Some("origin")));
}

#[tokio::test]
async fn the_public_port_has_health_and_metadata_and_nothing_else() {
    let host = host_public(|doors| doors.api_token = Some(Text::new("secret".to_owned()))).await;
    host.health.set_outbound(true);
    check(&host, &request("GET", "/v1.0/healthz/outbound", "", ""), 204, "").await;
    check(&host, &request("GET", "/v1.0/healthz", "", ""), 500, "ERR_HEALTH_NOT_READY").await;
    check(&host, &request("GET", "/v1.0/metadata", "", ""), 200, "").await;
    check(&host, &publish("/v1.0/publish/bus/t"), 404, "ERR_DIRECT_INVOKE").await;
    check(&host, &request("PUT", "/v1.0/metadata/a", "", "b"), 404, "ERR_DIRECT_INVOKE").await;
    check(&host, &request("POST", "/v1.0/shutdown", "", ""), 404, "ERR_DIRECT_INVOKE").await;
}
