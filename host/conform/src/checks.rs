//! The checks, by subject. Each tests one promise and tolerates that others are broken, as far as it can.

mod opening;

use crate::check::Check;

/// The checks that break nothing: D1 to D12 and B1 to B15 as broker-adapters.md has them, then C, the contract's own.
pub(crate) fn base() -> Vec<&'static Check> {
    let mut all: Vec<&Check> = opening::CHECKS.iter().collect();
    all.sort_by_key(|check| order(check.id));
    all
}

/// The checks that break the network, the broker or its clients.
pub(crate) fn faults() -> Vec<&'static Check> {
    Vec::new()
}

/// By letter (D, B, C), then by number.
fn order(id: &str) -> (usize, u32) {
    let (letter, number) = id.split_at(id.len().min(1));
    ("DBC".find(letter).unwrap_or(usize::MAX), number.parse().unwrap_or(u32::MAX))
}
