//! A proxy that can cut connections, refuse them, and swallow what the broker says.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes that are carried over at once, at most.
const CHUNK_MAX: usize = 1 << 16;

/// Stands between an adapter and its broker, on a port of its own.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    connections: Rc<RefCell<Vec<JoinHandle<()>>>>,
    mood: Rc<Mood>,
    listener: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Mood {
    refuses: Cell<bool>,
    mute: Cell<bool>,
    accepted: Cell<u32>,
    /// Bytes of answers that may pass before the connection that carries them is cut.
    left: Cell<Option<usize>>,
}

impl Proxy {
    /// Before a broker on a port of this machine.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, format!("127.0.0.1:{server}"))
    }

    /// On a listener that is there already.
    ///
    /// # Panics
    /// The listener has no address.
    #[must_use]
    pub fn on(listener: TcpListener, server: String) -> Self {
        let port = listener.local_addr().expect("an address").port();
        let connections: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
        let mood: Rc<Mood> = Rc::default();
        let (kept, its) = (Rc::clone(&connections), Rc::clone(&mood));
        let listener = tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                its.accepted.set(its.accepted.get() + 1);
                if its.refuses.get() {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                kept.borrow_mut().push(tokio::task::spawn_local(relay(client, server, Rc::clone(&its))));
            }
        });
        Self { port, connections, mood, listener }
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many connections there have been.
    #[must_use]
    pub fn accepted(&self) -> u32 {
        self.mood.accepted.get()
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.abort());
    }

    /// Ends the connection on which so many more bytes of answers have come, in the middle of whatever they are.
    pub fn cut_after(&self, bytes: usize) {
        self.mood.left.set(Some(bytes));
    }

    /// Hangs up on whoever comes.
    pub fn refuse(&self, refuse: bool) {
        self.mood.refuses.set(refuse);
    }

    /// Swallows what the broker says.
    pub fn mute(&self, mute: bool) {
        self.mood.mute.set(mute);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

/// Until one side ends, or the answers are cut.
async fn relay(client: TcpStream, server: TcpStream, mood: Rc<Mood>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let answering = async {
        let mut buffer = vec![0; CHUNK_MAX];
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<(), io::Error>(());
            }
            if mood.mute.get() {
                continue;
            }
            if let Some(room) = mood.left.get() {
                if room < count {
                    mood.left.set(None);
                    return to_client.write_all(&buffer[..room]).await;
                }
                mood.left.set(Some(room - count));
            }
            to_client.write_all(&buffer[..count]).await?;
        }
    };
    tokio::select! { ended = asking => ended.ok(), ended = answering => ended.ok() };
}
