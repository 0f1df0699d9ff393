//! Where the broker is, and as whom we come: one text, or a setting for each part.

use percent_encoding::percent_decode_str;
use whimbrel_sdk::Failure;
use whimbrel_sdk::properties::Properties;

use super::{choice, given, invalid};

const PLAIN_PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

/// What RabbitMQ takes from this machine alone, and what Dapr's component falls back to.
const DEFAULT_USER: &str = "guest";

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) vhost: String,
    pub(super) external: bool,
}

impl Address {
    /// Reads `connectionString` (of old `host`), or else `protocol`, `hostname`, `username` and `password`.
    pub(super) fn read(properties: &Properties<'_>) -> Result<Self, Failure> {
        let protocol = given(properties, "protocol");
        let tls = choice(properties, "protocol", &["amqp", "amqps"])? == "amqps";
        let whole = ["connectionString", "host"].into_iter().find_map(|name| Some((name, given(properties, name)?)));
        match whole {
            Some((name, text)) => {
                let address = Self::parse(name, &text)?;
                if protocol.is_some() && address.tls != tls {
                    return Err(invalid("protocol", &format!("contradicts {name}")));
                }
                Ok(address)
            }
            None => Self::of_parts(properties, tls),
        }
    }

    fn of_parts(properties: &Properties<'_>, tls: bool) -> Result<Self, Failure> {
        let name = "hostname";
        let Some(text) = given(properties, name) else {
            return Err(invalid("connectionString", "or hostname is required"));
        };
        let (host, port) = host_and_port(name, &text, tls)?;
        let (username, password) = (given(properties, "username"), given(properties, "password"));
        if password.is_some() && username.is_none() {
            return Err(invalid("username", "is required where password is set"));
        }
        let guest = username.is_none();
        Ok(Self {
            tls,
            host,
            port,
            username: username.unwrap_or_else(|| DEFAULT_USER.to_owned()),
            password: password.unwrap_or_else(|| if guest { DEFAULT_USER.to_owned() } else { String::new() }),
            vhost: "/".to_owned(),
            external: false,
        })
    }

    /// `amqp://user:password@host:port/vhost`, with what is special in the parts percent-encoded.
    fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| invalid(name, "must begin with amqp:// or amqps://"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(invalid(name, "must begin with amqp:// or amqps://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (host, port) = host_and_port(name, host, tls)?;
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((username, password)) => (decoded(name, username)?, decoded(name, password)?),
            None => (DEFAULT_USER.to_owned(), DEFAULT_USER.to_owned()),
        };
        // As Go's client reads it, which Dapr uses: no path, or an empty one, is the default virtual host.
        let vhost = if path.is_empty() { "/".to_owned() } else { decoded(name, path)? };
        Ok(Self { tls, host, port, username, password, vhost, external: external(name, query)? })
    }
}

/// Whether the query asks for it. Other parameters would change what we do, and must not be passed over in silence.
fn external(name: &str, query: &str) -> Result<bool, Failure> {
    let mut external = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("auth_mechanism", value) if value.eq_ignore_ascii_case("external") => external = true,
            ("auth_mechanism", value) if value.eq_ignore_ascii_case("plain") => {}
            _ => return Err(invalid(name, "has a parameter that is not supported: use the settings instead")),
        }
    }
    Ok(external)
}

fn decoded(name: &str, text: &str) -> Result<String, Failure> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(std::borrow::Cow::into_owned).map_err(|_| invalid(name, "is not UTF-8 once it is decoded"))
}

fn host_and_port(name: &str, text: &str, tls: bool) -> Result<(String, u16), Failure> {
    let wrong = || invalid(name, "must name one host, or host:port");
    // An IPv6 address has colons of its own; with a port it stands in brackets.
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let sound = |c: char| !c.is_whitespace() && !matches!(c, '/' | ',' | '@');
    if host.is_empty() || !host.chars().all(sound) {
        return Err(wrong());
    }
    let port = match port {
        None => {
            if tls {
                TLS_PORT
            } else {
                PLAIN_PORT
            }
        }
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
    };
    Ok((host.to_owned(), port))
}
