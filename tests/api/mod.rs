//! The API as Dapr's clients see it.

mod better;
mod compare;
mod configuration;
mod cors;
mod flags;
mod fuzz;
mod golden;
mod lifecycle;
mod metadata;
mod metrics;
mod ports;
mod recorded;
mod tokens;
