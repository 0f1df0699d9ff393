//! `pubsub.in-memory`: a broker in the memory of its own component. Called by the host, through the contract in `wit/`.
//!
//! It reaches nothing, so it is the adapter to read first: `plugins/README.md` walks through it. Absent on purpose:
//! anything that outlives the component, and any way between two host processes.

mod broker;

pub use broker::{InMemory, Live};

// Not where another component builds on this one: its exports would clash with that one's own.
#[cfg(feature = "component")]
whimbrel_sdk::export_adapter!(InMemory);
