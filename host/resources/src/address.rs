//! Network addresses in settings: `host`, `host:port`, a comma-separated list of them, or URLs.
//!
//! Called by `manifest`, to tell what an adapter may connect to. Absent on purpose: looking names up.

use std::net::Ipv6Addr;

/// A host name or IP address (without brackets), and a port.
pub(crate) type Address = (String, u16);

/// The ports that URL schemes stand for, where they differ from what else the same setting means.
const SCHEME_PORTS: [(&str, u16); 11] = [
    ("http", 80),
    ("https", 443),
    ("amqp", 5672),
    ("amqps", 5671),
    ("mqtt", 1883),
    ("tcp", 1883),
    ("mqtts", 8883),
    ("ssl", 8883),
    ("ws", 80),
    ("wss", 443),
    ("pulsar+ssl", 6651),
];

/// Every address in a text. `None`: at least one is none.
pub(crate) fn addresses(text: &str, default_port: u16) -> Option<Vec<Address>> {
    let mut port = default_port;
    let mut found = Vec::new();
    for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        let rest = match element.split_once("://") {
            Some((scheme, rest)) => {
                // In `amqps://a,b` the scheme is meant for both.
                port = scheme_port(scheme).unwrap_or(default_port);
                rest
            }
            None => element,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        found.push(host_and_port(host, port)?);
    }
    Some(found)
}

/// The port that a URL scheme stands for.
pub(crate) fn scheme_port(scheme: &str) -> Option<u16> {
    SCHEME_PORTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(scheme)).map(|(_, port)| *port)
}

fn host_and_port(text: &str, default_port: u16) -> Option<Address> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some((text.to_owned(), default_port));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => default_port,
    };
    let sound = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*');
    sound.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests;
