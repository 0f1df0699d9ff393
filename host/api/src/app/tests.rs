//! A real app on a free port, and what it gets and what its answers become.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use whimbrel_pubsub::{DeliveryInfo, Event, Handler, TraceParent};
use whimbrel_resources::{Backoff, Matching, Policies, Retry};

use super::*;

/// Longer than anything here takes, so that a test which would hang fails.
const PATIENCE: Duration = Duration::from_secs(60);

const EVENT: &str = r#"{"id":"e1","data":1,"traceparent":"","traceid":""}"#;

fn connection(port: u16, concurrency_max: Option<usize>) -> AppConnection {
    let protocol = AppProtocol::Http;
    AppConnection {
        address: "127.0.0.1".into(),
        port,
        protocol,
        concurrency_max,
        app_id: "me".into(),
        token: None,
        probe: None,
    }
}

fn info(path: &str) -> DeliveryInfo {
    DeliveryInfo {
        pubsub: "bus".into(),
        topic: "t".into(),
        path: path.into(),
        attempt: 1,
        last_attempt: false,
        metadata: Arc::default(),
        trace: Some(TraceParent::NONE),
    }
}

fn event() -> Arc<Event> {
    Arc::new(Event::structured(Bytes::from_static(EVENT.as_bytes()), &Vec::new()).expect("an event"))
}

/// A request as the app saw it.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    headers: http::HeaderMap,
    body: Bytes,
}

/// An app: what it has seen, how many connections it took.
struct FakeApp {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

/// An app that answers each request with what `answer` makes of its path.
async fn app(answer: impl AsyncAnswer) -> FakeApp {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let fake = FakeApp { port, seen: Arc::default(), connections: Arc::default() };
    let (seen, connections) = (Arc::clone(&fake.seen), Arc::clone(&fake.connections));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            let (seen, answer) = (Arc::clone(&seen), answer.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (seen, answer) = (Arc::clone(&seen), answer.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let line = format!("{} {}", head.method, head.uri);
                    seen.lock().expect("no test panics with it").push(Seen { line, headers: head.headers, body });
                    let (status, body) = answer.answer(head.uri.path().to_owned()).await;
                    let mut response = http::Response::new(Full::<Bytes>::from(body));
                    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
                    Ok::<_, hyper::Error>(response)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    fake
}

/// What an app says to a path.
trait AsyncAnswer: Clone + Send + Sync + 'static {
    fn answer(&self, path: String) -> impl Future<Output = (u16, String)> + Send;
}

/// Answers by a table.
impl<F: Fn(&str) -> (u16, String) + Clone + Send + Sync + 'static> AsyncAnswer for F {
    async fn answer(&self, path: String) -> (u16, String) {
        self(&path)
    }
}

/// Answers when it is let, and counts who waits.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    arrived: Arc<Notify>,
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl AsyncAnswer for Gate {
    async fn answer(&self, _path: String) -> (u16, String) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.arrived.notify_one();
        self.open.acquire().await.expect("it stays open").forget();
        self.inside.fetch_sub(1, Ordering::SeqCst);
        (200, String::new())
    }
}

fn gate() -> Gate {
    Gate { open: Arc::new(Semaphore::new(0)), arrived: Arc::default(), inside: Arc::default(), most: Arc::default() }
}

fn run(connection: AppConnection) -> (Handler, JoinHandle<()>) {
    let (handler, queue, batches) = Handler::with_batches();
    (handler, tokio::spawn(App::new(connection, Metrics::default()).run(queue, batches)))
}

async fn deliver(handler: &Handler, path: &str) -> Result<Outcome, HandlerError> {
    tokio::time::timeout(PATIENCE, handler.deliver(event(), info(path))).await.expect("an outcome in time")
}

#[tokio::test]
async fn an_event_arrives_as_it_was_stored() {
    let app = app(|_: &str| (200, String::new())).await;
    let token = Some(Text::new("secret".into()));
    let (handler, _running) = run(AppConnection { token, ..connection(app.port, None) });
    assert_eq!(deliver(&handler, "in//x/?q=1").await, Ok(Outcome::Success));
    let seen = app.seen.lock().expect("no test panics with it").clone();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line, "POST /in/x?q=1");
    assert_eq!(seen[0].body, EVENT);
    let header = |name: &str| seen[0].headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(header("content-length"), Some(EVENT.len().to_string().as_str()));
    assert_eq!(header("pubsubname"), Some("bus"));
    assert_eq!(header("traceparent"), Some("00-00000000000000000000000000000000-0000000000000000-00"));
    assert_eq!(header("dapr-api-token"), Some("secret"));
    assert_eq!(header("whimbrel-attempt"), Some("1"));
    assert_eq!(header("whimbrel-last-attempt"), Some("false"));
    assert_eq!(header("host"), Some(format!("127.0.0.1:{}", app.port).as_str()));
}

