//! What every test stands on: processes, brokers, apps and proxies that belong to one test, and the ledger that says
//! whether anything was lost.
//!
//! A test is a body handed to [`run`]: it gets a folder of its own, a seed and a bound in time. Everything it starts is
//! stopped when it ends, by process id and never by name. Everything listens on a port that the system chose.

pub(crate) mod app;
pub(crate) mod brokers;
pub(crate) mod certificates;
pub(crate) mod collector;
pub(crate) mod durable;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod plugin;
pub(crate) mod redis;
pub(crate) mod resource;
mod scene;
mod wait;

pub(crate) use host::whimbrel;
pub(crate) use scene::{Test, build_folder, run, run_within};
pub(crate) use wait::{until, until_within};
pub(crate) use whimbrel_conform::{proxy, scale};
