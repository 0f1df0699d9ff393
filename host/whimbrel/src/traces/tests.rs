//! How spans are gathered and shown.

use serde_json::json;
use whimbrel_pubsub::{Random, SpanKind, Trace, TraceParent};

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn tracer() -> (Tracer, mpsc::Receiver<Span>) {
    let environment = Environment::system();
    let dropped = environment.metrics.spans_dropped().expect("a counter");
    Tracer::recording(1.0, environment.clock, Random::seeded(1), dropped)
}

fn end_some(tracer: &Tracer, count: usize) {
    for _ in 0..count {
        let mut trace = Trace { parent: TraceParent::parse(PARENT), state: None };
        tracer.begin(&mut trace, SpanKind::Client, |span| span.set_topic("t")).end(|_| {});
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_soon_after_goes_along() {
    let (tracer, mut spans) = tracer();
    let (stop, mut batch) = (CancellationToken::new(), Vec::new());
    let coming = async {
        end_some(&tracer, 1);
        tokio::time::sleep(GATHER_WAIT / 2).await;
        end_some(&tracer, 2);
    };
    let (gathered, ()) = tokio::join!(gather(&mut spans, &mut batch, &stop), coming);
    assert_eq!((gathered, batch.len()), (true, 3));
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_its_bound_and_what_is_left_waits_for_nobody() {
    let (tracer, mut spans) = tracer();
    let (stop, mut batch) = (CancellationToken::new(), Vec::new());
    end_some(&tracer, BATCH_SPANS_MAX + 7);
    let begun = tokio::time::Instant::now();
    assert!(gather(&mut spans, &mut batch, &stop).await);
    assert_eq!((batch.len(), begun.elapsed()), (BATCH_SPANS_MAX, Duration::ZERO));
    batch.clear();
    stop.cancel();
    assert!(gather(&mut spans, &mut batch, &stop).await);
    assert_eq!(batch.len(), 7);
    batch.clear();
    assert!(!gather(&mut spans, &mut batch, &stop).await);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_last_who_may_have_spans() {
    let (tracer, mut spans) = tracer();
    drop(tracer);
    assert!(!gather(&mut spans, &mut Vec::new(), &CancellationToken::new()).await);
}

#[test]
fn where_traces_go_is_told_without_keys() {
    let check = |url: &str, expect: &str| assert_eq!(without_path(url), expect, "{url}");
    check("http://a:1/v1/traces?key=hunter2", "http://a:1");
    check("https://a:1", "https://a:1");
    check("https://a:1?key=hunter2", "https://a:1");
    check("the standard output", "the standard output");
}

#[tokio::test]
async fn a_span_in_zipkins_format() {
    let (tracer, mut spans) = tracer();
    end_some(&tracer, 1);
    let mut span = spans.try_recv().expect("a span");
    span.name = "pubsub/t".into();
    span.error = Some("no".to_owned());
    span.ended = span.begun;
    let expect = json!({
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "id": format!("{:016x}", span.context.span_id()),
        "parentId": "b7ad6b7169203331",
        "name": "pubsub/t",
        "kind": "CLIENT",
        "timestamp": span.begun.timestamp_micros(),
        "duration": 1,
        "localEndpoint": { "serviceName": "me" },
        "tags": {
            "messaging.system": "pubsub",
            "messaging.destination.name": "t",
            "error": "no",
            "otel.status_code": "ERROR",
        },
    });
    assert_eq!(zipkin::shown(&span, "me"), expect);
    span.parent = None;
    assert_eq!(zipkin::shown(&span, "me").get("parentId"), None);
}
