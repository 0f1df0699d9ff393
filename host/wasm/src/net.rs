//! The contract's `net`: TCP and TLS for adapters, to granted addresses only.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_rustls::client::TlsStream;
use wasmtime::component::{Access, Accessor, FutureReader, HasSelf, Resource, StreamReader};

use crate::bindings::adapter::whimbrel::pubsub::net::{Host, HostSocket, HostSocketWithStore, NetError, TlsOptions};
use crate::state::{SOCKETS_MAX, State};
use crate::stream::{Incoming, Outgoing, ReadHalf, WriteHalf};
use crate::tls;

/// How long making a connection may take, name and TLS included. Adapters have shorter waits of their own.
const CONNECT_WAIT: Duration = Duration::from_secs(30);

/// The most bytes that are read at once before a connection is divided: greetings are short.
const GREETING_MAX_BYTES: usize = 64 * 1024;

/// The resource `socket`.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings name it in a public signature")]
pub struct Socket {
    host: String,
    connection: Option<Connection>,
    read: Option<ReadHalf>,
    write: Option<WriteHalf>,
    /// Counts it among its plugin's connections for as long as any part of it is open.
    share: Arc<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Splits the connection when its first half is asked for. After that there is no `start-tls`.
    fn split(&mut self) {
        match self.connection.take() {
            None => {}
            Some(Connection::Plain(stream)) => {
                let (read, write) = stream.into_split();
                self.read = Some(Box::new(read));
                self.write = Some(Box::new(write));
            }
            Some(Connection::Tls(stream)) => {
                let (read, write) = tokio::io::split(*stream);
                self.read = Some(Box::new(read));
                self.write = Some(Box::new(write));
            }
        }
    }
}

impl Host for State {}

impl HostSocket for State {
    fn drop(&mut self, socket: Resource<Socket>) -> wasmtime::Result<()> {
        self.table.delete(socket)?;
        Ok(())
    }
}

impl<T: Send> HostSocketWithStore<T> for HasSelf<State> {
    async fn connect(
        store: &Accessor<T, Self>,
        host: String,
        port: u16,
        options: Option<TlsOptions>,
    ) -> wasmtime::Result<Result<Resource<Socket>, NetError>> {
        let (granted, share) = store.with(|mut access| {
            let state = access.get();
            (state.grants.allows(&host, port), Arc::clone(&state.sockets).try_acquire_owned())
        });
        if !granted {
            let text = format!(
                "{host}:{port} is not an address that the resource's metadata names; grant it with the annotation whimbrel.dev/network"
            );
            return Ok(Err(NetError::Denied(text)));
        }
        let Ok(share) = share else {
            return Ok(Err(NetError::Unreachable(format!("{SOCKETS_MAX} connections are open already"))));
        };
        let connected = tokio::time::timeout(CONNECT_WAIT, connect(&host, port, options)).await;
        let connection =
            match connected.unwrap_or_else(|_| Err(NetError::Unreachable(format!("{host}:{port}: timed out")))) {
                Ok(connection) => connection,
                Err(error) => return Ok(Err(error)),
            };
        let socket = Socket { host, connection: Some(connection), read: None, write: None, share: Arc::new(share) };
        store.with(|mut access| Ok(Ok(access.get().table.push(socket)?)))
    }

