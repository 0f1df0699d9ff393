//! A real Redis of one test: a private data folder, a port of its own, kill -9 and start again. And an independent
//! client (the `redis` crate), which shares no code with our adapter. Called by the tests of delivery and loss.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::scene::Test;
use super::until;

/// How many entries are read from a stream at once.
const PAGE_ENTRIES: usize = 2000;

/// How often a start is tried, for the free port that was found may be taken by the time Redis binds it.
const STARTS_MAX: usize = 5;

/// A user besides the default one, which is switched off then.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// The user.
    pub(crate) user: String,
    /// The password.
    pub(crate) password: String,
}

/// A running Redis, append-only file and a sync for each write. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Redis {
    folder: PathBuf,
    port: u16,
    access: Access,
    child: Child,
    starts: usize,
}

/// Who may use a Redis, and how.
#[derive(Debug, Clone)]
enum Access {
    Anyone,
    User(Credentials),
    /// Besides, over TLS on another port, with the files in this folder.
    Tls {
        port: u16,
        files: PathBuf,
        asks_clients: bool,
    },
}

/// One entry of a stream, as our adapter and Dapr's write it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The field `data`.
    pub(crate) data: Bytes,
    /// The field `metadata`.
    pub(crate) metadata: Option<String>,
}

/// An independent client's place in a stream.
pub(crate) struct Reader {
    client: MultiplexedConnection,
    stream: String,
    next: String,
}

impl Reader {
    /// What it has not read yet, oldest first.
    pub(crate) async fn rest(&mut self) -> Result<Vec<Entry>> {
        let mut entries = vec![];
        loop {
            let page = self.client.xrange_count(&self.stream, &self.next, "+", PAGE_ENTRIES);
            let page: StreamRangeReply = page.await?;
            let Some(last) = page.ids.last() else { return Ok(entries) };
            self.next = format!("({}", last.id);
            for entry in &page.ids {
                let data: Option<Vec<u8>> = entry.get("data");
                let data = data.with_context(|| format!("entry {} has no field `data`", entry.id))?.into();
                entries.push(Entry { data, metadata: entry.get("metadata") });
            }
        }
    }
}

impl Redis {
    /// A Redis that whoever reaches its port may use.
    pub(crate) async fn start(test: &Test) -> Result<Self> {
        Self::start_with(test, || Ok(Access::Anyone)).await
    }

    /// A Redis that speaks TLS, too, with the certificate and the key that stand in a folder as `server.pem` and
    /// `server.key`, and, where it asks clients for theirs, the authority in `ca.pem`.
    pub(crate) async fn start_tls(test: &Test, files: &Path, asks_clients: bool) -> Result<Self> {
        let access = || Ok(Access::Tls { port: free_port()?, files: files.to_owned(), asks_clients });
        Self::start_with(test, access).await
    }

    /// A Redis that only this user may use.
    pub(crate) async fn start_for(test: &Test, credentials: Credentials) -> Result<Self> {
        Self::start_with(test, || Ok(Access::User(credentials.clone()))).await
    }

    async fn start_with(test: &Test, access: impl Fn() -> Result<Access>) -> Result<Self> {
        let folder = test.folder("redis")?;
        for _ in 0..STARTS_MAX {
            let (port, access) = (free_port()?, access()?);
            let child = spawn(&folder, port, &access, 0)?;
            let mut redis = Self { folder: folder.clone(), port, access, child, starts: 1 };
            if redis.answers().await.is_ok() {
                return Ok(redis);
            }
        }
        bail!("redis-server did not start, see {}", folder.display())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The port on which it speaks TLS.
    pub(crate) fn tls_port(&self) -> Option<u16> {
        if let Access::Tls { port, .. } = self.access { Some(port) } else { None }
    }

    /// Gives its user one more password.
    pub(crate) async fn add_password(&mut self, password: &str) -> Result<()> {
        let mut client = self.client().await?;
        self.add_password_as(&mut client, password).await
    }

    async fn add_password_as(&mut self, client: &mut MultiplexedConnection, password: &str) -> Result<()> {
        self.user(client, &format!(">{password}")).await?;
        if let Access::User(credentials) = &mut self.access {
            password.clone_into(&mut credentials.password);
        }
        Ok(())
    }

    /// Takes a password away from its user. Who has come with it stays.
    pub(crate) async fn remove_password(&self, password: &str) -> Result<()> {
        self.user(&mut self.client().await?, &format!("<{password}")).await
    }

    /// Gives its user another password, and throws out whoever is there.
    pub(crate) async fn change_password(&mut self, password: &str) -> Result<()> {
        let mut client = self.client().await?;
        self.user(&mut client, "resetpass").await?;
        self.add_password_as(&mut client, password).await?;
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query_async::<()>(&mut client).await?;
        Ok(())
    }

    /// Kills it: no handler of its own runs, nothing is flushed.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("killing redis-server")
    }

