//! Many waiting messages are drained to an HTTP app, against a plain client that posts as many bodies to the same app.
//!
//! The app answers nothing until all messages wait; then the clock runs until it has answered the last.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::redis_server::RedisServer;
use crate::{cpu, http, load, table};

const MESSAGES: u64 = 200_000;

/// They are drained in so many rounds: all at once are more than the in-memory broker may hold.
const ROUNDS: u64 = 4;

/// Messages in one publish.
const EVENTS: usize = 100;

/// Requests under way at the same time, at both: the host's default of unsettled deliveries.
const AT_ONCE: usize = 100;

/// An app that counts what it is sent, and may be made to wait.
struct App {
    port: u16,
    open: watch::Sender<bool>,
    count: AtomicU64,
    done: Notify,
}

impl App {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app =
            Arc::new(Self { port, open: watch::Sender::new(true), count: AtomicU64::new(0), done: Notify::new() });
        let shared = Arc::clone(&app);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let app = Arc::clone(&shared);
                let service = service_fn(move |request| Arc::clone(&app).answer(request));
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        app
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let is_event = request.uri().path() == "/in";
        request.into_body().collect().await.unwrap();
        if !is_event {
            return Ok(Response::new(Full::from("[]")));
        }
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        if (self.count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(MESSAGES / ROUNDS) {
            self.done.notify_one();
        }
        Ok(Response::new(Full::default()))
    }
}

pub fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    table::head(
        "Drain of 200,000 messages of 1 KiB to an HTTP app, 100 at a time, host pinned to one core, app and broker to the other",
        &["from", "CPU a message", "messages/s", "CPU, to the plain client"],
    );
    let (cpu, rate) = runtime.block_on(plain());
    let base = cpu.as_secs_f64();
    let row = |name: &str, cpu: Duration, rate: f64| {
        let ratio = format!("{:.2}", cpu.as_secs_f64() / base);
        table::row(&[name.to_owned(), table::micros(cpu), format!("{rate:.0}"), ratio]);
    };
    row("plain client", cpu, rate);
    let queue = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: bus }\nspec:\n  type: pubsub.in-memory\n  version: v1\n  metadata:\n    - { name: mode, value: queue }\n    - { name: maxQueueMessages, value: \"250000\" }\n    - { name: maxQueueBytes, value: \"134217728\" }\n";
    let (cpu, rate) = runtime.block_on(drained(queue));
    row("in-memory (queue)", cpu, rate);
    let redis = RedisServer::start();
    let streams = http::redis_resource(&redis).replace("\"10000\"", "\"1000000\"");
    let (cpu, rate) = runtime.block_on(drained(&streams));
    row("Redis", cpu, rate);
}

/// CPU of the host a message, and messages a second.
async fn drained(component: &str) -> (Duration, f64) {
    let app = App::start().await;
    let subscription = "---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: { name: all }\nspec: { pubsubname: bus, topic: t, routes: { default: /in } }\n";
    let resources = format!("{component}{subscription}");
    let port = app.port.to_string();
    // Started elsewhere, for the app must answer meanwhile.
    let host = tokio::task::spawn_blocking(move || http::host_for(&resources, &["--app-port", &port])).await.unwrap();
    let request = load::bulk_request(&host.address, "t", EVENTS);
    let (mut cpu, mut wall) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        app.open.send_replace(false);
        load::send(&request, &host.address, (MESSAGES / ROUNDS) as usize / EVENTS).await;
        let (used, lasted) = measured(&app, host.server.pid(), 1).await;
        (cpu, wall) = (cpu + used, wall + lasted);
    }
    each(cpu, wall)
}

/// The same for a plain client, which posts the bodies that the app would be sent.
async fn plain() -> (Duration, f64) {
    let app = App::start().await;
    let log = tempfile::NamedTempFile::new().unwrap().into_temp_path().to_path_buf();
    let client = cpu::start(&["post", &app.port.to_string()], &log, &[]);
    app.open.send_replace(false);
    let (cpu, wall) = measured(&app, client.pid(), ROUNDS).await;
    each(cpu, wall)
}

/// CPU of a process and the time until the app has answered so many rounds.
async fn measured(app: &App, process: u32, rounds: u64) -> (Duration, Duration) {
    let (before, begun) = (cpu::of(process), Instant::now());
    app.open.send_replace(true);
    for _ in 0..rounds {
        app.done.notified().await;
    }
    (cpu::of(process) - before, begun.elapsed())
}

/// For one message, and messages a second.
fn each(cpu: Duration, wall: Duration) -> (Duration, f64) {
    (cpu.div_f64(MESSAGES as f64), MESSAGES as f64 / wall.as_secs_f64())
}

/// The plain client.
pub fn child(arguments: &[String]) {
    let [port] = arguments else { panic!("{arguments:?}") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let body = Bytes::from(vec![b'x'; 1300]);
        let post = |_| {
            let request = Request::post(format!("http://127.0.0.1:{port}/in"));
            let request = request.header("content-type", "application/cloudevents+json");
            let answered = client.request(request.body(Full::from(body.clone())).unwrap());
            async move { answered.await.unwrap().into_body().collect().await.unwrap() }
        };
        futures::stream::iter(0..MESSAGES).map(post).buffer_unordered(AT_ONCE).for_each(async |_| {}).await;
        // Its CPU is read before it ends.
        std::future::pending::<()>().await;
    });
}
