//! The components that tests use, by what they are for. Called by the tests of plugins; the host finds the bundled
//! adapters by itself.

use std::path::Path;

/// `pubsub.misbehaving`: the in-memory adapter, with faults that its metadata `misbehave` names.
pub(crate) fn misbehaving_adapter() -> &'static Path {
    Path::new(whimbrel_artifacts::MISBEHAVING_ADAPTER.path)
}

/// A handler that does what each event's data says.
pub(crate) fn misbehaving_handler() -> &'static Path {
    Path::new(whimbrel_artifacts::MISBEHAVING_HANDLER.path)
}

/// The redis adapter as a file.
pub(crate) fn redis() -> &'static Path {
    Path::new(whimbrel_artifacts::REDIS.path)
}

/// The in-memory adapter as a file.
pub(crate) fn in_memory() -> &'static Path {
    Path::new(whimbrel_artifacts::IN_MEMORY.path)
}