#[tokio::test]
async fn answers_become_outcomes_on_one_connection() {
    let table = |path: &str| match path {
        "/ok" => (200, String::new()),
        "/retry" => (200, r#"{"status":"RETRY"}"#.to_owned()),
        "/drop" => (200, r#"{"status":"DROP"}"#.to_owned()),
        "/missing" => (404, "no such route".to_owned()),
        "/moved" => (301, String::new()),
        _ => (500, "x".repeat(100_000)),
    };
    let app = app(table).await;
    let (handler, _running) = run(connection(app.port, None));
    for _ in 0..20 {
        assert_eq!(deliver(&handler, "/ok").await, Ok(Outcome::Success));
        assert_eq!(deliver(&handler, "/retry").await, Ok(Outcome::Retry));
        assert_eq!(deliver(&handler, "/drop").await, Ok(Outcome::Drop));
        assert_eq!(deliver(&handler, "/missing").await, Err(HandlerError::Status(404)));
        assert_eq!(deliver(&handler, "/moved").await, Err(HandlerError::Status(301)));
        assert_eq!(deliver(&handler, "/other").await, Err(HandlerError::Status(500)));
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 1, "connections are kept");
    assert_eq!(app.seen.lock().expect("no test panics with it").len(), 120);
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let app = app(|_: &str| (200, format!("{{\"a\":\"{}\"}}", "x".repeat(3 << 20)))).await;
    let (handler, _running) = run(connection(app.port, None));
    let cut = HandlerError::Failed("the app's answer is larger than 1 MiB".into());
    assert_eq!(deliver(&handler, "/in").await, Err(cut.clone()));
    assert_eq!(deliver(&handler, "/in").await, Err(cut));
    assert_eq!(app.connections.load(Ordering::SeqCst), 2, "a connection with a rest on it is not used again");
}

#[tokio::test]
async fn concurrency_is_bounded() {
    let gate = gate();
    let app = app(gate.clone()).await;
    let (handler, running) = run(connection(app.port, Some(3)));
    let deliveries: Vec<_> = (0..20)
        .map(|_| {
            let handler = handler.clone();
            tokio::spawn(async move { deliver(&handler, "/in").await })
        })
        .collect();
    drop(handler);
    while gate.inside.load(Ordering::SeqCst) < 3 {
        gate.arrived.notified().await;
    }
    gate.open.add_permits(20);
    for delivery in deliveries {
        assert_eq!(delivery.await.expect("it does not panic"), Ok(Outcome::Success));
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), 3);
    tokio::time::timeout(PATIENCE, running).await.expect("it ends with its queue").expect("it does not panic");
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_given_up() {
    let gate = gate();
    let app = app(gate.clone()).await;
    let (handler, running) = run(connection(app.port, Some(1)));
    let hurried = tokio::spawn({
        let handler = handler.clone();
        async move { deliver(&handler, "/in").await }
    });
    gate.arrived.notified().await;
    hurried.abort();
    // The only place is free again although the app has not answered.
    let next = tokio::spawn(async move { deliver(&handler, "/in").await });
    gate.arrived.notified().await;
    gate.open.add_permits(2);
    assert_eq!(next.await.expect("it does not panic"), Ok(Outcome::Success));
    tokio::time::timeout(PATIENCE, running).await.expect("it ends with its queue").expect("it does not panic");
}

#[tokio::test]
async fn an_app_that_is_down_is_a_transport_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let (handler, _running) = run(connection(port, None));
    let outcome = deliver(&handler, "/in").await;
    assert!(matches!(&outcome, Err(HandlerError::Transport(why)) if why.starts_with("cannot connect")), "{outcome:?}");
}

/// Takes a connection, reads one request on it, answers it with `answer`, and closes it.
async fn one_answer(listener: &TcpListener, answer: &str) {
    drop(answer_and_keep(listener, answer).await);
}

/// The same, with the connection still open.
async fn answer_and_keep(listener: &TcpListener, answer: &str) -> TcpStream {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut read = Vec::new();
    while !read.ends_with(EVENT.as_bytes()) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.expect("a request");
        assert_ne!(count, 0, "a whole request");
        read.extend_from_slice(&piece[..count]);
    }
    stream.write_all(answer.as_bytes()).await.expect("it is read");
    stream
}

