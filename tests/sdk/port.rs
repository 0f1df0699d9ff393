//! A port for an app that cannot be told to choose one. Called by `app`.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::Result;

/// A port that nobody who asks for any free one gets for the next minute.
///
/// A connection that its server closed first lingers there in TIME_WAIT: the system hands the port to nobody, and lets
/// whoever names it listen, for servers reuse addresses.
pub(super) fn reserve() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let client = TcpStream::connect(address)?;
    let (server, _) = listener.accept()?;
    drop(server);
    drop(client);
    Ok(address.port())
}
