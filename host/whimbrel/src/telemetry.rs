//! The log: structured, on the standard output, as daprd's is; and no more of it than a person can read.

mod limit;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FmtSpan, Format, JsonFields};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

use limit::{Limited, in_json, in_text};

/// Starts the log. `RUST_LOG` has the last word about what is shown.
///
/// # Errors
/// The level is none.
pub(crate) fn start(level: &str, json: bool) -> anyhow::Result<()> {
    let filter = filter(level)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_span_events(FmtSpan::NONE).with_ansi(false);
    // A second start in one process (tests of the library) keeps the first log.
    if json {
        let lines = Limited::new(Format::default().json().flatten_event(true).with_ansi(false), in_json);
        log.event_format(lines).fmt_fields(JsonFields::new()).try_init().ok();
    } else {
        let lines = Limited::new(Format::default().with_target(false).with_ansi(false), in_text);
        log.event_format(lines).try_init().ok();
    }
    Ok(())
}

/// The same on the standard error, for a command whose answer goes to the standard output.
///
/// # Errors
/// The level is none.
pub(crate) fn start_quietly(level: &str) -> anyhow::Result<()> {
    let lines = Limited::new(Format::default().with_target(false).with_ansi(false), in_text);
    let log = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(std::io::stderr);
    log.event_format(lines).try_init().ok();
    Ok(())
}

/// The same beside a listener to what the data plane tells of messages, whatever the level.
///
/// # Errors
/// The level is none.
pub(crate) fn start_beside<L>(level: &str, listener: L) -> anyhow::Result<()>
where
    L: Layer<Registry> + Send + Sync,
{
    let lines = Limited::new(Format::default().with_target(false).with_ansi(false), in_text);
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(lines);
    let told = Targets::new().with_target(crate::subscribe::TOLD, Level::TRACE);
    let both = tracing_subscriber::registry().with(listener.with_filter(told)).with(log.with_filter(filter(level)?));
    both.try_init().ok();
    Ok(())
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let level = match level.to_ascii_lowercase().as_str() {
        "fatal" => "error".to_owned(),
        level @ ("off" | "trace" | "debug" | "info" | "warn" | "error") => level.to_owned(),
        other => anyhow::bail!("--log-level {other} is none of trace, debug, info, warn, error, fatal"),
    };
    let default = || EnvFilter::new(if level == "off" { level } else { format!("{level},wasmtime=warn,hyper=warn") });
    Ok(EnvFilter::try_from_default_env().unwrap_or_else(|_| default()))
}
