//! The API as Dapr's clients see it.

mod better;
mod compare;
mod configuration;
mod fuzz;
mod golden;
mod recorded;
mod traces;
