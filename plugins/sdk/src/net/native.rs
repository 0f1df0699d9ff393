//! The network's native twin, on tokio. Plain TCP: TLS is the host's part, and tested there.

use super::{GREETING_ROOM_BYTES, NetError, READ_ROOM_BYTES, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The half of a connection that is read.
#[derive(Debug)]
pub struct Reader(OwnedReadHalf);

/// The half of a connection that is written. Dropping it closes that direction.
#[derive(Debug)]
pub struct Writer(OwnedWriteHalf);

/// A connection that is not divided yet.
#[derive(Debug)]
pub struct Socket(TcpStream);

impl Socket {
    /// Connects to a host by its name or address.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn connect(host: &str, port: u16, tls: Option<&Tls>) -> Result<Self, NetError> {
        if tls.is_some() {
            return Err(no_tls());
        }
        let unreachable = |error: std::io::Error| NetError::Unreachable(format!("{host}:{port}: {error}"));
        let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(Self(stream))
    }

    /// Appends what the peer says first to the buffer, after waiting for at least one byte.
    ///
    /// # Errors
    /// [`NetError::Broken`] at the end of the connection.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, NetError> {
        buffer.reserve(GREETING_ROOM_BYTES);
        match self.0.read_buf(buffer).await {
            Ok(0) => Err(NetError::Broken("closed by the peer".into())),
            Ok(count) => Ok(count),
            Err(error) => Err(NetError::Broken(error.to_string())),
        }
    }

    /// There is no TLS natively.
    ///
    /// # Errors
    /// Always [`NetError::Tls`].
    #[expect(clippy::unused_async, reason = "the component's twin waits")]
    pub async fn start_tls(&mut self, _: &Tls) -> Result<(), NetError> {
        Err(no_tls())
    }

    /// Divides it into the half that is read and the one that is written.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        let (reader, writer) = self.0.into_split();
        (Reader(reader), Writer(writer))
    }
}

fn no_tls() -> NetError {
    NetError::Tls("the native twin has no TLS".into())
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
