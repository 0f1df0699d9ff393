//! Consumer groups: who is a member, who reads what, and how far a group has come.
//!
//! ```text
//! member      one membership: joins, stays by heartbeats, joins again, leaves
//! join        the two requests of a rebalance; the leader's assignment (assignors, claims)
//! ownership   taking partitions up and giving them up
//! offsets     where a partition begins;  commits, window: how far it was done
//! watch       topics that come, go and grow
//! ```
//!
//! The classic protocol (JoinGroup, SyncGroup), which Dapr's component speaks too, so that both can share a group. Absent
//! on purpose: the protocol of KIP-848, static membership, following replicas in the same rack.

pub(crate) mod assignors;
mod claims;
pub(crate) mod commits;
mod join;
mod member;
mod offsets;
mod ownership;
mod refusal;
mod watch;
pub(crate) mod window;

pub(crate) use member::Member;
pub(crate) use offsets::edge;
pub(crate) use ownership::last_commit;
