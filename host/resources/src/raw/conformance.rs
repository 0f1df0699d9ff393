//! Our own kind `Conformance` (apiVersion `whimbrel.dev/v1alpha1`): what the conformance kit must know of a broker to
//! judge an adapter by it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::conformance::{Command, Conformance, Exception, Refused, TlsVariants};
use crate::duration::duration;
use crate::place::Place;
use crate::problem::Problem;

const SPEC_KEYS: [&str; 21] = [
    "address",
    "proxyListen",
    "start",
    "stop",
    "kill",
    "read",
    "prepare",
    "deleteTopic",
    "deleteGroup",
    "fill",
    "relieve",
    "rotate",
    "rotates",
    "secret",
    "tls",
    "dedup",
    "lease",
    "maxMessageBytes",
    "drain",
    "history",
    "notSupported",
];
const TLS_KEYS: [&str; 2] = ["metadata", "refused"];
const REFUSED_KEYS: [&str; 2] = ["metadata", "names"];
const EXCEPTION_KEYS: [&str; 2] = ["check", "reason"];

/// What a command's argument names the topic, the group and the secret with.
const TOPIC: &str = "{topic}";
const GROUP: &str = "{group}";
const SECRET: &str = "{secret}";

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
        start: command(&spec, "start", &[], problems),
        stop: command(&spec, "stop", &[], problems),
        kill: command(&spec, "kill", &[], problems),
        read: command(&spec, "read", &[TOPIC], problems),
        prepare: command(&spec, "prepare", &[TOPIC], problems),
        delete_topic: command(&spec, "deleteTopic", &[TOPIC], problems),
        delete_group: command(&spec, "deleteGroup", &[TOPIC, GROUP], problems),
        fill: command(&spec, "fill", &[], problems),
        relieve: command(&spec, "relieve", &[], problems),
        rotate: command(&spec, "rotate", &[SECRET], problems),
        rotates: spec.filled("rotates", problems).map(|name| name.trim().to_owned()),
        secret: spec.filled("secret", problems).map(str::to_owned),
        tls: tls(&spec, problems),
        dedup: spec.flag("dedup", problems),
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

/// A program and its arguments; one that is about a topic, say, must say where its name goes.
fn command(spec: &Place<'_>, key: &str, names: &[&str], problems: &mut Vec<Problem>) -> Command {
    let command = spec.texts(key, problems);
    let lacks = |name: &&&str| !command.iter().any(|word| word.contains(**name));
    if let (Some(place), Some(name)) = (spec.get(key), names.iter().find(lacks)) {
        let what = if *name == SECRET { "the secret" } else { "its name" };
        problems.push(place.error(format!("no argument holds {name}"), format!("it stands for {what}")));
    }
    command
}

fn tls(spec: &Place<'_>, problems: &mut Vec<Problem>) -> Option<TlsVariants> {
    let place = spec.section("tls", problems)?;
    place.warn_unknown(&TLS_KEYS, problems);
    place.required_section("metadata", "the settings with which TLS is spoken", problems);
    let items = place.items("refused", problems);
    if items.is_empty() {
        problems.push(place.error("refused: is missing".to_owned(), "a list of settings with which it must not open"));
    }
    let refused = items.iter().filter_map(|item| refused(item, problems)).collect();
    Some(TlsVariants { metadata: place.pairs("metadata", problems), refused })
}

fn refused(item: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Refused> {
    if !item.is_map(problems) {
        return None;
    }
    item.warn_unknown(&REFUSED_KEYS, problems);
    item.required_section("metadata", "the settings with which it must not open", problems);
    let names = item.required("names", "the setting that the error must name", problems)?;
    Some(Refused { metadata: item.pairs("metadata", problems), names: names.trim().to_owned() })
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
    if read.fill.is_empty() != read.relieve.is_empty() {
        let what = "one of fill and relieve without the other".to_owned();
        problems
            .push(spec.error(what, "name the command that has the broker store nothing, and the one that ends that"));
    }
    if read.rotate.is_empty() != read.rotates.is_none() {
        let what = "one of rotate and rotates without the other".to_owned();
        problems.push(spec.error(what, "name the command that changes the secret, and the setting that holds it"));
    }
    let (nodes, proxies) = (read.address.iter().flat_map(|all| all.split(',')).count(), read.proxy_listen.len());
    if nodes > 0 && proxies > 0 && nodes != proxies {
        let what = format!("proxyListen has {proxies} addresses, and address has {nodes}");
        problems.push(spec.error(what, "give one for each, in the same order"));
    }
    let commands = [&read.start, &read.fill, &read.delete_topic, &read.delete_group, &read.rotate];
    let outside = !read.proxy_listen.is_empty() || commands.iter().any(|command| !command.is_empty());
    if read.address.is_none() && outside {
        problems.push(spec.error("no address".to_owned(), "give the broker's, as the component's metadata has it"));
    }
}
