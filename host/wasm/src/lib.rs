//! The component host: runs plugins, and offers them to the data plane as handles.
//!
//! `supervisor` looks after the instances of one adapter, `handler` the pool of one handler component. The only crate that names
//! wasmtime. Absent on purpose: HTTP, routing, envelopes.

mod bindings;
mod broker;
mod convert;
mod engine;
mod error;
mod feed;
mod grants;
mod handler;
mod instance;
mod jobs;
mod loader;
mod log;
mod net;
mod places;
mod state;
mod stderr;
mod stream;
mod supervisor;
mod tls;
mod voice;
mod worker;

pub use broker::{Adapter, BrokerSettings, BrokerState, ReplaceError, Replacer, start_broker};
pub use engine::Engines;
pub use error::LoadError;
pub use grants::Grants;
pub use handler::{HandlerSettings, start_handler};
pub use loader::{Interfaces, Loader, Plugin};
