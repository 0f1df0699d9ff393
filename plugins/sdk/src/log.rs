//! Lines for the host's log. Never a credential, never a payload.

pub use crate::bindings::adapter::whimbrel::pubsub::log::Level;

/// Writes one line under the plugin's name. Natively it goes to the standard error stream.
pub fn write(level: Level, message: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::adapter::whimbrel::pubsub::log::write(level, message);
    #[cfg(not(target_family = "wasm"))]
    {
        use std::io::Write as _;
        // Nobody can act on a standard error stream that is closed.
        writeln!(std::io::stderr(), "{level:?}: {message}").ok();
    }
}

/// A change of state worth a line.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Something failed and was mended.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// An operator is needed.
pub fn error(message: &str) {
    write(Level::Error, message);
}
