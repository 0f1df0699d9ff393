//! Plugin sources in, components out: `build.rs` builds every plugin, example and test guest with one inner cargo, and
//! this crate names the results. Absent on purpose: anything that runs them.

pub mod component;
pub mod toolchain;

/// A component that was built with this crate.
#[derive(Debug, Clone, Copy)]
pub struct Artifact {
    /// A broker's type (`pubsub.redis`), else the package's name without `whimbrel-`.
    pub name: &'static str,
    /// The `.wasm` file.
    pub path: &'static str,
}

/// An adapter that comes with the host: its file's bytes are part of the program.
#[derive(Debug, Clone, Copy)]
pub struct Bundled {
    /// The type that resources name (`pubsub.redis`).
    pub kind: &'static str,
    /// The component, its `plugin.yaml` inside.
    pub bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/artifacts.rs"));
