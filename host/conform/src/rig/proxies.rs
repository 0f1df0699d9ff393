//! The proxies that stand before a broker, one for each of its addresses, and break as one: a network that is away is away
//! on every way. Called by the rig and the fault checks.

use std::io;
use std::net::SocketAddr;

use futures::future::{select_all, try_join_all};

use crate::proxy::{Counts, Cut, Mode, Proxy};

/// At least one.
#[derive(Debug)]
pub(crate) struct Proxies(Vec<Proxy>);

impl Proxies {
    /// One before each of these, on ports that the system chooses.
    pub(crate) async fn start(servers: Vec<SocketAddr>) -> io::Result<Self> {
        try_join_all(servers.into_iter().map(Proxy::start)).await.map(Self)
    }

    /// The same where the broker sends its clients: each address is listened at for the server of the same place.
    pub(crate) async fn start_at(addresses: &[SocketAddr], servers: Vec<SocketAddr>) -> io::Result<Self> {
        let pairs = addresses.iter().zip(servers);
        try_join_all(pairs.map(|(address, server)| Proxy::start_at(*address, server))).await.map(Self)
    }

    /// Where they listen, in the order of the broker's addresses.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(Proxy::address).collect()
    }

    /// What has happened so far, in all of them together.
    pub(crate) fn counts(&self) -> Counts {
        self.0.iter().map(Proxy::counts).sum()
    }

    /// From now on, in each.
    pub(crate) fn set(&self, mode: Mode) {
        self.0.iter().for_each(|proxy| proxy.set(mode));
    }

    /// Ends every connection that is open.
    pub(crate) fn cut_all(&self, how: Cut) {
        self.0.iter().for_each(|proxy| proxy.cut_all(how));
    }

    /// Sets a mode that ends with a cut, and returns when it has happened in one of them; the others pass again.
    pub(crate) async fn strike(&self, mode: Mode) -> io::Result<()> {
        let striking = self.0.iter().map(|proxy| Box::pin(proxy.strike(mode)));
        let (first, _, _) = select_all(striking).await;
        self.0.iter().for_each(Proxy::calm);
        first
    }
}

#[cfg(test)]
mod tests;
