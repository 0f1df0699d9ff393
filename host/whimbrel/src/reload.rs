//! What changes while the host runs: files of adapters (`plugins`), and resources (`resources`). Both look when the system
//! says that something happened and every few seconds, both wait until a file stays as it is, and both leave what runs as it
//! is when what they find is no good.

mod changes;
mod plugins;
mod resources;
mod stamp;

use std::time::Duration;

pub(crate) use changes::LOOK_EVERY;
pub(crate) use plugins::{Followers, Replaceable};
pub(crate) use resources::{Declared, Follower};
pub(crate) use stamp::Stamp;

/// How long a file must stay as it is before it is read: whoever writes it may not be done. A burst of changes is one.
const SETTLED_AFTER: Duration = Duration::from_millis(250);

/// How often in a row a file is found changing before it is left for later.
const SETTLE_LOOKS_MAX: u32 = 240;

/// The first wait before something is tried again that failed for a reason that may pass, such as a broker that cannot be
/// reached; it doubles up to [`AGAIN_WAIT_MAX`].
const AGAIN_WAIT_MIN: Duration = Duration::from_secs(10);

/// The longest wait between two tries.
const AGAIN_WAIT_MAX: Duration = Duration::from_secs(300);
