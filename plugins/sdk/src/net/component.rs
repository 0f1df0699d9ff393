//! The network in a component: the contract's `net`.

use super::{GREETING_ROOM_BYTES, NetError, READ_ROOM_BYTES, Tls};
use crate::bindings::adapter::whimbrel::pubsub::net as wit;
use crate::bindings::adapter::wit_stream;
use std::rc::Rc;
use wit_bindgen::{FutureReader, StreamReader, StreamResult, StreamWriter};

/// The half of a connection that is read.
#[derive(Debug)]
pub struct Reader {
    stream: StreamReader<u8>,
    done: Option<FutureReader<Result<(), wit::NetError>>>,
    _socket: Rc<wit::Socket>,
}

/// The half of a connection that is written. Dropping it closes that direction.
#[derive(Debug)]
pub struct Writer {
    stream: StreamWriter<u8>,
    _socket: Rc<wit::Socket>,
}

/// A connection that is not divided yet. It may hear a greeting in plain text, and then turn to TLS.
#[derive(Debug)]
pub struct Socket(wit::Socket);

impl Socket {
    /// Connects to a host by its name or address.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn connect(host: &str, port: u16, tls: Option<&Tls>) -> Result<Self, NetError> {
        let socket = wit::Socket::connect(host.to_owned(), port, tls.map(options)).await.map_err(error)?;
        Ok(Self(socket))
    }

    /// Appends what the peer says first to the buffer, after waiting for at least one byte. Not with TLS.
    ///
    /// # Errors
    /// [`NetError::Broken`] at the end of the connection.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, NetError> {
        let room = u32::try_from(GREETING_ROOM_BYTES).unwrap_or(u32::MAX);
        let bytes = self.0.read(room).await.map_err(error)?;
        buffer.extend_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// Turns to TLS.
    ///
    /// # Errors
    /// [`NetError::Tls`]: the connection is of no more use.
    pub async fn start_tls(&mut self, tls: &Tls) -> Result<(), NetError> {
        self.0.start_tls(options(tls)).await.map_err(error)
    }

    /// Divides it into the half that is read and the one that is written.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        let socket = Rc::new(self.0);
        let (writer, outgoing) = wit_stream::new();
        // Why writing ended shows up at the reader, too: nobody needs to wait for this one.
        drop(socket.send(outgoing));
        let (stream, done) = socket.receive();
        let reader = Reader { stream, done: Some(done), _socket: Rc::clone(&socket) };
        (reader, Writer { stream: writer, _socket: socket })
    }
}

impl Reader {
    /// Appends what has arrived to the buffer, after waiting for at least one byte.
    ///
    /// # Errors
    /// [`NetError::Broken`] at the end of the connection, however it ended.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, NetError> {
        let before = buffer.len();
        buffer.reserve(READ_ROOM_BYTES);
        let (result, filled) = self.stream.read(std::mem::take(buffer)).await;
        *buffer = filled;
        let count = buffer.len() - before;
        match result {
            StreamResult::Complete(_) if count > 0 => Ok(count),
            _ => Err(self.why().await),
        }
    }

    async fn why(&mut self) -> NetError {
        match self.done.take() {
            None => NetError::Broken("closed".into()),
            Some(done) => match done.await {
                Ok(()) => NetError::Broken("closed by the peer".into()),
                Err(reason) => error(reason),
            },
        }
    }
}

impl Writer {
    /// Writes all bytes, and returns when the host has taken them.
    ///
    /// # Errors
    /// [`NetError::Broken`] when the connection is gone.
    pub async fn write_all(&mut self, bytes: Vec<u8>) -> Result<(), NetError> {
        let left = self.stream.write_all(bytes).await;
        if left.is_empty() { Ok(()) } else { Err(NetError::Broken("closed while writing".into())) }
    }
}

fn options(tls: &Tls) -> wit::TlsOptions {
    wit::TlsOptions {
        server_name: tls.server_name.clone(),
        ca: tls.ca.clone(),
        identity: tls.identity.clone(),
        skip_verify: tls.skip_verify,
    }
}

fn error(error: wit::NetError) -> NetError {
    match error {
        wit::NetError::Denied(text) => NetError::Denied(text),
        wit::NetError::Unreachable(text) => NetError::Unreachable(text),
        wit::NetError::Tls(text) => NetError::Tls(text),
        wit::NetError::Broken(text) => NetError::Broken(text),
    }
}
