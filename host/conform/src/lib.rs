//! The conformance kit: one suite against a component and a live broker.

pub mod proxy;
pub mod scale;
pub mod wait;
