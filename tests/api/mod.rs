//! The API as Dapr's clients see it.

mod batches;
mod better;
mod breakers;
mod compare;
mod configuration;
mod dead_letters;
mod fuzz;
mod golden;
mod guarantees;
mod lateness;
mod recorded;
mod requests;
mod resiliency;
mod resources;
mod scopes;
mod starting;
mod statuses;
mod tally;
mod templates;
