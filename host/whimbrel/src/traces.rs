//! The export of spans: takes them out of the data plane's queue and brings them to whoever collects them, several at a time.
//! Begun and ended by `run`.
//!
//! Nobody on the way of a message waits for any of this: a collector that is away costs spans, which are counted and told.

mod client;
mod lines;
mod otlp;
mod zipkin;

use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use whimbrel_pubsub::{Environment, Span, Tracer};
use whimbrel_resources::Tracing;

use otlp::Otlp;
use zipkin::Zipkin;

/// Spans that go in one export.
const BATCH_SPANS_MAX: usize = 512;

/// How long the first span of a batch waits for others.
const GATHER_WAIT: Duration = Duration::from_millis(200);

/// How long one export may take, where nobody says it (OpenTelemetry's own default).
const EXPORT_WAIT: Duration = Duration::from_secs(10);

/// How much longer than that an exporter has to say why it did not come to an end.
const MORE_WAIT: Duration = Duration::from_secs(1);

/// How long the end of the process waits for the last spans.
const FLUSH_WAIT: Duration = Duration::from_secs(3);

/// What brings spans to their collectors.
pub(crate) struct Exporting {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Starts what is configured: who decides which spans there are, and who exports them, if anybody does.
///
/// # Errors
/// An exporter cannot be made; says which, and never with its headers.
pub(crate) fn start(
    tracing: &Tracing,
    app_id: &str,
    environment: &Environment,
) -> anyhow::Result<(Tracer, Option<Exporting>)> {
    if tracing.rate() == 0.0 {
        return Ok((Tracer::off(), None));
    }
    let Some(dropped) = environment.metrics.spans_dropped().filter(|_| tracing.is_exported()) else {
        return Ok((Tracer::default(), None));
    };
    let named = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let service = named.unwrap_or_else(|| app_id.to_owned());
    let mut targets = Vec::new();
    if let Some(otel) = &tracing.otel {
        let otlp = Otlp::new(otel, &service).context("the export of traces to spec.tracing.otel")?;
        targets.push(Target::new(Exporter::Otlp(Box::new(otlp)), otel.endpoint.reveal(), otel.timeout));
    }
    if let Some(endpoint) = &tracing.zipkin {
        let zipkin = Zipkin::new(endpoint, &service).context("the export of traces to spec.tracing.zipkin")?;
        targets.push(Target::new(Exporter::Zipkin(Box::new(zipkin)), endpoint.reveal(), None));
    }
    if tracing.stdout {
        targets.push(Target::new(Exporter::Stdout { service }, "the standard output", None));
    }
    for target in &targets {
        tracing::info!("traces go to {}, sampled at a rate of {}", target.name, tracing.rate());
    }
    let (clock, random) = (environment.clock.clone(), environment.random.clone());
    let (tracer, spans) = Tracer::recording(tracing.rate(), clock, random, dropped.clone());
    let stop = CancellationToken::new();
    let lost = move |reason: &str, spans: usize| {
        let counter = dropped.with_label_values(&[reason]);
        counter.inc_by(spans as u64);
        counter.get()
    };
    let task = tokio::spawn(run(spans, targets, lost, stop.clone()));
    Ok((tracer, Some(Exporting { stop, task })))
}

impl Exporting {
    /// Brings away what is left, as far as there is time.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        if timeout(FLUSH_WAIT, self.task).await.is_err() {
            tracing::warn!("the last traces were not exported in time");
        }
    }
}

/// Exports until it is to stop and the queue is empty. `lost` counts spans by reason, and says how many it has counted.
async fn run(
    mut spans: mpsc::Receiver<Span>,
    mut targets: Vec<Target>,
    lost: impl Fn(&str, usize) -> u64,
    stop: CancellationToken,
) {
    let mut overflown = 0;
    let mut batch = Vec::with_capacity(BATCH_SPANS_MAX);
    while gather(&mut spans, &mut batch, &stop).await {
        let failed = join_all(targets.iter_mut().map(|target| target.export(&batch))).await;
        lost("export", failed.iter().sum());
        batch.clear();
        let total = lost("queue", 0);
        if total > overflown {
            tracing::warn!(spans = total - overflown, "there was no room for traces that waited to be exported");
            overflown = total;
        }
    }
}

/// Fills a batch with what comes within a while of its first span; once it is to stop, with what is there. False: there is
/// nothing, and nothing will come.
async fn gather(spans: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>, stop: &CancellationToken) -> bool {
    let gathering = async {
        if spans.recv_many(batch, BATCH_SPANS_MAX).await > 0 && spans.is_empty() {
            tokio::time::sleep(GATHER_WAIT).await;
        }
    };
    let stopped = tokio::select! {
        biased;
        () = stop.cancelled() => true,
        () = gathering => false,
    };
    if stopped {
        spans.close();
    }
    while batch.len() < BATCH_SPANS_MAX
        && let Ok(span) = spans.try_recv()
    {
        batch.push(span);
    }
    !batch.is_empty()
}

/// Somebody who is told.
struct Target {
    exporter: Exporter,
    /// Where, without what may be a secret.
    name: String,
    /// When an export is given up.
    wait: Duration,
    /// Spans lost since the last export that went well.
    lost: u64,
}

enum Exporter {
    Otlp(Box<Otlp>),
    Zipkin(Box<Zipkin>),
    Stdout { service: String },
}

impl Target {
    fn new(exporter: Exporter, place: &str, wait: Option<Duration>) -> Self {
        Self { exporter, name: without_path(place).to_owned(), wait: wait.unwrap_or(EXPORT_WAIT) + MORE_WAIT, lost: 0 }
    }

    /// Exports a batch, and says how many spans were lost. What cannot be exported is told once, until it goes well again.
    async fn export(&mut self, batch: &[Span]) -> usize {
        let exported = async {
            match &self.exporter {
                Exporter::Otlp(otlp) => otlp.export(batch).await,
                Exporter::Zipkin(zipkin) => zipkin.export(batch).await,
                Exporter::Stdout { service } => lines::export(batch, service).await,
            }
        };
        let exported = timeout(self.wait, exported).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let (to, spans) = (&self.name, batch.len());
        match exported {
            Ok(()) if self.lost > 0 => {
                tracing::info!(%to, lost = self.lost, "traces are exported again");
                self.lost = 0;
                0
            }
            Ok(()) => 0,
            Err(error) => {
                if self.lost == 0 {
                    tracing::warn!(%to, spans, "traces are not exported, and these are lost: {error}");
                } else {
                    tracing::debug!(%to, spans, "traces are not exported: {error}");
                }
                self.lost += spans as u64;
                spans
            }
        }
    }
}

/// Scheme, host and port of a URL: what follows may be a key.
fn without_path(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..].find(['/', '?']).map_or(url, |end| &url[..start + end])
}

#[cfg(test)]
mod tests;