    /// From now on it answers nobody; connections stay, and new ones wait.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// It goes on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(kill_process(id.context("redis-server has ended")?, signal)?)
    }

    /// Starts it again on its port, with its data, and waits until it answers.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.folder, self.port, &self.access, self.starts)?;
        self.starts += 1;
        self.answers().await
    }

    /// A connection of an independent client.
    pub(crate) async fn client(&self) -> Result<MultiplexedConnection> {
        let login = match &self.access {
            Access::User(Credentials { user, password }) => format!("{user}:{password}@"),
            Access::Anyone | Access::Tls { .. } => String::new(),
        };
        let client = redis::Client::open(format!("redis://{login}{}", self.address()))?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// Everything in a stream, oldest first.
    pub(crate) async fn entries(&self, stream: &str) -> Result<Vec<Entry>> {
        self.reader(stream).await?.rest().await
    }

    /// Reads a stream from its beginning, and later what came since.
    pub(crate) async fn reader(&self, stream: &str) -> Result<Reader> {
        Ok(Reader { client: self.client().await?, stream: stream.to_owned(), next: "-".to_owned() })
    }

    /// How many entries of a stream are delivered to a group and not acknowledged.
    pub(crate) async fn pending(&self, stream: &str, group: &str) -> Result<usize> {
        let reply: redis::streams::StreamPendingReply = self.client().await?.xpending(stream, group).await?;
        Ok(reply.count())
    }

    /// From now on the keys that begin so can be read, and not written to.
    pub(crate) async fn read_only(&self, beginning: &str) -> Result<()> {
        let others = (b'a'..=b'z').filter(|first| !beginning.as_bytes().starts_with(&[*first]));
        let mut rules = vec!["resetkeys".to_owned(), format!("%R~{beginning}*")];
        rules.extend(others.map(|first| format!("~{}*", char::from(first))));
        self.access(&rules).await
    }

    /// Takes that back.
    pub(crate) async fn all_allowed(&self) -> Result<()> {
        self.access(&["allkeys".to_owned()]).await
    }

    async fn user(&self, client: &mut MultiplexedConnection, rule: &str) -> Result<()> {
        let Access::User(Credentials { user, .. }) = &self.access else { bail!("this Redis has no user") };
        redis::cmd("ACL").arg("SETUSER").arg(user).arg(rule).query_async::<()>(client).await?;
        Ok(())
    }

    async fn access(&self, rules: &[String]) -> Result<()> {
        let mut client = self.client().await?;
        redis::cmd("ACL").arg("SETUSER").arg("default").arg(rules).query_async::<()>(&mut client).await?;
        Ok(())
    }

    async fn answers(&mut self) -> Result<()> {
        let what = format!("redis-server on port {} to answer (log in {})", self.port, self.folder.display());
        let ended = until(&what, async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Some(status));
            }
            let mut client = self.client().await.ok()?;
            let pong: Result<String, _> = redis::cmd("PING").query_async(&mut client).await;
            pong.ok().map(|_| None)
        });
        match ended.await? {
            None => Ok(()),
            Some(status) => bail!("redis-server ended at once ({status}), see {}", self.folder.display()),
        }
    }
}

fn spawn(folder: &PathBuf, port: u16, access: &Access, start: usize) -> Result<Child> {
    let log = std::fs::File::create(folder.join(format!("redis-{start}.log")))?;
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]).arg(folder);
    command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    match access {
        Access::Anyone => {}
        Access::User(Credentials { user, password }) => {
            command.args(["--user", "default", "off", "--user"]);
            command.args([user.as_str(), "on", &format!(">{password}"), "~*", "&*", "+@all"]);
        }
        Access::Tls { port, files, asks_clients } => {
            command.args(["--tls-port", &port.to_string()]);
            for (flag, file) in [("--tls-cert-file", "server.pem"), ("--tls-key-file", "server.key")] {
                command.arg(flag).arg(files.join(file));
            }
            command.arg("--tls-ca-cert-file").arg(files.join("ca.pem"));
            command.args(["--tls-auth-clients", if *asks_clients { "yes" } else { "no" }]);
        }
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "this test needs the program redis-server: run `apt-get install --no-install-recommends redis-server`"
            )
        }
        child => child.context("starting redis-server"),
    }
}

/// A port that was free a moment ago: redis-server cannot be told to choose one.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests;
