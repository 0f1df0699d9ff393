//! A connection that is made again for ever. There are two: one to publish on, one to consume from, so that a broker that
//! holds up publishers does not hold up acknowledgements.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{Failure, timer};

use crate::bell::Bell;
use crate::config::Settings;
use crate::connection::{Link, dial};
use crate::failure::text;
use crate::gate::Gate;
use crate::health::Standing;
use crate::live::Live;

/// Those who wait for a connection, at most.
const WAITERS_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Wire {
    settings: Rc<Settings>,
    name: String,
    live: RefCell<Option<Rc<Live>>>,
    made: Bell,
    /// How many connections there were.
    serial: Cell<u64>,
    /// Why it is down.
    why: RefCell<String>,
    pub(crate) gate: Gate,
    /// The time, to a few seconds.
    now: Cell<Instant>,
    closing: Cell<bool>,
    ended: Bell,
}

impl Wire {
    /// A wire without a connection: [`run`](Self::run) makes one.
    pub(crate) fn new(settings: Rc<Settings>, name: String) -> Rc<Self> {
        Rc::new(Self {
            settings,
            name,
            live: RefCell::default(),
            made: Bell::default(),
            serial: Cell::new(0),
            why: RefCell::new("the connection is being made".to_owned()),
            gate: Gate::default(),
            now: Cell::new(timer::now()),
            closing: Cell::new(false),
            ended: Bell::default(),
        })
    }

    /// The time, to a few seconds, while there is a connection. To ask the host for it costs.
    pub(crate) fn about_now(&self) -> Instant {
        self.now.get()
    }

    /// The connection, now.
    pub(crate) fn current(&self) -> Option<Rc<Live>> {
        self.live.borrow().clone()
    }

    /// The connection; waits for it.
    ///
    /// # Errors
    /// `Transient`: there is none in time, and why.
    pub(crate) async fn live(&self, until: Instant) -> Result<Rc<Live>, Failure> {
        loop {
            if let Some(live) = self.current() {
                return Ok(live);
            }
            if self.closing.get() {
                return Err(Failure::Transient("the connection is closing".to_owned()));
            }
            if self.made.waiting() >= WAITERS_MAX {
                return Err(Failure::Transient("too many wait for the connection to RabbitMQ".to_owned()));
            }
            let left = until.saturating_duration_since(timer::now());
            if timer::timeout(left, self.made.wait()).await.is_none() {
                return Err(Failure::Transient(format!("no connection to RabbitMQ: {}", self.why.borrow())));
            }
        }
    }

    /// Serves until [`close`](Self::close).
    pub(crate) async fn run(&self, first: Option<Link>, standing: Standing) {
        let mut backoff = Backoff::default();
        let mut link = first;
        while !self.closing.get() {
            let Some(made) = link.take() else {
                link = self.dial(&standing).await;
                if link.is_none() {
                    timer::sleep(backoff.next_wait()).await;
                }
                continue;
            };
            self.serial.set(self.serial.get() + 1);
            let (live, reader, decoder) = Live::new(made, self.serial.get());
            self.live.replace(Some(Rc::clone(&live)));
            self.made.ring();
            standing.is_up();
            let since = timer::now();
            let why = live.serve(reader, decoder, &self.gate, |now| self.now.set(now)).await;
            self.live.take();
            if self.closing.get() {
                break;
            }
            // A broker that accepts and hangs up at once must not be asked ever faster.
            backoff.lived(timer::now().saturating_duration_since(since));
            standing.is_down(&why);
            self.why.replace(why);
            timer::sleep(backoff.next_wait()).await;
        }
        standing.is_up();
        self.made.ring();
        self.ended.ring();
    }

    async fn dial(&self, standing: &Standing) -> Option<Link> {
        match dial(&self.settings, &self.name, self.settings.dial_wait).await {
            Ok(link) => Some(link),
            Err(failure) => {
                let why = text(failure);
                standing.is_down(&why);
                self.why.replace(why);
                None
            }
        }
    }

    /// Says goodbye after what waits to be written, and lets the connection end.
    pub(crate) async fn close(&self, patience: Duration) {
        self.closing.set(true);
        self.made.ring();
        if let Some(live) = self.current() {
            live.close();
            // A broker that does not answer is left.
            timer::timeout(patience, self.ended.wait()).await;
        }
    }
}
