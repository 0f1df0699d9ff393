//! The adapter, natively, against a real Apache Kafka: every promise of the contract, and every way to lose a message.
//!
//! One broker serves all tests that leave it alone; each has topics and groups of its own. What kills a broker, or wants
//! it otherwise, has its own. `tests/brokers` installs, starts and reads them.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod consume;
mod faults;
mod groups;
mod harness;
mod hostile;
mod load;
mod mock;
mod oracle;
mod permissions;
mod publish;
mod security;
mod server;
