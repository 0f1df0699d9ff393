//! The tests that stand outside: a real host process, real brokers, real sockets. One binary, one folder per subject.
//!
//! `tests/run` is the command that builds what they need (the host among it) and runs them. Absent on purpose: tests of
//! one crate's insides, which stand beside the code.

#![allow(clippy::print_stderr, reason = "a test tells what it saw where libtest captures it")]

mod harness;

mod api;
mod cli;
mod conformance;
mod delivery;
mod fuzz;
mod reload;
mod sdk;
mod security;

mod examples;
mod tidy;
