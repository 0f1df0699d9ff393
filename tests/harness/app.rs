//! An app of one test: an HTTP server that answers as planned and remembers what it was sent. Called by the tests of
//! delivery and of the API.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::ledger::Subscriber;
use super::until;

/// What the app does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Answers with a status and a body.
    With(u16, String),
    /// The same, after a while.
    After(Duration, u16, String),
    /// Answers a batch: each of its entries has this status.
    Each(String),
    /// The same, with the status that an entry's data is.
    AsAsked,
    /// Keeps the connection open and never answers.
    Never,
    /// Closes the connection without an answer.
    Cut,
}

impl Reply {
    /// 200 and no body.
    pub(crate) fn ok() -> Self {
        Self::With(200, String::new())
    }

    /// A status and no body.
    pub(crate) fn status(status: u16) -> Self {
        Self::With(status, String::new())
    }

    /// 200 and a JSON object with this `status`.
    pub(crate) fn word(word: &str) -> Self {
        Self::With(200, format!(r#"{{"status":"{word}"}}"#))
    }
}

/// One request the app was sent, other than the question for its subscriptions.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The method.
    pub(crate) method: String,
    /// The path, with its query.
    pub(crate) path: String,
    /// Header fields, names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// The whole body.
    pub(crate) body: Bytes,
    /// When.
    pub(crate) at: Instant,
}

impl Seen {
    /// The event.
    pub(crate) fn event(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).context("the app was sent something that is not JSON")
    }

    /// The `data` of each event, where it is a batch.
    pub(crate) fn batch(&self) -> Result<Vec<serde_json::Value>> {
        let batch = self.event()?;
        let entries = batch["entries"].as_array().context("the app was sent something that is no batch")?;
        Ok(entries.iter().map(|entry| entry["event"]["data"].clone()).collect())
    }

    /// The event's `data`.
    pub(crate) fn data(&self) -> Result<serde_json::Value> {
        Ok(self.event()?["data"].take())
    }
}

/// A running app. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct App {
    address: SocketAddr,
    speaks: Speaks,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    subscribe: Mutex<String>,
    plans: Mutex<HashMap<String, Vec<Reply>>>,
    counted: Mutex<HashMap<String, Arc<Subscriber>>>,
    asked: Mutex<Vec<Seen>>,
    batched: Mutex<HashMap<String, Arc<Subscriber>>>,
    seen: Mutex<Vec<Seen>>,
}

/// What an app speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speaks {
    /// HTTP/1.1.
    Http,
    /// The same through TLS, with a certificate that nobody has signed.
    Https,
    /// HTTP/2 without TLS, and nothing else.
    H2c,
}

/// Where it is asked for its subscriptions.
const QUESTION: &str = "/dapr/subscribe";

impl App {
    /// An app that answers everything with 200 and subscribes to nothing by itself.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_speaking(Speaks::Http).await
    }

    /// The same in another protocol.
    pub(crate) async fn start_speaking(speaks: Speaks) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        "[]".clone_into(&mut lock(&shared.subscribe));
        let server = Some(tokio::spawn(serve(listener, speaks, Arc::clone(&shared))));
        Ok(Self { address, speaks, shared, server })
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it answers to `GET /dapr/subscribe`, unless a plan of that path says otherwise.
    pub(crate) fn subscribe(&self, answer: &str) {
        answer.clone_into(&mut lock(&self.shared.subscribe));
    }

    /// The questions for its subscriptions so far.
    pub(crate) fn asked(&self) -> Vec<Seen> {
        lock(&self.shared.asked).clone()
    }

    /// What it answers on a path: one after the other, the last one for ever.
    pub(crate) fn plan(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut replies: Vec<_> = replies.into_iter().collect();
        replies.reverse();
        lock(&self.shared.plans).insert(path.into(), replies);
    }

    /// Answers on a path are the ledger's: an event is in its log before it is answered with success.
    pub(crate) fn count(&self, path: &str, subscriber: &Arc<Subscriber>) {
        lock(&self.shared.counted).insert(path.into(), Arc::clone(subscriber));
    }

    /// The same of batches.
    pub(crate) fn count_batches(&self, path: &str, subscriber: &Arc<Subscriber>) {
        lock(&self.shared.batched).insert(path.into(), Arc::clone(subscriber));
    }

    /// What it was sent so far, oldest first.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// What it was sent on one path so far.
    pub(crate) fn seen_on(&self, path: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path == path).collect()
    }

    /// Takes what it was sent so far.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.shared.seen))
    }

    /// Waits until it was sent so many on a path, and returns them.
    pub(crate) async fn wait_for(&self, count: usize, path: &str) -> Result<Vec<Seen>> {
        let what = format!("{count} requests on {path}");
        let enough = async || Some(self.seen_on(path)).filter(|seen| seen.len() >= count);
        match until(&what, enough).await {
            Ok(seen) => Ok(seen),
            Err(late) => bail!("{late}; there were {}", self.seen_on(path).len()),
        }
    }

    /// Ends it as a crash would: its port closes, its connections break.
    pub(crate) async fn crash(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // An aborted task ends with an error that says so.
            server.await.ok();
        }
    }

    /// Starts it again on the same port.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        let listener = until("the app's port to be free again", async || TcpListener::bind(self.address).await.ok());
        self.server = Some(tokio::spawn(serve(listener.await?, self.speaks, Arc::clone(&self.shared))));
        Ok(())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