    async fn read(
        store: &Accessor<T, Self>,
        socket: Resource<Socket>,
        max_bytes: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, NetError>> {
        let taken =
            store.with(|mut access| wasmtime::error::Ok(access.get().table.get_mut(&socket)?.connection.take()))?;
        let mut connection = match taken {
            Some(Connection::Plain(stream)) => stream,
            other => {
                store.with(|mut access| {
                    access.get().table.get_mut(&socket)?.connection = other;
                    wasmtime::error::Ok(())
                })?;
                return Ok(Err(NetError::Broken("the connection is in use or speaks TLS already".to_owned())));
            }
        };
        let room = usize::try_from(max_bytes).unwrap_or(usize::MAX).clamp(1, GREETING_MAX_BYTES);
        let mut bytes = vec![0; room];
        let count = match connection.read(&mut bytes).await {
            Ok(0) => return Ok(Err(NetError::Broken("closed by the peer".to_owned()))),
            Ok(count) => count,
            Err(error) => return Ok(Err(NetError::Broken(error.to_string()))),
        };
        bytes.truncate(count);
        store.with(|mut access| {
            access.get().table.get_mut(&socket)?.connection = Some(Connection::Plain(connection));
            Ok(Ok(bytes))
        })
    }

    async fn start_tls(
        store: &Accessor<T, Self>,
        socket: Resource<Socket>,
        options: TlsOptions,
    ) -> wasmtime::Result<Result<(), NetError>> {
        let taken = store.with(|mut access| {
            let socket = access.get().table.get_mut(&socket)?;
            wasmtime::error::Ok((socket.host.clone(), socket.connection.take()))
        })?;
        let (host, Some(Connection::Plain(stream))) = taken else {
            return Ok(Err(NetError::Tls("the connection is in use or speaks TLS already".to_owned())));
        };
        let connected = tokio::time::timeout(CONNECT_WAIT, tls::connect(stream, &host, options)).await;
        match connected.unwrap_or_else(|_| Err(NetError::Tls(format!("{host}: the handshake timed out")))) {
            Err(error) => Ok(Err(error)),
            Ok(stream) => store.with(|mut access| {
                access.get().table.get_mut(&socket)?.connection = Some(Connection::Tls(Box::new(stream)));
                Ok(Ok(()))
            }),
        }
    }

    fn send(
        mut store: Access<'_, T, Self>,
        socket: Resource<Socket>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<Result<(), NetError>>> {
        let busy = store.get().busy.clone();
        let socket = store.get().table.get_mut(&socket)?;
        socket.split();
        let (done, result) = oneshot::channel();
        let share = Arc::clone(&socket.share);
        match socket.write.take() {
            Some(half) => data.pipe(&mut store, Outgoing::new(half, done, busy, share))?,
            None => {
                data.close(&mut store)?;
                // The receiver is read below whatever became of this.
                done.send(Err(NetError::Broken("its writing half was taken before".to_owned()))).ok();
            }
        }
        FutureReader::new(&mut store, ended(result))
    }

    fn receive(
        mut store: Access<'_, T, Self>,
        socket: Resource<Socket>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), NetError>>)> {
        let busy = store.get().busy.clone();
        let socket = store.get().table.get_mut(&socket)?;
        socket.split();
        let (done, result) = oneshot::channel();
        let (half, share) = (socket.read.take(), Arc::clone(&socket.share));
        if half.is_none() {
            done.send(Err(NetError::Broken("its reading half was taken before".to_owned()))).ok();
            let empty = StreamReader::new(&mut store, std::iter::empty())?;
            return Ok((empty, FutureReader::new(&mut store, ended(result))?));
        }
        let stream = StreamReader::new(&mut store, Incoming::new(half, done, busy, share))?;
        Ok((stream, FutureReader::new(&mut store, ended(result))?))
    }
}

/// Why a direction ended; dropped without a word, it ended in good order.
async fn ended(result: oneshot::Receiver<Result<(), NetError>>) -> wasmtime::Result<Result<(), NetError>> {
    Ok(result.await.unwrap_or(Ok(())))
}

async fn connect(host: &str, port: u16, options: Option<TlsOptions>) -> Result<Connection, NetError> {
    let unreachable = |error: std::io::Error| NetError::Unreachable(format!("{host}:{port}: {error}"));
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    match options {
        None => Ok(Connection::Plain(stream)),
        Some(options) => Ok(Connection::Tls(Box::new(tls::connect(stream, host, options).await?))),
    }
}
