//! How the process ends.

use std::process::ExitCode;

/// The exit codes, as daprd's where it has one, else those of sysexits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Stopped and drained.
    Drained,
    /// It could not start, or had to stop in a hurry.
    Failed,
    /// The command line is wrong (`EX_USAGE`).
    Usage,
    /// A resource is wrong (`EX_CONFIG`).
    Resources,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Drained => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
            Exit::Resources => 78,
        })
    }
}
