//! The task that keeps the connection: it dials, reads, watches that the server is there, and dials again.

use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::net::{Reader, Writer};
use whimbrel_sdk::{Failure, log, timer};

use super::{Answer, Duration, Rc, Wire};
use crate::config::{Server, address_of};
use crate::connection::{INBOX_SID, Link, Why, dial};
use crate::failure::{denied_subject, text};
use crate::health::Standing;
use crate::protocol::{Decoder, Info, Msg, Op, PONG};

/// How often requests are looked for whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_millis(50);

/// How long the first try to connect to one server may take.
const FIRST_DIAL_WAIT: Duration = Duration::from_secs(1);

/// How long it is tried to connect before the adapter opens without a connection.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// Servers that are remembered, those that others told of included.
const SERVERS_MAX: usize = 64;

/// What the rest of the adapter wants to know of.
pub(crate) trait Watcher {
    /// There is a connection.
    fn up(&self);
    /// It was lost.
    fn down(&self);
    /// The user may not publish to this subject, or subscribe to it.
    fn denied(&self, what: &'static str, subject: &str);
}

impl Wire {
    /// Dials the first server, and has the next one be first if that fails.
    ///
    /// # Errors
    /// See [`dial`].
    async fn dial(&self, patience: Duration) -> Result<Link, Failure> {
        let Some(server) = self.servers.borrow().front().cloned() else {
            return Err(Failure::Invalid("metadata natsURL names no server".to_owned()));
        };
        let dialled = dial(&self.settings, &server, &self.inbox, patience.min(self.settings.dial_wait)).await;
        if let Err(failure) = &dialled {
            let mut servers = self.servers.borrow_mut();
            // One that was only heard of may not be granted; it is not what the user asked for.
            let foreign = !self.settings.servers.contains(&server);
            match (foreign, failure) {
                (true, Failure::Invalid(_)) => drop(servers.pop_front()),
                _ => servers.rotate_left(1),
            }
            if foreign {
                return Err(Failure::Transient(text(failure.clone())));
            }
        }
        dialled
    }

    /// The first try: each server once, and not for long, so that whoever waits soon knows how things stand. None: there is
    /// no connection yet, [`run`](Self::run) goes on trying.
    ///
    /// # Errors
    /// What will not mend by itself: somebody must change the resource.
    pub(crate) async fn first_link(&self, standing: &Standing) -> Result<Option<Link>, Failure> {
        let give_up = timer::now() + FIRST_WAIT;
        for left in (0..self.choice()).rev() {
            match self.dial(FIRST_DIAL_WAIT).await {
                Ok(link) => return Ok(Some(link)),
                Err(failure @ (Failure::Invalid(_) | Failure::Unauthorized(_))) if left == 0 => return Err(failure),
                Err(failure) => self.is_down(standing, text(failure)),
            }
            if timer::now() >= give_up {
                break;
            }
        }
        Ok(None)
    }

    fn is_down(&self, standing: &Standing, why: Why) {
        standing.is_down(&why);
        self.why.replace(why);
    }

    /// How many servers there are to try.
    fn choice(&self) -> usize {
        self.servers.borrow().len()
    }

    /// Serves until [`close`](Self::close).
    pub(crate) async fn run(self: Rc<Self>, first: Option<Link>, standing: Standing, watcher: impl Watcher) {
        let serving = self.keep(first, standing, &watcher);
        let expiring = self.keep_expiring();
        pin_mut!(serving);
        pin_mut!(expiring);
        select(serving, expiring).await;
        self.lose("the connection was closed", true);
    }

    async fn keep(&self, first: Option<Link>, standing: Standing, watcher: &impl Watcher) {
        let mut backoff = Backoff::default();
        let mut link = first;
        loop {
            let link = match link.take() {
                Some(link) => link,
                None => match self.reconnect(&mut backoff, &standing).await {
                    Some(link) => link,
                    None => return,
                },
            };
            let since = timer::now();
            let why = self.serve(link, &standing, watcher).await;
            if self.closing.get() {
                return;
            }
            // A server that accepts and hangs up at once must not be asked ever faster.
            backoff.lived(since.elapsed());
            self.is_down(&standing, why.clone());
            self.lose(&why, false);
            watcher.down();
        }
    }

    /// Takes nothing more, waits for the answers that are still to come, and lets the connection end.
    pub(crate) async fn close(&self, patience: Duration) {
        let answering = async {
            if self.connected.get() {
                self.settled(patience).await;
            }
            while self.connected.get() && !self.asked.borrow().is_empty() {
                timer::sleep(EXPIRE_EVERY).await;
            }
        };
        timer::timeout(patience, answering).await;
        self.closing.set(true);
        self.work.raise();
    }

    async fn reconnect(&self, backoff: &mut Backoff, standing: &Standing) -> Option<Link> {
        loop {
            timer::sleep(backoff.next_wait()).await;
            for _ in 0..self.choice().max(1) {
                if self.closing.get() {
                    return None;
                }
                match self.dial(self.settings.dial_wait).await {
                    Ok(link) => return Some(link),
                    Err(failure) => self.is_down(standing, text(failure)),
                }
            }
        }
    }

    async fn keep_expiring(&self) {
        loop {
            if self.asked.borrow().is_empty() {
                self.awaited.wait().await;
            }
            timer::sleep(EXPIRE_EVERY).await;
            self.expire(timer::now());
        }
    }

