//! What becomes of a message: who gets it, how often, and where it ends.

mod apps;
mod batches;
mod dead_letter;
mod expiry;
mod groups;
mod handlers;
mod health;
mod hosts;
pub(crate) mod loss;
mod modes;
mod policies;
mod redis;
mod shutdown;
mod wildcards;
