//! A bound on how many lines one place in the code may write: when a broker is down under load, or somebody floods a topic
//! with rubbish, each message has something to be said about it, and the log would be the next thing to break.
//!
//! Counts what it leaves out, and says so before the next line of the same place. Lines below INFO, and those of calls of
//! the API, are not bounded: who asks for them wants them all.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Lines of one place in one window.
const LINES_MAX: u32 = 50;

/// The window.
const WINDOW: Duration = Duration::from_secs(1);

/// The notice in a log of plain lines.
pub(super) fn in_text(left_out: u64) -> String {
    format!("WARN {left_out} lines like the next one were left out")
}

/// The same in a log of JSON objects.
pub(super) fn in_json(left_out: u64) -> String {
    format!(r#"{{"level":"WARN","message":"lines like the next one were left out","lines":{left_out}}}"#)
}

/// A format whose lines are bounded.
#[derive(Debug)]
pub(super) struct Limited<F> {
    format: F,
    /// Says how many lines were left out, as the format says things.
    notice: fn(u64) -> String,
    /// By place; there are as many as there are lines of code that log.
    places: Mutex<HashMap<Identifier, Place>>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl<F> Limited<F> {
    pub(super) fn new(format: F, notice: fn(u64) -> String) -> Self {
        Self { format, notice, places: Mutex::default() }
    }

    /// Whether a line of this place may be written, and how many were left out before it.
    fn admit(&self, place: Identifier, now: Instant) -> Option<u64> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(place).or_insert(Place { since: now, lines: 0, left_out: 0 });
        if now.duration_since(place.since) >= WINDOW {
            (place.since, place.lines) = (now, 0);
        }
        if place.lines >= LINES_MAX {
            place.left_out += 1;
            return None;
        }
        place.lines += 1;
        Some(std::mem::take(&mut place.left_out))
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == whimbrel_api::CALLS_TARGET {
            return self.format.format_event(context, writer, event);
        }
        match self.admit(metadata.callsite(), Instant::now()) {
            None => Ok(()),
            Some(0) => self.format.format_event(context, writer, event),
            Some(left_out) => {
                writeln!(writer, "{}", (self.notice)(left_out))?;
                self.format.format_event(context, writer, event)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing::Callsite as _;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::Format;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn lines(level: Level, act: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let format = Limited::new(Format::default().with_target(false).without_time(), in_text);
        let log = tracing_subscriber::fmt().with_max_level(level).event_format(format).with_writer(written.clone());
        tracing::subscriber::with_default(log.finish(), act);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_flood_is_cut_and_others_go_on() {
        let lines = lines(Level::INFO, || {
            for n in 0..1000 {
                tracing::warn!(n, "again");
            }
            tracing::warn!("something else");
        });
        assert_eq!(lines.len(), LINES_MAX as usize + 1);
        assert!(lines.last().unwrap().ends_with("something else"));
    }

    #[test]
    fn what_was_left_out_is_told() {
        let limited = Limited::new((), in_text);
        let (place, now) = (
            tracing::callsite!(name: "x", kind: tracing::metadata::Kind::EVENT, fields: ).metadata().callsite(),
            Instant::now(),
        );
        let admitted = (0..1000).filter(|_| limited.admit(place.clone(), now).is_some()).count();
        assert_eq!(admitted, LINES_MAX as usize);
        assert_eq!(limited.admit(place.clone(), now + WINDOW), Some(1000 - u64::from(LINES_MAX)));
        assert_eq!(limited.admit(place, now + WINDOW), Some(0));
        assert!(in_json(950).ends_with(r#","lines":950}"#), "{}", in_json(950));
    }

    #[test]
    fn each_call_of_the_api_has_its_line() {
        let lines = lines(Level::INFO, || {
            for n in 0..1000 {
                tracing::info!(target: whimbrel_api::CALLS_TARGET, n, "again");
            }
        });
        assert_eq!(lines.len(), 1000);
    }

    #[test]
    fn whoever_asks_for_details_gets_them_all() {
        let lines = lines(Level::DEBUG, || {
            for n in 0..1000 {
                tracing::debug!(n, "again");
            }
        });
        assert_eq!(lines.len(), 1000);
    }
}
