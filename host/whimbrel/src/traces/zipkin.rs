//! Export to Zipkin: its JSON format, version 2 (https://zipkin.io/zipkin-api/). OpenTelemetry's own exporter for it is
//! deprecated.

use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use opentelemetry_http::HttpClient as _;
use serde_json::{Map, Value, json};
use whimbrel_pubsub::{Span, SpanKind};
use whimbrel_resources::Text;

use super::EXPORT_WAIT;
use super::client::{Client, chain, client};

/// A collector that speaks Zipkin's format.
pub(super) struct Zipkin {
    client: Client,
    endpoint: Uri,
    service: String,
}

impl Zipkin {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// That is no address; the text does not show it.
    pub(super) fn new(endpoint: &Text, service: &str) -> anyhow::Result<Self> {
        let client = client(endpoint.reveal(), EXPORT_WAIT)?;
        Ok(Self { client, endpoint: endpoint.reveal().parse()?, service: service.to_owned() })
    }

    /// Exports a batch.
    ///
    /// # Errors
    /// It was not taken; the text says why.
    pub(super) async fn export(&self, batch: &[Span]) -> Result<(), String> {
        let spans: Vec<Value> = batch.iter().map(|span| shown(span, &self.service)).collect();
        let request = Request::post(self.endpoint.clone()).header(CONTENT_TYPE, "application/json");
        let request = request.body(Value::from(spans).to_string().into()).map_err(|error| error.to_string())?;
        let answer = self.client.send_bytes(request).await.map_err(|error| chain(&*error))?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
    }
}

pub(super) fn shown(span: &Span, service: &str) -> Value {
    let tags = span.attributes.iter().map(|(name, value)| (name.to_string(), Value::from(&**value)));
    let mut tags: Map<String, Value> = tags.collect();
    if let Some(error) = &span.error {
        tags.insert("error".to_owned(), error.as_str().into());
        tags.insert("otel.status_code".to_owned(), "ERROR".into());
    }
    let mut shown = json!({
        "traceId": format!("{:032x}", span.context.trace_id()),
        "id": format!("{:016x}", span.context.span_id()),
        "name": span.name,
        "kind": match span.kind { SpanKind::Client => "CLIENT", SpanKind::Producer => "PRODUCER" },
        "timestamp": span.begun.timestamp_micros(),
        // Zero counts as unknown.
        "duration": (span.ended - span.begun).num_microseconds().unwrap_or(i64::MAX).max(1),
        "localEndpoint": { "serviceName": service },
        "tags": tags,
    });
    if let Some(parent) = &span.parent {
        shown["parentId"] = format!("{:016x}", parent.span_id()).into();
    }
    shown
}
