//! Our own kind `Conformance` (apiVersion `whimbrel.dev/v1alpha1`): what the conformance kit must know of a broker to
//! judge an adapter by it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::conformance::{Command, Conformance, Exception};
use crate::duration::duration;
use crate::place::Place;
use crate::problem::Problem;

const SPEC_KEYS: [&str; 12] = [
    "address",
    "proxyListen",
    "start",
    "stop",
    "kill",
    "read",
    "prepare",
    "lease",
    "maxMessageBytes",
    "drain",
    "history",
    "notSupported",
];
const EXCEPTION_KEYS: [&str; 2] = ["check", "reason"];

/// What a command's argument names the topic with.
const TOPIC: &str = "{topic}";

/// What `proxyListen` is.
const LISTEN: &str = "an address such as 127.0.0.1:7000, or several with commas";

/// Reads it. An unknown key is a problem: whoever misspelled a setting would be judged by its default.
pub(crate) fn read(root: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Conformance> {
    root.warn_unknown(&super::ROOT_KEYS, problems);
    let spec = super::spec(root, problems)?;
    spec.warn_unknown(&SPEC_KEYS, problems);
    let sockets = |text: &str| text.split(',').map(|one| one.trim().parse::<SocketAddr>().ok()).collect();
    let bytes = |text: &str| text.parse::<u64>().ok().filter(|bytes| *bytes > 0);
    let (default, address) = (Conformance::default(), spec.filled("address", problems));
    let read = Conformance {
        address: address.map(|address| address.trim().to_owned()),
        proxy_listen: spec.parsed("proxyListen", LISTEN, sockets, problems).unwrap_or(default.proxy_listen),
        start: command(&spec, "start", false, problems),
        stop: command(&spec, "stop", false, problems),
        kill: command(&spec, "kill", false, problems),
        read: command(&spec, "read", true, problems),
        prepare: command(&spec, "prepare", true, problems),
        lease: time(&spec, "lease", default.lease, problems),
        max_message_bytes: spec.parsed("maxMessageBytes", "a number of bytes above zero", bytes, problems),
        drain: time(&spec, "drain", default.drain, problems),
        history: spec.parsed("history", "true or false", crate::yaml::boolean, problems).unwrap_or(default.history),
        not_supported: spec
            .items("notSupported", problems)
            .iter()
            .filter_map(|item| exception(item, problems))
            .collect(),
    };
    together(&spec, &read, problems);
    Some(read)
}

fn time(spec: &Place<'_>, key: &str, default: Duration, problems: &mut Vec<Problem>) -> Duration {
    spec.parsed(key, "a duration such as 2s", duration, problems).unwrap_or(default)
}

/// A program and its arguments; one that is about a topic must say where the topic's name goes.
fn command(spec: &Place<'_>, key: &str, of_topic: bool, problems: &mut Vec<Problem>) -> Command {
    let command = spec.texts(key, problems);
    if let Some(place) = spec.get(key).filter(|_| of_topic && !command.iter().any(|word| word.contains(TOPIC))) {
        problems.push(place.error(format!("no argument holds {TOPIC}"), "it stands for the topic's name"));
    }
    command
}

fn exception(item: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Exception> {
    if !item.is_map(problems) {
        return None;
    }
    item.warn_unknown(&EXCEPTION_KEYS, problems);
    let check = item.required("check", "the check's id, for example B9", problems);
    let reason = item.required("reason", "one sentence: why the broker cannot do it", problems);
    Some(Exception { check: check?.trim().to_ascii_uppercase(), reason: reason?.trim().to_owned() })
}

/// The commands that stop a broker are of use only together with the one that starts it again.
fn together(spec: &Place<'_>, read: &Conformance, problems: &mut Vec<Problem>) {
    for (key, command) in [("stop", &read.stop), ("kill", &read.kill)] {
        if !command.is_empty() && read.start.is_empty() {
            problems.push(spec.error(format!("{key} without start"), "name the command that starts the broker again"));
        }
    }
    let (nodes, proxies) = (read.address.iter().flat_map(|all| all.split(',')).count(), read.proxy_listen.len());
    if nodes > 0 && proxies > 0 && nodes != proxies {
        let what = format!("proxyListen has {proxies} addresses, and address has {nodes}");
        problems.push(spec.error(what, "give one for each, in the same order"));
    }
    if read.address.is_none() && (!read.proxy_listen.is_empty() || !read.start.is_empty()) {
        problems.push(spec.error("no address".to_owned(), "give the broker's, as the component's metadata has it"));
    }
}
