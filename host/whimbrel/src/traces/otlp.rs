//! Export over OTLP, with OpenTelemetry's own exporter: HTTP with Protobuf, or gRPC.

use std::str::FromStr as _;
use std::time::SystemTime;

use anyhow::Context as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use whimbrel_pubsub::Span;
use whimbrel_resources::{Otel, Protocol};

use super::EXPORT_WAIT;
use super::client::{Client, client};

/// A collector that speaks OTLP.
pub(super) struct Otlp {
    exporter: SpanExporter,
    /// Over HTTP, what it sends with.
    client: Option<Client>,
    scope: InstrumentationScope,
}

impl Otlp {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The exporter does not take its settings.
    pub(super) fn new(otel: &Otel, service: &str) -> anyhow::Result<Self> {
        let (endpoint, wait) = (otel.endpoint.reveal(), otel.timeout.unwrap_or(EXPORT_WAIT));
        let mut own = None;
        let exporter = match otel.protocol {
            Protocol::Http => {
                let client = own.insert(client(endpoint, wait)?).clone();
                let headers = otel.headers.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned()));
                let http = SpanExporter::builder().with_http().with_http_client(client);
                let http = http.with_protocol(opentelemetry_otlp::Protocol::HttpBinary).with_headers(headers.collect());
                http.with_endpoint(endpoint).with_timeout(wait).build()
            }
            Protocol::Grpc => {
                let tonic = SpanExporter::builder().with_tonic().with_metadata(metadata(otel)?);
                let tonic = if endpoint.starts_with("https://") {
                    tonic.with_tls_config(ClientTlsConfig::new().with_enabled_roots())
                } else {
                    tonic
                };
                tonic.with_endpoint(endpoint).with_timeout(wait).build()
            }
        };
        // Its own words quote the endpoint, which was looked at before, and may hold a key.
        let mut exporter = exporter.map_err(|_| anyhow::anyhow!("the exporter does not take its settings"))?;
        exporter.set_resource(&Resource::builder().with_service_name(service.to_owned()).build());
        let scope = InstrumentationScope::builder("whimbrel").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { exporter, client: own, scope })
    }

    /// Exports a batch.
    ///
    /// # Errors
    /// It was not taken; the text says why.
    pub(super) async fn export(&self, batch: &[Span]) -> Result<(), String> {
        let data = batch.iter().map(|span| data(span, &self.scope)).collect();
        let exported = self.exporter.export(data).await;
        exported.map_err(|error| match self.client.as_ref().and_then(Client::take_failure) {
            Some(failure) => failure,
            None => error.to_string(),
        })
    }
}

fn metadata(otel: &Otel) -> anyhow::Result<MetadataMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &otel.headers {
        // The value is a secret, so it is not in the error.
        let mut value = HeaderValue::from_str(value.reveal()).ok().with_context(|| format!("the header {name}"))?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_str(name).with_context(|| format!("the header {name}"))?, value);
    }
    Ok(MetadataMap::from_headers(headers))
}

fn data(span: &Span, scope: &InstrumentationScope) -> SpanData {
    let state = span.state.as_deref().and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let (trace, id) = (TraceId::from(span.context.trace_id()), SpanId::from(span.context.span_id()));
    SpanData {
        span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, state),
        parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span_id())),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: match span.kind {
            whimbrel_pubsub::SpanKind::Client => SpanKind::Client,
            whimbrel_pubsub::SpanKind::Producer => SpanKind::Producer,
        },
        name: span.name.clone(),
        start_time: SystemTime::from(span.begun),
        end_time: SystemTime::from(span.ended),
        attributes: span.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone())).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.error.clone().map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}
