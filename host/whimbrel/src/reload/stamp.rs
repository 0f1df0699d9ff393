//! A file as it was at one moment: enough to see that it has changed, without opening it.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::plugins::Source;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// There is none.
    None,
    /// Part of the program.
    Bundled,
    /// A file: whose content, how long, and when it was written. The times are seconds and nanoseconds.
    File { path: PathBuf, inode: u64, length: u64, modified: (i64, i64), changed: (i64, i64) },
}

impl Stamp {
    /// Looks at it. One `stat`, of what lies on a local disk mostly, so it may be done anywhere.
    pub(crate) fn of(source: Option<Source>) -> Self {
        match source {
            None => Self::None,
            Some(Source::Bundled(_)) => Self::Bundled,
            Some(Source::File(path)) => match std::fs::metadata(&path) {
                Ok(metadata) => Self::File {
                    path,
                    inode: metadata.ino(),
                    length: metadata.len(),
                    modified: (metadata.mtime(), metadata.mtime_nsec()),
                    changed: (metadata.ctime(), metadata.ctime_nsec()),
                },
                Err(_) => Self::None,
            },
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Bundled => f.write_str("built in"),
            Self::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}
