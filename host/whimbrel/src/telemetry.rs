//! The log: structured, on the standard output, as daprd's is.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Starts the log. `RUST_LOG` has the last word about what is shown.
///
/// # Errors
/// The level is none.
pub(crate) fn start(level: &str, json: bool) -> anyhow::Result<()> {
    let level = match level.to_ascii_lowercase().as_str() {
        "fatal" => "error".to_owned(),
        level @ ("trace" | "debug" | "info" | "warn" | "error") => level.to_owned(),
        other => anyhow::bail!("--log-level {other} is none of debug, info, warn, error, fatal"),
    };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},wasmtime=warn,hyper=warn")));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_span_events(FmtSpan::NONE).with_ansi(false);
    // A second start in one process (tests of the library) keeps the first log.
    if json {
        log.json().flatten_event(true).try_init().ok();
    } else {
        log.with_target(false).try_init().ok();
    }
    Ok(())
}
