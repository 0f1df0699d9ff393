//! The adapter, natively, against a real RabbitMQ: every promise of the contract, and every way to lose a message.
//!
//! One broker for all tests that do not break it, each with topics of its own; those that do start their own.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod dapr;
mod deliver;
mod faults;
mod harness;
mod hostile;
mod publish;
mod settings;
mod topology;
