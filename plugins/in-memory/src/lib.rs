//! `pubsub.in-memory`: a broker in the memory of its own component. Called by the host, through the contract in `wit/`.
//!
//! It reaches nothing, so it is the adapter to read first: `plugins/README.md` walks through it. Absent on purpose:
//! anything that outlives the component, and any way between two host processes.

// One folder with everything, so that the misbehaving test guest can include it: as a dependency its exports would
// clash with the guest's own.
mod broker;

pub use broker::{InMemory, Live};

whimbrel_sdk::export_adapter!(InMemory);
