//! Bad input, broken files, plugins and brokers that misbehave: each is refused or contained, each says why, and nobody
//! else suffers.

mod adapters;
mod brokers;
mod crowds;
mod files;
mod handlers;
mod overload;
mod requests;
mod resources;
mod scopes;
mod tls;
mod tls_brokers;