async fn serve(listener: TcpListener, speaks: Speaks, shared: Arc<Shared>) {
    let acceptor = matches!(speaks, Speaks::Https).then(unsigned);
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { answer(request, &shared).await }
            });
            let server = http1::Builder::new().timer(TokioTimer::new()).clone();
            // A peer that goes away is no news.
            match (speaks, acceptor) {
                (Speaks::H2c, _) => {
                    let server = http2::Builder::new(TokioExecutor::new());
                    server.serve_connection(TokioIo::new(stream), service).await.ok();
                }
                (_, None) => {
                    server.serve_connection(TokioIo::new(stream), service).await.ok();
                }
                (_, Some(acceptor)) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    server.serve_connection(TokioIo::new(stream), service).await.ok();
                }
            }
        });
    }
}

/// TLS with a certificate that nobody has signed.
fn unsigned() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["app".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the usual versions").with_no_client_auth();
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key).expect("a pair");
    TlsAcceptor::from(Arc::new(config))
}

/// Why a connection is closed without an answer.
#[derive(Debug)]
struct CutOnPurpose;

impl std::fmt::Display for CutOnPurpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for CutOnPurpose {}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Full<Bytes>>, CutOnPurpose> {
    // Over HTTP/2 an address has its authority, too.
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let method = request.method().to_string();
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
    let headers = headers.collect();
    let body = request.into_body().collect().await.map_err(|_| CutOnPurpose)?.to_bytes();
    let counted = lock(&shared.counted).get(&path).cloned();
    let batched = lock(&shared.batched).get(&path).cloned();
    let batch = body.clone();
    let reply = if let Some(subscriber) = counted {
        subscriber.take(&body).await
    } else if let Some(subscriber) = batched {
        subscriber.take_batch(&body).await
    } else {
        let seen = Seen { method, path: path.clone(), headers, body, at: Instant::now() };
        let list = if path == QUESTION { &shared.asked } else { &shared.seen };
        lock(list).push(seen);
        next_reply(shared, &path)
    };
    match reply {
        Reply::With(status, body) => Ok(respond(status, body)),
        Reply::AsAsked => {
            Ok(respond(200, statuses(&batch, |entry| entry["event"]["data"].as_str().unwrap_or_default().to_owned())))
        }
        Reply::Each(word) => Ok(respond(200, statuses(&batch, |_| word.clone()))),
        Reply::After(wait, status, body) => {
            tokio::time::sleep(wait).await;
            Ok(respond(status, body))
        }
        Reply::Never => match std::future::pending::<Infallible>().await {},
        Reply::Cut => Err(CutOnPurpose),
    }
}

fn next_reply(shared: &Shared, path: &str) -> Reply {
    let mut plans = lock(&shared.plans);
    let Some(replies) = plans.get_mut(path) else {
        return if path == QUESTION { Reply::With(200, lock(&shared.subscribe).clone()) } else { Reply::ok() };
    };
    let next = if replies.len() > 1 { replies.pop() } else { replies.last().cloned() };
    next.unwrap_or_else(Reply::ok)
}

/// The answer to a batch, from what is said of each of its entries.
fn statuses(batch: &[u8], say: impl Fn(&serde_json::Value) -> String) -> String {
    let batch: serde_json::Value = serde_json::from_slice(batch).unwrap_or_default();
    let entries = batch["entries"].as_array().into_iter().flatten();
    let statuses = entries.map(|entry| serde_json::json!({"entryId": entry["entryId"], "status": say(entry)}));
    serde_json::json!({"statuses": statuses.collect::<Vec<_>>()}).to_string()
}

fn respond(status: u16, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
