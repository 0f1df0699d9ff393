//! Export to the standard output: a line of JSON for each span, beside the log.

use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;
use whimbrel_pubsub::{Span, SpanKind};

/// Writes a batch.
///
/// # Errors
/// Nobody reads any more.
pub(super) async fn export(batch: &[Span], service: &str) -> Result<(), String> {
    let lines: String = batch.iter().map(|span| shown(span, service).to_string() + "\n").collect();
    let mut output = tokio::io::stdout();
    let written = async {
        output.write_all(lines.as_bytes()).await?;
        output.flush().await
    };
    written.await.map_err(|error| error.to_string())
}

fn shown(span: &Span, service: &str) -> Value {
    let attributes = span.attributes.iter().map(|(name, value)| (name.to_string(), Value::from(&**value)));
    json!({ "span": {
        "trace_id": format!("{:032x}", span.context.trace_id()),
        "span_id": format!("{:016x}", span.context.span_id()),
        "parent_span_id": span.parent.map(|parent| format!("{:016x}", parent.span_id())),
        "service": service,
        "name": span.name,
        "kind": match span.kind { SpanKind::Client => "client", SpanKind::Producer => "producer" },
        "start": span.begun.to_rfc3339(),
        "end": span.ended.to_rfc3339(),
        "attributes": attributes.collect::<Map<_, _>>(),
        "error": span.error,
    }})
}
