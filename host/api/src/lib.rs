//! The HTTP door and the HTTP app: bytes from a client become a `PublishRequest`, its result becomes a status, and events
//! become requests to an ordinary HTTP app. Called by the binary, which makes the [`Doors`] and the [`App`].
//!
//! Absent on purpose: every decision about messages (`whimbrel_pubsub`), components (`whimbrel_wasm`), and a web framework:
//! the routes are a closed enum over the raw path, for topics may hold slashes and escapes that routers rewrite.

mod app;
mod client;
mod cors;
mod doors;
mod error;
mod health;
mod http;
mod metrics;
mod path;
mod server;

pub use app::{App, AppConnection, AppProtocol, DiscoveryError, Probe, ProbeError};
pub use client::{Answered, AskError, Client, Place};
pub use cors::Origins;
pub use doors::{Doors, HEAD_BYTES_MAX_DEFAULT};
pub use health::{BrokerStates, Health};
pub use http::{CALLS_TARGET, OPENAPI};
pub use metrics::serve_metrics;
pub use server::{serve, serve_public};