#[tokio::test]
async fn a_connection_that_the_app_has_closed_is_replaced() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (handler, _running) = run(connection(listener.local_addr().expect("an address").port(), None));
    for _ in 0..20 {
        let (outcome, ()) = tokio::join!(deliver(&handler, "/in"), one_answer(&listener, OK));
        assert_eq!(outcome, Ok(Outcome::Success));
    }
}

/// As every server does with a connection that was idle for long enough, and every app that stops.
#[tokio::test]
async fn a_connection_that_the_app_closes_while_it_is_idle_is_replaced() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let other = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (handler, _running) = run(connection(listener.local_addr().expect("an address").port(), None));
    for _ in 0..20 {
        let (outcome, stream) = tokio::join!(deliver(&handler, "/in"), answer_and_keep(&listener, OK));
        assert_eq!(outcome, Ok(Outcome::Success));
        drop(stream);
        // Whatever the network did before this, the client knows after it.
        let (mut other, taken) =
            tokio::join!(TcpStream::connect(other.local_addr().expect("an address")), other.accept());
        taken.expect("a connection").0.write_all(b"x").await.expect("it is read");
        other.as_mut().expect("a connection").read_u8().await.expect("a byte");
    }
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_is_a_transport_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (handler, _running) = run(connection(listener.local_addr().expect("an address").port(), None));
    for answer in ["", "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let (outcome, ()) = tokio::join!(deliver(&handler, "/in"), one_answer(&listener, answer));
        assert!(matches!(outcome, Err(HandlerError::Transport(_))), "{answer}: {outcome:?}");
    }
}

async fn check_subscriptions(status: u16, body: &'static str, expect: Option<&'static str>) {
    let app = app(move |_: &str| (status, body.to_owned())).await;
    let asked = App::new(connection(app.port, None), Metrics::default());
    let found = asked.subscriptions(&Policies::default().discovery).await;
    assert_eq!(found, Ok(expect.map(|body| Bytes::from_static(body.as_bytes()))), "{status} {body}");
    let seen = app.seen.lock().expect("no test panics with it").clone();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line, "GET /dapr/subscribe");
    assert_eq!(seen[0].headers.get("dapr-app-id").map(HeaderValue::as_bytes), Some(&b"me"[..]));
}

#[tokio::test]
async fn the_app_is_asked_for_its_subscriptions() {
    check_subscriptions(200, "[1]", Some("[1]")).await;
    check_subscriptions(200, "", None).await;
    check_subscriptions(404, "nothing", None).await;
    check_subscriptions(500, "[]", None).await;
}

/// How often an app that cuts every connection is asked, and for how long.
async fn check_asking(policy: &Policy) -> (usize, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let app = App::new(connection(listener.local_addr().expect("an address").port(), None), Metrics::default());
    let refusals = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refusals);
    let cutting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let begun = Instant::now();
    assert!(matches!(app.subscriptions(policy).await, Err(DiscoveryError::Transport(_))));
    cutting.abort();
    (refusals.load(Ordering::SeqCst), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn asking_is_tried_again_and_given_up() {
    let mut policy = Policies::default().discovery;
    let (times, lasted) = check_asking(&policy).await;
    assert_eq!(times, 4);
    assert!((1_125..=2_750).contains(&lasted.as_millis()), "{lasted:?}");
    let mut follow = |wait: u64, max_retries: Option<u32>| {
        let backoff = Backoff::Constant(Duration::from_secs(wait));
        policy.retry = Some(Retry { backoff, max_retries, matching: Matching::default() });
        policy.clone()
    };
    let (times, lasted) = check_asking(&follow(2, Some(5))).await;
    assert_eq!((times, lasted.as_secs()), (6, 10));
    // Without an end, but for ours.
    let (times, lasted) = check_asking(&follow(60, None)).await;
    assert_eq!((times, lasted.as_secs()), (16, 15 * 60));
}

#[tokio::test]
async fn the_app_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let app = App::new(connection(port, None), Metrics::default());
    assert!(app.wait_reachable(&CancellationToken::new()).await);
    drop(listener);
    let stop = CancellationToken::new();
    let waiting = tokio::spawn({
        let (app, stop) = (Arc::clone(&app), stop.clone());
        async move { app.wait_reachable(&stop).await }
    });
    stop.cancel();
    assert!(!waiting.await.expect("it does not panic"));
}
