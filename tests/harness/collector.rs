//! A collector of traces of one test: takes OTLP over HTTP and gRPC, and Zipkin's JSON, on one port, through TLS or
//! not, and remembers what it was sent. Called by the tests of traces.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span as Wire, span::SpanKind};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::certificates::Identity;
use super::until;

/// Length prefix of a gRPC message: a flag and four bytes.
const GRPC_PREFIX_BYTES: usize = 5;

/// A span as it was exported.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// Trace and span, in hexadecimal.
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty: it is the first.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Its message, if it failed.
    pub(crate) error: Option<String>,
    /// `service.name` of whoever exported it.
    pub(crate) service: String,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Over HTTP/2.
    pub(crate) is_grpc: bool,
}

/// A running collector. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    server: JoinHandle<()>,
}

impl Collector {
    /// One that takes everything.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// The same through TLS.
    pub(crate) async fn start_with_tls(identity: &Identity) -> Result<Self> {
        Self::start_with(Some(identity.acceptor()?)).await
    }

    async fn start_with(acceptor: Option<TlsAcceptor>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, received) = (listener.local_addr()?, Arc::default());
        let server = tokio::spawn(serve(listener, acceptor, Arc::clone(&received)));
        Ok(Self { address, received, server })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every span so far, over OTLP.
    pub(crate) fn spans(&self) -> Result<Vec<Span>> {
        let requests: Result<Vec<_>> = self.received().iter().map(spans).collect();
        Ok(requests?.concat())
    }

    /// The spans, once there are so many.
    pub(crate) async fn wait_for(&self, count: usize) -> Result<Vec<Span>> {
        until("the spans to be exported", async || self.spans().ok().filter(|spans| spans.len() >= count)).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, received: Arc<Mutex<Vec<Received>>>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (received, acceptor) = (Arc::clone(&received), acceptor.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&received)));
            let server = auto::Builder::new(TokioExecutor::new());
            // A peer that goes away is no news.
            match acceptor {
                None => server.serve_connection(TokioIo::new(stream), service).await.ok(),
                Some(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    server.serve_connection(TokioIo::new(stream), service).await.ok()
                }
            };
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    received: Arc<Mutex<Vec<Received>>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let is_grpc = head.version == Version::HTTP_2;
    let path = head.uri.path().to_owned();
    received.lock().unwrap_or_else(PoisonError::into_inner).push(Received {
        path,
        headers: head.headers,
        body,
        is_grpc,
    });
    if !is_grpc {
        // An empty message is what OTLP answers, and Zipkin's exporters do not look.
        return Ok(Response::new(Full::default().boxed()));
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from_static(&[0; GRPC_PREFIX_BYTES])).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

fn spans(received: &Received) -> Result<Vec<Span>> {
    let (expected, body) = if received.is_grpc {
        let body = received.body.get(GRPC_PREFIX_BYTES..).context("a gRPC message was cut short")?;
        ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", body)
    } else {
        ("/v1/traces", &received.body[..])
    };
    ensure!(received.path == expected, "{} instead of {expected}", received.path);
    let mut spans = Vec::new();
    for resource in ExportTraceServiceRequest::decode(body)?.resource_spans {
        let service = texts(&resource.resource.unwrap_or_default().attributes).remove("service.name");
        let wires = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(wires.map(|wire| read(wire, service.clone().unwrap_or_default())));
    }
    Ok(spans)
}

fn read(wire: Wire, service: String) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let status = wire.status.unwrap_or_default();
    Span {
        trace: hex(&wire.trace_id),
        id: hex(&wire.span_id),
        parent: hex(&wire.parent_span_id),
        kind: SpanKind::try_from(wire.kind).unwrap_or(SpanKind::Unspecified),
        attributes: texts(&wire.attributes),
        // 2 is the code of a failure.
        error: (status.code == 2).then_some(status.message),
        state: wire.trace_state,
        name: wire.name,
        service,
    }
}

fn texts(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.clone()) {
        Some(any_value::Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}
