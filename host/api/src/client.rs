//! Asks a running host what an app would ask it, over its own HTTP API. Called by the commands for the terminal. Absent on
//! purpose: trying again; whoever sits at the terminal decides that.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client as Connections;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::timeout;
use whimbrel_resources::Text;

/// How long an answer may take: the broker's deadline, and some more.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// The largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A host's HTTP API, and the token for it.
#[derive(Debug)]
pub struct Client {
    authority: String,
    token: Option<HeaderValue>,
    connections: Connections<HttpConnector, Full<Bytes>>,
}

/// What a host answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The body as text; what is no text is replaced.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there: nothing was sent.
    #[error("no host answers at {authority}: {why}")]
    Unreachable {
        /// Where.
        authority: String,
        /// Why, for people.
        why: String,
    },
    /// The request was sent, and may have had its effect.
    #[error("the host at {authority} gave no answer, and may have done what was asked: {why}")]
    Lost {
        /// Where.
        authority: String,
        /// Why, for people.
        why: String,
    },
    /// It cannot be asked like this.
    #[error("{0}")]
    Invalid(String),
}

impl Client {
    /// A client for `HOST:PORT`; connects to nothing yet.
    ///
    /// # Errors
    /// The token cannot stand in a header.
    pub fn new(authority: String, token: Option<&Text>) -> Result<Self, AskError> {
        let token = token.map(|token| {
            let value = HeaderValue::from_str(token.reveal());
            let mut value =
                value.map_err(|_| AskError::Invalid("the API token cannot stand in a header".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        });
        let connections = Connections::builder(TokioExecutor::new()).build_http();
        Ok(Self { authority, token: token.transpose()?, connections })
    }

    /// Publishes one message: `POST /v1.0/publish/{pubsub}/{topic}`.
    ///
    /// # Errors
    /// See [`AskError`]; an answer that is no success is an answer.
    pub async fn publish(&self, place: &Place<'_>, content_type: &str, data: Bytes) -> Result<Answered, AskError> {
        self.post(&place.target("/v1.0/publish"), content_type, data).await
    }

    /// Publishes several: `POST /v1.0/publish/bulk/{pubsub}/{topic}`; the body is the list of entries.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn publish_bulk(&self, place: &Place<'_>, entries: Bytes) -> Result<Answered, AskError> {
        self.post(&place.target("/v1.0/publish/bulk"), "application/json", entries).await
    }

    /// Whether it can publish: `GET /v1.0/healthz/outbound`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn is_outbound_ready(&self) -> Result<bool, AskError> {
        let request = Request::get(format!("http://{}/v1.0/healthz/outbound", self.authority));
        let request = request.body(Full::default()).map_err(|error| AskError::Invalid(error.to_string()))?;
        Ok(self.exchange(request).await?.is_success())
    }

    async fn post(&self, target: &str, content_type: &str, body: Bytes) -> Result<Answered, AskError> {
        let mut request = Request::post(format!("http://{}{target}", self.authority));
        request = request.header(header::CONTENT_TYPE, content_type);
        if let Some(token) = &self.token {
            request = request.header("dapr-api-token", token);
        }
        let request = request.body(Full::new(body)).map_err(|error| AskError::Invalid(error.to_string()))?;
        let lost = |why: String| AskError::Lost { authority: self.authority.clone(), why };
        match timeout(ANSWER_WAIT, self.exchange(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(lost(format!("nothing came within {ANSWER_WAIT:?}"))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answered, AskError> {
        let authority = || self.authority.clone();
        let answer = self.connections.request(request).await.map_err(|error| {
            let why = innermost(&error);
            if error.is_connect() {
                AskError::Unreachable { authority: authority(), why }
            } else {
                AskError::Lost { authority: authority(), why }
            }
        })?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| AskError::Lost { authority: authority(), why: error.to_string() })?.to_bytes();
        Ok(Answered { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// Where to publish, and with what metadata.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The component.
    pub pubsub: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The message's metadata.
    pub metadata: &'a [(String, String)],
}

impl Place<'_> {
    /// The path and the query. Everything but letters and digits is escaped: a topic may be called `..` or hold slashes.
    fn target(&self, route: &str) -> String {
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut target = format!("{route}/{}/{}", escaped(self.pubsub), escaped(self.topic));
        for (index, (name, value)) in self.metadata.iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            target.push_str(&format!("{separator}metadata.{}={}", escaped(name), escaped(value)));
        }
        target
    }
}

impl Answered {
    /// Whether it was done.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The entries that were not published, with the reason for each; empty: the answer names none.
    #[must_use]
    pub fn failed_entries(&self) -> Vec<(String, String)> {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entries = body["failedEntries"].as_array().into_iter().flatten();
        entries.map(|entry| (text(&entry["entryId"]), text(&entry["error"]))).collect()
    }

    /// What was answered, for people: the status, the error code and the text where it has them.
    #[must_use]
    pub fn told(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        match (text("errorCode"), text("message")) {
            (Some(code), Some(message)) => format!("{} {code}: {message}", self.status),
            (Some(code), None) => format!("{} {code}", self.status),
            _ => format!("{} {}", self.status, self.body.trim()).trim_end().to_owned(),
        }
    }
}

/// The cause at the bottom, which says most to people.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests;
