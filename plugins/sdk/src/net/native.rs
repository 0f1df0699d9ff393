//! The network's native twin, on tokio. Plain TCP: TLS is the host's part, and tested there.

use super::{NetError, READ_ROOM_BYTES, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The half of a connection that is read.
#[derive(Debug)]
pub struct Reader(OwnedReadHalf);

/// The half of a connection that is written. Dropping it closes that direction.
#[derive(Debug)]
pub struct Writer(OwnedWriteHalf);

/// Connects to a host by its name or address.
///
/// # Errors
/// See [`NetError`].
pub async fn connect(host: &str, port: u16, tls: Option<&Tls>) -> Result<(Reader, Writer), NetError> {
    if tls.is_some() {
        return Err(NetError::Tls("the native twin has no TLS".into()));
    }
    let unreachable = |error: std::io::Error| NetError::Unreachable(format!("{host}:{port}: {error}"));
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let (reader, writer) = stream.into_split();
    Ok((Reader(reader), Writer(writer)))
}

impl Reader {
    /// Appends what has arrived to the buffer, after waiting for at least one byte.
    ///
    /// # Errors
    /// [`NetError::Broken`] at the end of the connection, however it ended.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, NetError> {
        buffer.reserve(READ_ROOM_BYTES);
        match self.0.read_buf(buffer).await {
            Ok(0) => Err(NetError::Broken("closed by the peer".into())),
            Ok(count) => Ok(count),
            Err(error) => Err(NetError::Broken(error.to_string())),
        }
    }
}

impl Writer {
    /// Writes all bytes.
    ///
    /// # Errors
    /// [`NetError::Broken`] when the connection is gone.
    pub async fn write_all(&mut self, bytes: Vec<u8>) -> Result<(), NetError> {
        self.0.write_all(&bytes).await.map_err(|error| NetError::Broken(error.to_string()))
    }
}
