//! The adapter, natively, against a real NATS server with JetStream: every promise of the contract, and every way to lose a
//! message. What is in the broker is seen with `async-nats`.
//!
//! Each test has a server of its own with a private folder, on a port of the system's choice.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod cluster;
mod deliver;
mod faults;
mod harness;
mod hostile;
mod publish;
mod settings;
mod shared;
mod topology;
