//! The API as Dapr's clients see it.

mod better;
mod bulk;
mod compare;
mod configuration;
mod decoding;
mod envelope;
mod fuzz;
mod golden;
mod publish;
mod recorded;
mod routing;
mod rows;
mod subscriptions;

pub(crate) use better::differs;
