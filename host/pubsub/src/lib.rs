//! The data plane: a message in, a message out, and every decision between.
//!
//! `publish` and `deliver` are the two spines; `settle` is the only exit of a delivery; all other modules are leaves
//! that never call each other. Absent on purpose: HTTP, files, wasmtime. Clock and randomness come in through
//! [`Environment`], so that the same seed gives the same trace (`simulation` stands on that).

mod broker;
mod deliver;
mod delivery;
mod envelope;
mod environment;
mod error;
mod event;
mod events;
#[cfg(test)]
mod fakes;
pub mod fuzz;
mod group;
mod handler;
mod ledger;
mod metrics;
mod policy;
mod publish;
mod request;
mod route;
mod scope;
mod settle;
#[cfg(test)]
mod simulation;
mod spans;
mod statuses;
mod steps;
mod topology;
mod trace;

pub use broker::{
    Arrived, Broker, BrokerJob, Features, Feed, FeedJob, Message, Metadata, PublishJob, StartPosition, SubscribeJob,
    Verdict, WeakBroker,
};
pub use deliver::{Live, deliver};
pub use delivery::{Delivery, Disposition, Reason};
pub use environment::{Clock, Environment, Random};
pub use error::{BrokerError, HandlerError, PublishError, SettleError};
pub use event::Event;
pub use handler::{BatchEntry, BatchInfo, BatchJob, DeliveryInfo, Handler, HandlerJob, Outcome, Outcomes};
pub use metrics::{Ingress, Lags, Metrics, MetricsOptions, PluginKind, Sent, Served, StartFailure, Usage};
pub use policy::Attempts;
pub use publish::{check, publish, publish_bulk};
pub use request::{BulkEntry, BulkRequest, Caller, FailedEntry, PublishRequest};
pub use spans::{Recording, Span, SpanKind, Tracer};
pub use steps::{on_step, step};
pub use topology::{Subscription, Topology};
pub use trace::{Trace, TraceParent};
