//! Which requests are traced, and who is told: `spec.tracing` of a `Configuration`, and OpenTelemetry's variables of the
//! environment (pubsub-behaviour 12.9 and 13.3). Called by `configuration` and its reader.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::address::addresses;
use crate::configuration::Protocol;
use crate::snapshot::Text;
use crate::surroundings::Surroundings;

/// The part of all traces that is sampled where nobody says it, as Dapr's.
const SAMPLING_RATE_DEFAULT: f64 = 0.0001;

/// Headers of an exporter that are read.
const HEADERS_MAX: usize = 64;

/// Which requests are traced, and who is told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tracing {
    /// `samplingRate`: the part of all, from 0 to 1. None: not said.
    pub sampling_rate: Option<f64>,
    /// `stdout`: on the standard output.
    pub stdout: bool,
    /// `zipkin.endpointAddress`: a URL.
    pub zipkin: Option<Text>,
    /// `otel`.
    pub otel: Option<Otel>,
}

/// A collector that speaks OTLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otel {
    /// `endpointAddress`, as a URL.
    pub endpoint: Text,
    /// `protocol`: `grpc` where it does not say.
    pub protocol: Protocol,
    /// `headers`: sent with every export, names in lower case.
    pub headers: Vec<(String, Text)>,
    /// `timeout`, how long one export may take. None: not said.
    pub timeout: Option<Duration>,
}

impl Tracing {
    /// The part of all traces that is sampled, from 0 to 1; 0: there are no traces.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sampling_rate.unwrap_or(SAMPLING_RATE_DEFAULT)
    }

    /// Whether anybody is told.
    #[must_use]
    pub fn is_exported(&self) -> bool {
        self.stdout || self.zipkin.is_some() || self.otel.is_some()
    }

    /// Adds what the environment says and the files do not. A collector that only the environment names gets all traces,
    /// unless the files say otherwise.
    ///
    /// # Errors
    /// The variables that cannot be read, and what they must be.
    pub(crate) fn add_environment(&mut self, surroundings: &Surroundings) -> Result<(), Vec<(String, &'static str)>> {
        let mut wrong = Vec::new();
        let variable = |name: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
            let set = |name: &String| surroundings.variable(name).map(str::trim).filter(|value| !value.is_empty());
            names.into_iter().find_map(|name| Some((set(&name)?.to_owned(), name)))
        };
        if self.otel.is_none()
            && let Some((address, name)) = variable("ENDPOINT")
        {
            let is_http = variable("PROTOCOL").is_some_and(|(protocol, _)| protocol.starts_with("http"));
            let protocol = if is_http { Protocol::Http } else { Protocol::Grpc };
            let insecure = variable("INSECURE").is_some_and(|(insecure, _)| insecure.eq_ignore_ascii_case("true"));
            match otlp_endpoint(&address, !insecure, protocol) {
                Some(endpoint) => {
                    self.otel = Some(Otel { endpoint, protocol, headers: Vec::new(), timeout: None });
                    self.sampling_rate = self.sampling_rate.or(Some(1.0));
                }
                None => wrong.push((name, ENDPOINT_FORM)),
            }
        }
        if let Some(otel) = &mut self.otel {
            if otel.headers.is_empty()
                && let Some((text, name)) = variable("HEADERS")
            {
                match headers(&text) {
                    Some(headers) => otel.headers = headers,
                    None => wrong.push((name, HEADERS_FORM)),
                }
            }
            if otel.timeout.is_none()
                && let Some((text, name)) = variable("TIMEOUT")
            {
                match text.parse().ok().filter(|millis| *millis > 0) {
                    Some(millis) => otel.timeout = Some(Duration::from_millis(millis)),
                    None => wrong.push((name, "must be a number of milliseconds")),
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// What an endpoint must be.
pub(crate) const ENDPOINT_FORM: &str = "must be HOST:PORT or an http or https URL, without a user's name and password";

/// What the headers must be.
pub(crate) const HEADERS_FORM: &str = "must be NAME=VALUE,NAME=VALUE";

/// Where OTLP goes to, as a URL. `None`: that is no address. `secure`: TLS, where the address is no URL.
pub(crate) fn otlp_endpoint(text: &str, secure: bool, protocol: Protocol) -> Option<Text> {
    let scheme = if secure { "https" } else { "http" };
    match protocol {
        Protocol::Grpc => url(text, Some((scheme, 4317)), ""),
        Protocol::Http => url(text, Some((scheme, 4318)), "/v1/traces"),
    }
}

/// Where Zipkin's spans go to. `None`: that is no URL.
pub(crate) fn zipkin_endpoint(text: &str) -> Option<Text> {
    url(text, None, "/api/v2/spans")
}

/// A URL, or what is one with this scheme and this port if it has none. It gets the path if it has none.
fn url(text: &str, otherwise: Option<(&str, u16)>, default_path: &str) -> Option<Text> {
    let lower = text.to_ascii_lowercase();
    let (scheme, rest, port) = match (lower.split_once("://"), otherwise) {
        (Some(("http", _)), _) => ("http", &text[7..], 80),
        (Some(("https", _)), _) => ("https", &text[8..], 443),
        (None, Some((scheme, port))) => (scheme, text, port),
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !authority.contains(['@', ',']);
    let found = addresses(authority, port).filter(|_| is_plain)?;
    let [(host, port)] = &*found else { return None };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let path = if path.is_empty() || path == "/" { default_path } else { path };
    Some(Text::new(format!("{scheme}://{host}:{port}{path}")))
}

/// `NAME=VALUE,NAME=VALUE`, percent-encoded where it must be. `None`: it is something else.
pub(crate) fn headers(text: &str) -> Option<Vec<(String, Text)>> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let headers: Option<Vec<_>> = pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            header(name, &percent_decode_str(value.trim()).decode_utf8().ok()?)
        })
        .collect();
    headers.filter(|headers| headers.len() <= HEADERS_MAX)
}

/// One header, its name in lower case. `None`: it cannot be one.
pub(crate) fn header(name: &str, value: &str) -> Option<(String, Text)> {
    let name = name.trim().to_ascii_lowercase();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let is_value = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    (is_name && is_value).then(|| (name, Text::new(value.to_owned())))
}

#[cfg(test)]
mod tests;
