//! The API as Dapr's clients see it.

mod better;
mod bulk;
mod compare;
mod configuration;
mod cors;
mod decoding;
mod envelope;
mod flags;
mod fuzz;
mod golden;
mod lifecycle;
mod metadata;
mod metrics;
mod ports;
mod publish;
mod recorded;
mod routing;
mod rows;
mod subscriptions;
mod tokens;

pub(crate) use better::differs;