    /// Serves one connection, and returns why it ended.
    async fn serve(&self, link: Link, standing: &Standing, watcher: &impl Watcher) -> Why {
        let Link { reader, writer, decoder, info } = link;
        self.learn(info);
        self.epoch.set(self.epoch.get() + 1);
        self.connected.set(true);
        self.heard.set(true);
        self.broken.take();
        self.writer.replace(Some(writer));
        standing.is_up();
        watcher.up();
        let reading = self.read(reader, decoder, watcher);
        let writing = self.write();
        let watching = self.watch();
        pin_mut!(reading);
        pin_mut!(writing);
        pin_mut!(watching);
        let traffic = select(reading, writing);
        let why = match select(traffic, watching).await {
            Either::Left((Either::Left((why, _)) | Either::Right((why, _)), _)) | Either::Right((why, _)) => why,
        };
        // Whoever still writes on it has lost its turn.
        self.connected.set(false);
        drop::<Option<Writer>>(self.writer.take());
        why
    }

    /// Writes what nobody waits for, and returns why the connection ended.
    async fn write(&self) -> Why {
        loop {
            self.flush().await;
            if let Some(why) = self.broken.take() {
                return why;
            }
            let idle = self.queue.borrow().is_empty() && self.writer.borrow().is_some();
            if self.closing.get() && idle {
                return "closed".to_owned();
            }
            self.work.wait().await;
        }
    }

    /// Returns when the server has not been heard of for two periods, though asked; or when it is about to shut down, and there
    /// is another one.
    async fn watch(&self) -> Why {
        let (period, mut asked) = (self.settings.ping_every, false);
        loop {
            timer::sleep(period).await;
            match (self.heard.replace(false), asked) {
                (false, true) => return format!("no sign of life for {:?} (metadata pingInterval)", period * 2),
                (false, false) => {
                    asked = true;
                    self.ping(None);
                }
                (true, _) => asked = false,
            }
            if self.info.borrow().ldm && self.choice() > 1 {
                self.servers.borrow_mut().rotate_left(1);
                return "the server is about to shut down".to_owned();
            }
        }
    }

    async fn read(&self, mut reader: Reader, mut decoder: Decoder, watcher: &impl Watcher) -> Why {
        loop {
            loop {
                match decoder.next() {
                    Err(malformed) => return malformed.to_string(),
                    Ok(None) => break,
                    Ok(Some(op)) => {
                        if let Some(why) = self.take(op, watcher) {
                            return why;
                        }
                    }
                }
            }
            if let Err(error) = reader.read(decoder.room()).await {
                return error.to_string();
            }
            self.heard.set(true);
        }
    }

    /// Acts on what the server said. Returns why it will hang up.
    fn take(&self, op: Op<'_>, watcher: &impl Watcher) -> Option<Why> {
        match op {
            Op::Msg(msg) => self.take_message(msg),
            Op::Ping => self.say(PONG.to_vec()),
            Op::Pong => {
                if let Some(Some(who)) = self.pongs.borrow_mut().pop_front() {
                    // It may not wait any more.
                    who.send(()).ok();
                }
            }
            Op::Info(info) => self.learn(*info),
            Op::Ok => {}
            Op::Err(error) => return self.take_error(error, watcher),
        }
        None
    }

    fn take_message(&self, msg: Msg<'_>) {
        if msg.sid != INBOX_SID {
            let route = self.routes.borrow().get(&msg.sid).cloned();
            if let Some(route) = route {
                route(msg);
            }
            return;
        }
        let Some((number, part)) = self.numbers(msg.subject) else { return };
        let mut all = self.asked.borrow_mut();
        // An answer to what was given up is nobody's.
        let Some(asked) = all.get_mut(&number) else { return };
        if (asked.taker)(Answer::Msg(part, msg)) {
            all.remove(&number);
        }
    }

    fn numbers(&self, subject: &str) -> Option<(u64, usize)> {
        let (number, part) = subject.strip_prefix(&self.inbox)?.strip_prefix('.')?.split_once('.')?;
        Some((number.parse().ok()?, part.parse().ok()?))
    }

    fn take_error(&self, error: &str, watcher: &impl Watcher) -> Option<Why> {
        if let Some(subject) = denied_subject(error, "Subscription") {
            watcher.denied("subscribe to", subject);
            return None;
        }
        let Some(subject) = denied_subject(error, "Publish") else {
            // The server hangs up after all others but one that only says that a subject is no good.
            return (!error.starts_with("Invalid")).then(|| format!("NATS says: {error}"));
        };
        self.asked.borrow_mut().retain(|_, asked| !asked.written || !(asked.taker)(Answer::Denied(subject)));
        watcher.denied("publish to", subject);
        None
    }

    /// Takes in what the server says of itself and of others.
    fn learn(&self, info: Info) {
        if info.ldm && !self.info.borrow().ldm {
            log::warn("the NATS server is about to shut down (lame duck)");
        }
        let mut servers = self.servers.borrow_mut();
        for (host, port) in info.connect_urls.iter().filter_map(|url| address_of(url)) {
            let known = servers.iter().any(|server| server.host == host && server.port == port);
            if !known && servers.len() < SERVERS_MAX {
                let login = servers.front().and_then(|server| server.login.clone());
                let tls = servers.front().is_some_and(|server| server.tls);
                servers.push_back(Server { host, port, tls, login });
            }
        }
        drop(servers);
        self.info.replace(info);
    }
}
