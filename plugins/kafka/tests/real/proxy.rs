//! A proxy that can cut connections, refuse them, and swallow what the broker says.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::task::JoinHandle;

/// Stands between adapter and server.
pub(crate) struct Proxy {
    address: String,
    connections: Rc<RefCell<Vec<JoinHandle<()>>>>,
    refuses: Rc<Cell<bool>>,
    mute: Rc<Cell<bool>>,
    accepted: Rc<Cell<u32>>,
    listener: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn start(listener: tokio::net::TcpListener, server: String) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let connections: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
        let (refuses, mute) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let accepted = Rc::new(Cell::new(0));
        let (kept, refusing, muted, count) =
            (Rc::clone(&connections), Rc::clone(&refuses), Rc::clone(&mute), Rc::clone(&accepted));
        let listener = tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.set(count.get() + 1);
                if refusing.get() {
                    continue;
                }
                let Ok(server) = tokio::net::TcpStream::connect(&server).await else { continue };
                kept.borrow_mut().push(tokio::task::spawn_local(relay(client, server, Rc::clone(&muted))));
            }
        });
        Self { address, connections, refuses, mute, accepted, listener }
    }

    pub(crate) fn host(&self) -> String {
        self.address.clone()
    }

    /// How many connections there have been.
    pub(crate) fn accepted(&self) -> u32 {
        self.accepted.get()
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.abort());
    }

    /// Hangs up on whoever comes.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.refuses.set(refuse);
    }

    /// Swallows what the server says.
    pub(crate) fn mute(&self, mute: bool) {
        self.mute.set(mute);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

async fn relay(client: tokio::net::TcpStream, server: tokio::net::TcpStream, mute: Rc<Cell<bool>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) };
    let answering = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<(), std::io::Error>(());
            }
            if !mute.get() {
                to_client.write_all(&buffer[..count]).await?;
            }
        }
    };
    tokio::select! { ended = asking => ended.ok(), ended = answering => ended.ok() };
}
