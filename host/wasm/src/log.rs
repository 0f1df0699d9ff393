//! A guest's lines on their way to the log: cut, and no more of them than a person can read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A longer line is cut, bytes.
const LINE_BYTES_MAX: usize = 2048;

/// Lines of one plugin in one window. What goes beyond is counted and dropped.
const LINES_MAX: u32 = 50;

/// The window.
const WINDOW: Duration = Duration::from_secs(1);

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// The log of one plugin: all its instances share the bound.
#[derive(Debug, Clone)]
pub(crate) struct PluginLog(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    plugin: String,
    window: Instant,
    written: u32,
    dropped: u64,
    /// The last line that was more than news: mostly the reason of what comes next.
    complaint: String,
}

impl PluginLog {
    pub(crate) fn new(plugin: &str) -> Self {
        let window = Instant::now();
        Self(Arc::new(Mutex::new(Lines {
            plugin: plugin.to_owned(),
            window,
            written: 0,
            dropped: 0,
            complaint: String::new(),
        })))
    }

    /// The last warning or error, and forgets it.
    pub(crate) fn take_complaint(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).complaint)
    }

    /// Writes a line, or counts it.
    pub(crate) fn write(&self, level: Level, message: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !lines.admit(Instant::now()) {
            return;
        }
        let message = cut(message);
        if matches!(level, Level::Warn | Level::Error) {
            lines.complaint.clone_from(&message);
        }
        let plugin = lines.plugin.as_str();
        match level {
            Level::Debug => tracing::debug!(target: "plugin", plugin, "{message}"),
            Level::Info => tracing::info!(target: "plugin", plugin, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin, "{message}"),
            Level::Error => tracing::error!(target: "plugin", plugin, "{message}"),
        }
    }
}

impl Lines {
    fn admit(&mut self, now: Instant) -> bool {
        if now.duration_since(self.window) >= WINDOW {
            self.tell();
            (self.window, self.written, self.dropped) = (now, 0, 0);
        }
        self.written += 1;
        if self.written > LINES_MAX {
            self.dropped += 1;
        }
        self.written <= LINES_MAX
    }

    fn tell(&self) {
        if self.dropped > 0 {
            tracing::warn!(target: "plugin", plugin = %self.plugin, lines = self.dropped, "log lines dropped: the plugin floods the log");
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.tell();
    }
}

/// The start of a line, up to a whole character, without line breaks that would forge a line of our own.
pub(crate) fn cut(message: &str) -> String {
    let mut end = message.len().min(LINE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let mut line = message[..end].replace(['\n', '\r'], " ⏎ ");
    if end < message.len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_bound_and_counted() {
        let log = PluginLog::new("p");
        let instances = [log.clone(), log.clone()];
        let now = Instant::now();
        let admit = |turn: usize, now| instances[turn % 2].0.lock().unwrap().admit(now);
        let admitted = (0..1000).filter(|turn| admit(*turn, now)).count();
        assert_eq!(admitted, LINES_MAX as usize, "all instances of a plugin together");
        assert_eq!(log.0.lock().unwrap().dropped, 1000 - u64::from(LINES_MAX));
        assert!(admit(0, now + WINDOW), "the next window starts afresh");
    }

    #[test]
    fn long_lines_are_cut_at_a_character_and_breaks_are_shown() {
        assert_eq!(cut("a\nb"), "a ⏎ b");
        let long = "é".repeat(LINE_BYTES_MAX);
        let short = cut(&long);
        assert!(short.len() <= LINE_BYTES_MAX + '…'.len_utf8() && short.ends_with('…'));
    }
}
