//! The API as Dapr's clients see it.

mod batches;
mod better;
mod breakers;
mod bulk;
mod compare;
mod configuration;
mod cors;
mod dead_letters;
mod decoding;
mod envelope;
mod flags;
mod fuzz;
mod golden;
mod guarantees;
mod lateness;
mod lifecycle;
mod metadata;
mod metrics;
mod ports;
mod protocols;
mod publish;
mod recorded;
mod requests;
mod resiliency;
mod resources;
mod routing;
mod rows;
mod scopes;
mod starting;
mod statuses;
mod subscriptions;
mod tally;
mod templates;
mod tokens;
mod traces;

pub(crate) use better::differs;
