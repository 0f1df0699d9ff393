//! `natsURL`: one server or several, `nats://user:password@host:port, ...`.

use percent_encoding::percent_decode_str;
use whimbrel_sdk::Failure;

use super::{Secret, invalid};

/// Where no port is given.
const PORT: u16 = 4222;

const NAME: &str = "natsURL";

/// A server, and how this side says who it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `tls://`.
    pub(crate) tls: bool,
    /// Name and password; a token has no password.
    pub(crate) login: Option<(String, Option<Secret>)>,
}

/// All servers in a list.
///
/// # Errors
/// `Invalid`. The text never holds the URL, since that may hold a password.
pub(super) fn parse(list: &str) -> Result<Vec<Server>, Failure> {
    let urls = list.split(',').map(str::trim).filter(|url| !url.is_empty());
    let servers: Vec<Server> = urls.map(server).collect::<Result<_, _>>()?;
    if servers.is_empty() { Err(invalid(NAME, "is required")) } else { Ok(servers) }
}

fn server(url: &str) -> Result<Server, Failure> {
    let wrong = || invalid(NAME, "must be a list of URLs such as nats://user:password@host:4222");
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "nats" => false,
        "tls" => true,
        "ws" | "wss" => return Err(invalid(NAME, "names a WebSocket: use nats:// or tls://")),
        _ => return Err(wrong()),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, address) = match authority.rsplit_once('@') {
        None => (None, authority),
        Some((login, address)) => (Some(login), address),
    };
    let login = match login.map(|login| login.split_once(':').map_or((login, None), |(name, word)| (name, Some(word))))
    {
        None => None,
        Some((name, password)) => {
            let password = password.map(decoded).transpose().map_err(|()| wrong())?;
            Some((decoded(name).map_err(|()| wrong())?, password.map(Secret)))
        }
    };
    let (host, port) = address_of(address).ok_or_else(wrong)?;
    Ok(Server { host, port, tls, login })
}

/// An address as servers tell it of each other.
pub(crate) fn address_of(text: &str) -> Option<(String, u16)> {
    // An IPv6 address has colons of its own; with a port it stands in brackets.
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':')?)),
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None => PORT,
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
    };
    let sound = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
    sound.then(|| (host.to_owned(), port))
}

fn decoded(text: &str) -> Result<String, ()> {
    percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| ())
}
