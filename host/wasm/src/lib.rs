//! The component host: runs plugins, and offers them to the data plane as handles.
//!
//! `broker` supervises the worker of one adapter, `handler` the pool of one handler component. The only crate that names
//! wasmtime. Absent on purpose: HTTP, routing, envelopes.

mod bindings;
mod broker;
mod convert;
mod engine;
mod error;
mod feed;
mod grants;
mod handler;
mod jobs;
mod loader;
mod log;
mod net;
mod state;
mod stderr;
mod stream;
mod tls;
mod worker;

pub use broker::{Adapter, BrokerSettings, BrokerState, start_broker};
pub use engine::Engines;
pub use error::LoadError;
pub use grants::Grants;
pub use handler::{HandlerSettings, start_handler};
pub use loader::{Interfaces, Loader, Plugin};
