//! For authors of Whimbrel plugins: everything `wit/` says, as Rust.
//!
//! An adapter implements [`Adapter`] and [`Subscription`] and says [`export_adapter!`]; a handler writes one function
//! and says [`export_handler!`]. Everything an adapter may wait on is here: [`net`], [`timer`], [`task`].
//!
//! Each of them has a native twin: outside Wasm the same code runs on a `tokio` `LocalSet`, so that protocol code is
//! tested and measured natively too (the feature `testing` is the host's side of that). Our own adapters use this crate and nothing else: there is no private door.

pub mod adapter;
pub mod backoff;
pub mod bindings;
pub mod delayed;
pub mod feed;
pub mod handler;
pub mod health;
pub mod log;
pub mod net;
pub mod properties;
pub mod signal;
pub mod task;
#[cfg(all(feature = "testing", not(target_family = "wasm")))]
pub mod testing;
pub mod timer;

pub use adapter::{Adapter, Subscription};
pub use bindings::adapter::exports::whimbrel::pubsub::broker::{
    Config, Delivery, Feature, FeatureSet, Lag, Property, SettleFailure, Settlement, StartPosition, Status,
    SubscribeOptions, Verdict,
};
pub use bindings::adapter::whimbrel::pubsub::types::{Failure, Message};
pub use feed::{DeliverySink, StatusSink};
