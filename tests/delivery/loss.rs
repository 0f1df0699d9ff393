//! Nothing acknowledged is lost, whatever breaks. Each run publishes the ledger's messages through a real host and a
//! real Redis (append-only file, a sync for each write) to apps that write durably before they answer, while something
//! is broken again and again; then the ledger is closed.
//!
//! Every fault strikes while messages flow: publishers may go on to the next share of the messages only once the fault
//! of the share before has happened.

mod apps;
mod batches;
mod broker;
mod host;
mod network;
pub(crate) mod onward;
mod plugins;
pub(crate) mod rig;
