//! Why a file is not a plugin that can run. Everything that happens later is a worker's end, and answered as such.

use std::path::PathBuf;

/// Why a component could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// It is a core module.
    #[error("{}: this is a core WebAssembly module, not a component; build it for wasm32-wasip2, or encode it with `wasm-tools component new`", path.display())]
    CoreModule {
        /// The file.
        path: PathBuf,
    },
    /// It is not WebAssembly, or is cut off or broken.
    #[error("{}: not a valid WebAssembly component: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the validator said.
        reason: String,
    },
    /// It is a component of another world.
    #[error("{}: does not fit the world `{world}`: {reason}", path.display())]
    World {
        /// The file.
        path: PathBuf,
        /// The world that was asked for.
        world: &'static str,
        /// What is missing or unknown.
        reason: String,
    },
}
