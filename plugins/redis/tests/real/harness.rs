//! A server, an adapter, a consumer, and a proxy that can cut connections.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, LocalSet};
use whimbrel_redis::{Redis, RedisSubscription};
use whimbrel_sdk::{
    Adapter, Config, Delivery, DeliverySink, Failure, Message, Property, SettleFailure, Settlement, Status, StatusSink,
    SubscribeOptions, Subscription, Verdict,
};

/// No test takes longer than this.
const TEST_MAX: Duration = Duration::from_secs(90);

/// Nothing that should happen takes longer than this.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What should not happen would have by now.
pub(crate) const A_WHILE: Duration = Duration::from_millis(250);

/// Runs a test on one thread, as a component would.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs");
    });
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < give_up, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

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
pub(crate) struct Bus {
    pub(crate) redis: Rc<Redis>,
    pub(crate) news: RefCell<mpsc::Receiver<Status>>,
}

/// A configuration as the host would hand it in.
pub(crate) fn config(host: &str, instance: &str, settings: &[(&str, &str)]) -> Config {
    let all = [("redisHost", host)].into_iter().chain(settings.iter().copied());
    let properties = all.map(|(name, value)| Property { name: name.to_owned(), value: value.to_owned() }).collect();
    Config { name: "bus".to_owned(), properties, instance: instance.to_owned() }
}

impl Bus {
    pub(crate) async fn open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Self {
        Self::try_open(host, instance, settings).await.unwrap()
    }

    pub(crate) async fn try_open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let (sink, news) = StatusSink::channel();
        let opening = Redis::open(config(host, instance, settings), sink);
        let redis = tokio::time::timeout(SOON, opening).await.expect("open hangs")?;
        Ok(Self { redis: Rc::new(redis), news: RefCell::new(news) })
    }

    pub(crate) async fn publish(&self, topic: &str, data: &[u8]) -> Result<(), Failure> {
        let mut results = self.redis.publish(vec![message(topic, data)], SOON).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    /// Publishes the numbers.
    pub(crate) async fn publish_numbers(&self, topic: &str, numbers: std::ops::Range<u32>) {
        let messages = numbers.map(|number| message(topic, number.to_string().as_bytes())).collect();
        let results = self.redis.publish(messages, SOON).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    pub(crate) async fn subscribe(&self, topic: &str, group: &str, max_unsettled: u32) -> Inbox {
        self.try_subscribe(topic, group, max_unsettled).await.unwrap()
    }

    pub(crate) async fn try_subscribe(&self, topic: &str, group: &str, max_unsettled: u32) -> Result<Inbox, Failure> {
        let options = SubscribeOptions { max_unsettled, start: None, metadata: Vec::new() };
        let (sink, lists, ended) = DeliverySink::channel();
        let subscription = self.redis.subscribe(topic.to_owned(), group.to_owned(), options, sink).await?;
        Ok(Inbox { subscription, lists: RefCell::new(lists), ended, waiting: RefCell::default() })
    }

    /// Waits for news of a kind.
    pub(crate) async fn hears(&self, what: &str, is_it: impl Fn(&Status) -> bool) -> Status {
        let listening = async {
            loop {
                let status = poll_fn(|context| self.news.borrow_mut().poll_next_unpin(context)).await;
                let status = status.expect("no more news");
                if is_it(&status) {
                    return status;
                }
            }
        };
        tokio::time::timeout(SOON, listening).await.unwrap_or_else(|_| panic!("no news: {what}"))
    }

    pub(crate) async fn close(self) {
        let closing = Rc::clone(&self.redis).close();
        tokio::time::timeout(Duration::from_secs(5), closing).await.expect("close hangs");
    }
}

pub(crate) fn message(topic: &str, data: &[u8]) -> Message {
    Message { topic: topic.to_owned(), key: None, data: data.to_vec(), metadata: Vec::new() }
}

/// The host's end of a subscription.
pub(crate) struct Inbox {
    pub(crate) subscription: RedisSubscription,
    lists: RefCell<mpsc::Receiver<Vec<Delivery>>>,
    pub(crate) ended: oneshot::Receiver<Failure>,
    waiting: RefCell<std::collections::VecDeque<Delivery>>,
}

impl Inbox {
    /// All deliveries that have come; waits for one.
    pub(crate) async fn list(&self) -> Vec<Delivery> {
        let first = self.next().await;
        std::iter::once(first).chain(self.waiting.take()).collect()
    }

    /// The next delivery, if one comes in time. None also at the end of the stream.
    pub(crate) async fn within(&self, wait: Duration) -> Option<Delivery> {
        if let Some(delivery) = self.waiting.borrow_mut().pop_front() {
            return Some(delivery);
        }
        let list = tokio::time::timeout(wait, self.next_list()).await.ok()??;
        assert!(!list.is_empty(), "an empty list was handed over");
        self.waiting.borrow_mut().extend(list);
        self.waiting.borrow_mut().pop_front()
    }

    async fn next_list(&self) -> Option<Vec<Delivery>> {
        poll_fn(|context| self.lists.borrow_mut().poll_next_unpin(context)).await
    }

    pub(crate) async fn next(&self) -> Delivery {
        self.within(SOON).await.expect("no delivery")
    }

    pub(crate) async fn take(&self, count: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }

    pub(crate) async fn is_quiet(&self) -> bool {
        self.within(A_WHILE).await.is_none()
    }

    /// Whether the stream has ended.
    pub(crate) async fn has_ended(&self) -> bool {
        self.waiting.borrow_mut().clear();
        let ending = async { while self.next_list().await.is_some() {} };
        tokio::time::timeout(SOON, ending).await.is_ok()
    }

    pub(crate) async fn settle(&self, token: u64, verdict: Verdict) -> Result<(), SettleFailure> {
        let mut results = self.subscription.settle(vec![Settlement { token, verdict }]).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    pub(crate) async fn ack(&self, delivery: &Delivery) {
        self.settle(delivery.token, Verdict::Ack).await.unwrap();
    }

    pub(crate) async fn ack_all(&self, deliveries: &[Delivery]) -> Vec<Result<(), SettleFailure>> {
        let settlement = |delivery: &Delivery| Settlement { token: delivery.token, verdict: Verdict::Ack };
        self.subscription.settle(deliveries.iter().map(settlement).collect()).await
    }
}

/// The number in a message.
pub(crate) fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(&delivery.message.data).unwrap().parse().unwrap()
}

/// Stands between adapter and server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    connections: Rc<RefCell<Vec<JoinHandle<()>>>>,
    mute: Rc<Cell<bool>>,
    listener: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, mute) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
        let (kept, muted) = (Rc::clone(&connections), Rc::clone(&mute));
        let listener = tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = tokio::net::TcpStream::connect(("127.0.0.1", server)).await else { continue };
                kept.borrow_mut().push(tokio::task::spawn_local(relay(client, server, Rc::clone(&muted))));
            }
        });
        Self { port, connections, mute, listener }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.abort());
    }

    /// Swallows what the server says.
    pub(crate) fn mute(&self, mute: bool) {
        self.mute.set(mute);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn relay(client: tokio::net::TcpStream, server: tokio::net::TcpStream, mute: Rc<Cell<bool>>) {
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
