//! The checks that break the network, the broker and its clients: S1 to S20 as broker-adapters.md has them. Run one at a
//! time, for what they break is shared.
//!
//! `load` publishes and consumes through all of it, and keeps the ledger; each check judges what its promise is about, and
//! blames the check that is about what it meets besides.

mod behind;
mod broker;
mod deleted;
mod expiry;
mod full;
mod hostile;
mod hot;
mod lease;
mod load;
mod network;
mod order;
mod payload;
mod rotated;
mod tenants;
mod tls;
mod tokens;
mod topics;

use crate::check::Check;

/// All of them, in order.
pub(crate) fn all() -> Vec<&'static Check> {
    let subjects: [&'static [Check]; 15] = [
        broker::CHECKS,
        network::CHECKS,
        tokens::CHECKS,
        lease::CHECKS,
        hot::CHECKS,
        order::CHECKS,
        expiry::CHECKS,
        payload::CHECKS,
        topics::CHECKS,
        hostile::CHECKS,
        full::CHECKS,
        rotated::CHECKS,
        deleted::CHECKS,
        tls::CHECKS,
        tenants::CHECKS,
    ];
    let mut all: Vec<&Check> = subjects.into_iter().flatten().collect();
    all.sort_by_key(|check| check.id.trim_start_matches('S').parse::<u32>().unwrap_or(u32::MAX));
    all
}
