//! What goes wrong, and where: the setting `misbehave`, read and carried out. Called by the wrapped adapter.

use std::cell::Cell;
use std::hint::black_box;

use whimbrel_sdk::properties::Properties;
use whimbrel_sdk::{Config, Failure, log, net};

/// Lines of one log flood.
const FLOOD_LINES: usize = 20_000;

/// Bytes by which `grow` grows at a time.
const GROW_BYTES: usize = 1 << 20;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The component dies.
    Trap,
    /// It never comes back.
    Loop,
    /// It takes memory until it gets no more.
    Grow,
    /// It never answers, and serves everybody else meanwhile.
    Hang,
    /// It writes more lines than anybody wants, and goes on.
    FloodLog,
    /// It answers with one result too few.
    WrongResultCount,
    /// It connects to an address that nobody granted, and answers what came of it.
    ConnectElsewhere,
    /// Instead of messages it delivers rubbish, more than its credit, for ever.
    FloodDeliveries,
}

/// Where it goes wrong: a function of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Open,
    Publish,
    Subscribe,
    Settle,
    Close,
}

const DEEDS: [(&str, Deed); 8] = [
    ("trap", Deed::Trap),
    ("loop", Deed::Loop),
    ("grow", Deed::Grow),
    ("hang", Deed::Hang),
    ("flood-log", Deed::FloodLog),
    ("wrong-result-count", Deed::WrongResultCount),
    ("connect-elsewhere", Deed::ConnectElsewhere),
    ("flood-deliveries", Deed::FloodDeliveries),
];

const STEPS: [(&str, Step); 5] = [
    ("open", Step::Open),
    ("publish", Step::Publish),
    ("subscribe", Step::Subscribe),
    ("settle", Step::Settle),
    ("close", Step::Close),
];

/// One entry of the list.
#[derive(Debug)]
struct Fault {
    deed: Deed,
    step: Step,
    /// Every so many messages, settlements or calls.
    every: u64,
    seen: Cell<u64>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Faults {
    list: Vec<Fault>,
    topic: Option<String>,
    elsewhere: (String, u16),
}

impl Faults {
    /// Reads the settings; `Invalid` names the one that does not parse.
    pub(crate) fn read(config: &Config) -> Result<Self, Failure> {
        let properties = Properties::of(config);
        let list = properties.text("misbehave").unwrap_or_default();
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let list = names.map(parse).collect::<Option<_>>();
        let list = list.ok_or_else(|| Failure::Invalid("metadata misbehave has an unknown deed or step".into()))?;
        let elsewhere = properties.text("elsewhere").unwrap_or("127.0.0.1:1").rsplit_once(':');
        let elsewhere = elsewhere.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        let elsewhere = elsewhere.ok_or_else(|| Failure::Invalid("metadata elsewhere is not host:port".into()))?;
        Ok(Self { list, topic: properties.text("misbehave-topic").map(str::to_owned), elsewhere })
    }

    /// Whether anything goes wrong on this topic.
    pub(crate) fn concerns(&self, topic: &str) -> bool {
        self.topic.as_ref().is_none_or(|fated| fated == topic)
    }

    /// What goes wrong now, at a step that does so many things at once. Open and close have no topic.
    pub(crate) fn due(&self, step: Step, topic: &str, count: u64) -> Vec<Deed> {
        let topicless = matches!(step, Step::Open | Step::Close);
        let mut due = Vec::new();
        for fault in &self.list {
            if fault.step == step && (topicless || self.concerns(topic)) {
                let before = fault.seen.replace(fault.seen.get() + count);
                if fault.seen.get() / fault.every > before / fault.every {
                    due.push(fault.deed);
                }
            }
        }
        due
    }

    /// Does it. Only a connection to elsewhere makes an error, and it always does.
    pub(crate) async fn commit(&self, deeds: Vec<Deed>) -> Result<(), Failure> {
        for deed in deeds {
            match deed {
                Deed::Trap => std::process::abort(),
                Deed::Loop => loop {
                    black_box(0);
                },
                Deed::Grow => grow(),
                Deed::Hang => std::future::pending().await,
                Deed::FloodLog => (0..FLOOD_LINES).for_each(|line| log::warn(&format!("flood, line {line}"))),
                Deed::ConnectElsewhere => return Err(Failure::Permanent(self.connect().await)),
                // These show in the answer, which is not made here.
                Deed::WrongResultCount | Deed::FloodDeliveries => {}
            }
        }
        Ok(())
    }

    async fn connect(&self) -> String {
        let (host, port) = &self.elsewhere;
        match net::connect(host, *port, None).await {
            Ok(_) => format!("connected to {host}:{port}"),
            Err(error) => error.to_string(),
        }
    }
}

fn grow() {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; GROW_BYTES]);
        black_box(&all);
    }
}

fn parse(name: &str) -> Option<Fault> {
    let (name, every) = match name.split_once(':') {
        Some((name, every)) => (name, every.parse().ok().filter(|every| *every > 0)?),
        None => (name, 1),
    };
    let (deed, step) = match name {
        "close-hangs" => ("hang", "close"),
        "flood-deliveries" => (name, "subscribe"),
        "flood-log" | "wrong-result-count" | "connect-elsewhere" => (name, "publish"),
        _ => name.rsplit_once("-on-")?,
    };
    let deed = DEEDS.iter().find(|(known, _)| *known == deed)?.1;
    let step = STEPS.iter().find(|(known, _)| *known == step)?.1;
    Some(Fault { deed, step, every, seen: Cell::new(0) })
}
