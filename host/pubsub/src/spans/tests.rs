//! What is sampled, what belongs to what, and what becomes of spans nobody takes.

use std::time::Duration;

use bytes::Bytes;
use prometheus::{IntCounterVec, Opts};
use tokio::sync::mpsc::Receiver;

use super::*;

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02";

fn tracer(rate: f64) -> (Tracer, Receiver<Span>, IntCounterVec) {
    let dropped = IntCounterVec::new(Opts::new("dropped", "x"), &["reason"]).expect("a counter");
    let (tracer, spans) = Tracer::recording(rate, Clock::System, Random::seeded(1), dropped.clone());
    (tracer, spans, dropped)
}

fn trace(parent: &str) -> Trace {
    Trace { parent: TraceParent::parse(parent), state: Some("a=b".to_owned()) }
}

fn event(parent: Option<&str>) -> Event {
    let member = parent.map(|parent| format!(r#","traceparent":"{parent}","tracestate":"a=b""#));
    let text = format!(r#"{{"id":"e"{}}}"#, member.unwrap_or_default());
    Event::structured(Bytes::from(text), &Vec::new()).expect("an event")
}

/// Under this parent a span is sampled, or is not; in any case it is another one of the same trace.
fn check_sampled(rate: f64, parent: &str, expect: bool) {
    let (tracer, mut spans, _) = tracer(rate);
    let (before, mut trace) = (TraceParent::parse(parent), trace(parent));
    let recording = tracer.begin(&mut trace, SpanKind::Client, |span| span.name = "call".into());
    let context = trace.parent.expect("a context");
    assert_eq!((recording.is_sampled(), context.is_sampled()), (expect, expect), "{rate} {parent}");
    assert!(before.is_none_or(|before| before.trace_id() == context.trace_id()), "{rate} {parent}");
    assert_ne!(before, trace.parent);
    recording.end(|span| span.error = Some("no".to_owned()));
    let span = spans.try_recv().ok();
    assert_eq!(span.is_some(), expect, "{rate} {parent}");
    if let Some(span) = span {
        assert_eq!((span.context, span.parent, span.state.as_deref()), (context, before, Some("a=b")));
        assert_eq!((&*span.name, span.error.as_deref(), span.kind), ("call", Some("no"), SpanKind::Client));
    }
}

#[tokio::test]
async fn a_sampled_parent_is_followed_and_the_rest_is_drawn() {
    check_sampled(1.0, "", true);
    check_sampled(1.0, SAMPLED, true);
    check_sampled(1.0, UNSAMPLED, true);
    check_sampled(1e-9, "", false);
    check_sampled(1e-9, SAMPLED, true);
    check_sampled(1e-9, UNSAMPLED, false);
}

#[tokio::test]
async fn about_the_part_that_is_asked_for() {
    let (tracer, _spans, _) = tracer(0.25);
    let sampled = (0..4000).filter(|_| {
        let mut trace = Trace::default();
        tracer.begin(&mut trace, SpanKind::Client, |_| {}).is_sampled()
    });
    let sampled = sampled.count();
    assert!((900..1100).contains(&sampled), "{sampled}");
}

#[tokio::test]
async fn what_is_drawn_for_a_publish_is_drawn_for_its_delivery() {
    let (tracer, mut spans, _) = tracer(0.5);
    for _ in 0..50 {
        let mut trace = Trace::default();
        let publish = tracer.begin(&mut trace, SpanKind::Client, |_| {});
        let published = trace.parent.expect("a context");
        let (told, delivery) = tracer.begin_delivery(&event(Some(published.as_str())), "t", 1);
        assert_eq!(publish.is_sampled(), delivery.is_sampled());
        let told = told.expect("a context");
        assert_eq!((told.trace_id(), told.is_sampled()), (published.trace_id(), published.is_sampled()));
        assert_ne!(told.span_id(), published.span_id());
        delivery.end(|_| {});
        if let Ok(span) = spans.try_recv() {
            assert_eq!((span.parent, &*span.name), (Some(published), "pubsub/t"));
            publish.end(|_| {});
            spans.try_recv().expect("the publish");
        }
    }
}

fn check_told(tracer: &Tracer, parent: Option<&str>, expect: Option<&str>) {
    let (told, recording) = tracer.begin_delivery(&event(parent), "t", 1);
    assert_eq!(told.as_ref().map(TraceParent::as_str), expect, "{parent:?}");
    assert!(!recording.is_sampled());
}

#[tokio::test]
async fn without_an_exporter_a_trace_is_handed_on_as_it_came() {
    let none = TraceParent::NONE;
    check_told(&Tracer::default(), Some(UNSAMPLED), Some(UNSAMPLED));
    check_told(&Tracer::default(), Some(""), Some(none.as_str()));
    check_told(&Tracer::default(), Some("garbage"), Some(none.as_str()));
    check_told(&Tracer::default(), None, None);
    let mut handed_on = trace(SAMPLED);
    assert!(!Tracer::default().begin(&mut handed_on, SpanKind::Client, |_| {}).is_sampled());
    assert_eq!(handed_on, trace(SAMPLED));
}

#[tokio::test]
async fn switched_off_there_is_none() {
    check_told(&Tracer::off(), Some(SAMPLED), None);
    check_told(&Tracer::off(), None, None);
    let mut gone = trace(SAMPLED);
    assert!(!Tracer::off().begin(&mut gone, SpanKind::Client, |_| {}).is_sampled());
    assert_eq!(gone, Trace::default());
}

#[tokio::test]
async fn what_is_dropped_is_given_up() {
    let (tracer, mut spans, _) = tracer(1.0);
    drop(tracer.begin(&mut Trace::default(), SpanKind::Client, |_| {}));
    assert_eq!(spans.try_recv().expect("a span").error.as_deref(), Some(GIVEN_UP));
}

#[tokio::test]
async fn spans_for_which_there_is_no_room_are_counted_and_nobody_waits() {
    let (tracer, spans, dropped) = tracer(1.0);
    for _ in 0..QUEUE_SPANS_MAX + 3 {
        tracer.begin(&mut Trace::default(), SpanKind::Client, |_| {}).end(|_| {});
    }
    assert_eq!((spans.len(), dropped.with_label_values(&["queue"]).get()), (QUEUE_SPANS_MAX, 3));
}

#[tokio::test(start_paused = true)]
async fn a_span_lasts_as_long_as_what_it_tells_of() {
    let (tracer, mut spans, _) = tracer(1.0);
    let recording = tracer.begin(&mut Trace::default(), SpanKind::Client, |_| {});
    tokio::time::advance(Duration::from_millis(250)).await;
    recording.end(|_| {});
    let span = spans.try_recv().expect("a span");
    assert_eq!((span.ended - span.begun).num_milliseconds(), 250);
}
