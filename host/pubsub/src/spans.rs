//! Spans: what a publish and each attempt to deliver are told as to a collector of traces (pubsub-behaviour 13.3). Begun by
//! the doors, by a handler's own publish, and by `deliver`; taken out of the queue by whoever exports them.
//!
//! What is not sampled costs a few random bits and 55 bytes to write, and what is not configured nothing. Absent on
//! purpose: waiting. A span for which there is no room is counted and gone.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use prometheus::IntCounterVec;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::environment::{Clock, Random};
use crate::event::Event;
use crate::trace::{Trace, TraceParent};

/// Spans that may wait for whoever exports them.
const QUEUE_SPANS_MAX: usize = 8192;

/// What became of a span whose author was given up before its end, such as a request whose client went away.
const GIVEN_UP: &str = "it was given up";

/// Something that took its time, and what it was part of.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Itself.
    pub context: TraceParent,
    /// What it is part of. `None`: it is the first of its trace.
    pub parent: Option<TraceParent>,
    /// `tracestate` of its trace.
    pub state: Option<String>,
    /// Its part in an exchange.
    pub kind: SpanKind,
    /// What was done.
    pub name: Cow<'static, str>,
    /// When it began.
    pub begun: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// What is known about it.
    pub attributes: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// Why it failed. `None`: it did not.
    pub error: Option<String>,
}

impl Span {
    /// Adds what is known about it.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) {
        self.attributes.push((name.into(), value.into()));
    }

    /// Adds where the message goes to, or comes from.
    pub fn set_topic(&mut self, topic: &str) {
        self.set("messaging.system", "pubsub");
        self.set("messaging.destination.name", topic.to_owned());
    }
}

/// The part of a span in an exchange, as OpenTelemetry names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A call and its answer.
    Client,
    /// One message of several that were published in one call.
    Producer,
}

/// Who decides which spans there are.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Mode);

#[derive(Debug, Clone, Default)]
enum Mode {
    /// Traces are neither made nor handed on: a sampling rate of 0.
    Off,
    /// A trace is handed on as it came: nobody exports.
    #[default]
    HandOn,
    /// Everything has a span of its own; those that are sampled are exported.
    Record(Arc<Recorder>),
}

#[derive(Debug)]
struct Recorder {
    /// A trace is sampled if the lower half of its id, less one bit, is below this (as `TraceIdRatioBased`).
    sampled_below: u64,
    clock: Clock,
    random: Random,
    queue: mpsc::Sender<Span>,
    /// By reason.
    dropped: IntCounterVec,
}

impl Tracer {
    /// Neither makes traces nor hands them on.
    #[must_use]
    pub fn off() -> Self {
        Self(Mode::Off)
    }

    /// Records spans: those whose parent is sampled, and of the rest this part of all traces, from 0 to 1. They come out of
    /// the queue. `dropped` counts by reason: `queue` for those there was no room for.
    #[must_use]
    pub fn recording(rate: f64, clock: Clock, random: Random, dropped: IntCounterVec) -> (Self, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(QUEUE_SPANS_MAX);
        let sampled_below = (rate.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        (Self(Mode::Record(Arc::new(Recorder { sampled_below, clock, random, queue, dropped }))), spans)
    }

    /// Whether traces are neither made nor handed on.
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.0, Mode::Off)
    }

    /// Begins what belongs to `trace`, which becomes the trace of all that follows from it. `describe` is asked only if it
    /// is sampled.
    pub fn begin(&self, trace: &mut Trace, kind: SpanKind, describe: impl FnOnce(&mut Span)) -> Recording {
        match &self.0 {
            Mode::Off => *trace = Trace::default(),
            Mode::HandOn => {}
            Mode::Record(recorder) => {
                let (context, recording) = recorder.begin(trace.parent, || trace.state.clone(), kind, describe);
                trace.parent = Some(context);
                return recording;
            }
        }
        Recording(None)
    }

    /// Begins an attempt to deliver an event, and says what the subscriber is told of its trace: nothing, where the event
    /// says nothing; [`TraceParent::NONE`], where what it says is none.
    pub(crate) fn begin_delivery(&self, event: &Event, topic: &str, attempt: u32) -> (Option<TraceParent>, Recording) {
        match &self.0 {
            Mode::Off => (None, Recording(None)),
            Mode::HandOn => {
                let parent = event.trace_parent();
                (parent.map(|text| TraceParent::parse(text).unwrap_or(TraceParent::NONE)), Recording(None))
            }
            Mode::Record(recorder) => {
                let parent = event.trace_parent().and_then(TraceParent::parse);
                let state = || event.trace_state().map(str::to_owned);
                let (context, recording) = recorder.begin(parent, state, SpanKind::Client, |span| {
                    span.name = format!("pubsub/{topic}").into();
                    span.set_topic(topic);
                    span.set("messaging.message.id", event.id().to_owned());
                    span.set("whimbrel.attempt", attempt.to_string());
                });
                (Some(context), recording)
            }
        }
    }
}

impl Recorder {
    fn begin(
        self: &Arc<Self>,
        parent: Option<TraceParent>,
        state: impl FnOnce() -> Option<String>,
        kind: SpanKind,
        describe: impl FnOnce(&mut Span),
    ) -> (TraceParent, Recording) {
        // Zero is no id.
        let trace_id = parent.map_or_else(|| self.random.bits().max(1), |parent| parent.trace_id());
        let (drawn, span_id) = ((trace_id as u64) >> 1, (self.random.bits() as u64).max(1));
        let is_sampled = parent.is_some_and(|parent| parent.is_sampled()) || drawn < self.sampled_below;
        let context = TraceParent::new(trace_id, span_id, is_sampled);
        if !is_sampled {
            return (context, Recording(None));
        }
        let begun = self.clock.now();
        let (name, attributes) = (Cow::Borrowed(""), Vec::with_capacity(12));
        let mut span =
            Span { context, parent, state: state(), kind, name, begun, ended: begun, attributes, error: None };
        describe(&mut span);
        (context, Recording(Some(Box::new(Begun { span, at: Instant::now(), recorder: Arc::clone(self) }))))
    }
}

/// A span that has begun, if it is sampled. Dropping it ends it as given up.
#[derive(Debug)]
#[must_use]
pub struct Recording(Option<Box<Begun>>);

#[derive(Debug)]
struct Begun {
    span: Span,
    at: Instant,
    recorder: Arc<Recorder>,
}

impl Recording {
    /// Whether it is sampled.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.is_some()
    }

    /// Ends it. `conclude` is asked only if it is sampled.
    pub fn end(mut self, conclude: impl FnOnce(&mut Span)) {
        if let Some(mut begun) = self.0.take() {
            conclude(&mut begun.span);
            begun.end();
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(mut begun) = self.0.take() {
            begun.span.error = Some(GIVEN_UP.to_owned());
            begun.end();
        }
    }
}

impl Begun {
    fn end(self) {
        let Self { mut span, at, recorder } = self;
        // What the clock is set to meanwhile does not matter.
        span.ended = span.begun + TimeDelta::from_std(at.elapsed()).unwrap_or_default();
        if recorder.queue.try_send(span).is_err() {
            recorder.dropped.with_label_values(&["queue"]).inc();
        }
    }
}

#[cfg(test)]
mod tests;
