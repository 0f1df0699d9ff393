//! The `pubsub.kafka` adapter: topics are Kafka topics, groups are consumer groups, a key's order is its partition's.

mod cluster;
mod config;
mod consume;
mod failure;
mod group;
mod health;
mod records;
