//! A server, an adapter, a consumer, and a proxy that can cut connections.

use std::cell::RefCell;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whimbrel_redis::Redis;
use whimbrel_sdk::{Config, Failure, testing};

pub(crate) use whimbrel_sdk::testing::{Proxy, SOON, Traffic, message, number, options, run, until};

/// A real Redis that loses nothing it has confirmed.
pub(crate) struct Server {
    process: RefCell<Process>,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let folder = tempfile::tempdir().unwrap();
        // Somebody may take the port between our letting go of it and the server's taking it.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process = launch(port, &folder, &arguments);
            if is_up(port, &mut process).await {
                return Self { process: RefCell::new(process), port, folder, arguments };
            }
        }
        panic!("redis-server does not start");
    }

    /// As a power cut would.
    pub(crate) fn kill(&self) {
        self.process.borrow_mut().end();
    }

    /// Starts it again where it was.
    pub(crate) async fn restart(&self) {
        let mut process = launch(self.port, &self.folder, &self.arguments);
        assert!(is_up(self.port, &mut process).await, "redis-server does not start again");
        self.process.replace(process);
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process.borrow().0), signal).unwrap();
    }

    /// An independent client, to see with.
    pub(crate) fn observer(&self) -> redis::Connection {
        redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap().get_connection().unwrap()
    }

    /// Asks the independent client.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split_whitespace();
        let mut asked = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            asked.arg(word);
        });
        asked.query(&mut self.observer()).unwrap()
    }

    /// How many entries of a stream are pending for a group.
    pub(crate) fn pending(&self, topic: &str, group: &str) -> u64 {
        let summary: redis::streams::StreamPendingReply = self.ask(&format!("XPENDING {topic} {group}"));
        summary.count() as u64
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// A server process that does not outlive its test.
struct Process(Child);

impl Process {
    fn end(&mut self) {
        // It may be dead already.
        self.0.kill().ok();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn launch(port: u16, folder: &tempfile::TempDir, arguments: &[String]) -> Process {
    let port = port.to_string();
    let fixed =
        ["--port", &port, "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    let mut command = Command::new("redis-server");
    command.args(fixed).args(arguments).arg("--dir").arg(folder.path());
    Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

async fn is_up(port: u16, process: &mut Process) -> bool {
    let give_up = Instant::now() + SOON;
    while Instant::now() < give_up && process.0.try_wait().unwrap().is_none() {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
            stream.write_all(b"PING\r\n").await.ok();
            let mut answer = [0; 5];
            let answered = tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut answer)).await;
            if matches!(answered, Ok(Ok(_))) && (&answer == b"+PONG" || &answer == b"-NOAU") {
                return true;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

/// An open adapter.
pub(crate) type Bus = testing::Bus<Redis>;

/// A configuration as the host would hand it in.
pub(crate) fn config(host: &str, instance: &str, settings: &[(&str, &str)]) -> Config {
    let all: Vec<_> = [("redisHost", host)].into_iter().chain(settings.iter().copied()).collect();
    testing::config(instance, &all)
}

pub(crate) async fn open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Bus {
    Bus::open(config(host, instance, settings)).await
}

pub(crate) async fn try_open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Result<Bus, Failure> {
    Bus::try_open(config(host, instance, settings)).await
}
