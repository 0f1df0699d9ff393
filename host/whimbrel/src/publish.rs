//! `whimbrel publish`: publishes from the terminal, as an app of a running host would.

mod lines;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use whimbrel_api::{Client, Place};
use whimbrel_resources::Text;

use crate::error::Exit;

/// The largest message that is read, bytes; the host has a limit of its own.
const DATA_BYTES_MAX: u64 = 64 << 20;

/// The flags of `whimbrel publish`.
#[derive(Debug, Clone, clap::Args)]
pub struct PublishArguments {
    /// The component.
    #[arg(long)]
    pub pubsub: String,
    /// The topic.
    #[arg(long)]
    pub topic: String,
    /// The data. Without it and --file, what comes on the standard input.
    #[arg(long, conflicts_with = "file", allow_hyphen_values = true)]
    pub data: Option<String>,
    /// A file with the data.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Each line is a message; several are sent at a time.
    #[arg(long)]
    pub lines: bool,
    /// Metadata of the messages: NAME=VALUE, such as ttlInSeconds=60 or rawPayload=true. May be given several times.
    #[arg(long, value_parser = pair)]
    pub metadata: Vec<(String, String)>,
    /// The content type. Without it: application/cloudevents+json for what looks like a CloudEvent, application/json for
    /// other JSON, text/plain for other text, application/octet-stream for the rest.
    #[arg(long)]
    pub content_type: Option<String>,
    /// The port of the host's HTTP API.
    #[arg(long, env = "DAPR_HTTP_PORT", default_value_t = 3500)]
    pub dapr_http_port: u16,
    /// The host's address.
    #[arg(long, default_value = "127.0.0.1")]
    pub dapr_address: String,
}

/// `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text} is not NAME=VALUE"))?;
    if name.is_empty() { Err(format!("{text} has no name")) } else { Ok((name.to_owned(), value.to_owned())) }
}

/// Publishes, and says what went wrong. The token is that of the environment (`DAPR_API_TOKEN`).
pub(crate) fn answer(arguments: &PublishArguments) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime");
    match runtime.and_then(|runtime| runtime.block_on(publish(arguments))) {
        Ok(()) => Exit::Drained,
        Err(error) => {
            writeln!(std::io::stderr(), "{error:#}").ok();
            Exit::Failed
        }
    }
}

async fn publish(arguments: &PublishArguments) -> Result<()> {
    let token = std::env::var("DAPR_API_TOKEN").ok().filter(|token| !token.is_empty()).map(Text::new);
    let authority = format!("{}:{}", arguments.dapr_address, arguments.dapr_http_port);
    let client = Client::new(authority, token.as_ref())?;
    let PublishArguments { pubsub, topic, metadata, .. } = arguments;
    let place = Place { pubsub, topic, metadata };
    if arguments.lines {
        return lines::publish(&client, &place, source(arguments)?, arguments.content_type.as_deref()).await;
    }
    let mut data = Vec::new();
    source(arguments)?.take(DATA_BYTES_MAX + 1).read_to_end(&mut data).context("reading the data")?;
    if data.len() as u64 > DATA_BYTES_MAX {
        bail!("the data is larger than {DATA_BYTES_MAX} bytes");
    }
    let content_type = arguments.content_type.as_deref().unwrap_or_else(|| looks_like(&data));
    let answered = client.publish(&place, content_type, data.into()).await.map_err(with_hint)?;
    if answered.is_success() { Ok(()) } else { bail!("the host answered {}", answered.told()) }
}

/// What to look at when nobody answers.
fn with_hint(error: whimbrel_api::AskError) -> anyhow::Error {
    let is_away = matches!(error, whimbrel_api::AskError::Unreachable { .. });
    let hint = if is_away { " (is `whimbrel run` running there? --dapr-http-port, --dapr-address)" } else { "" };
    anyhow::anyhow!("{error}{hint}")
}

/// Where the data is.
fn source(arguments: &PublishArguments) -> Result<Box<dyn std::io::Read + Send>> {
    match (&arguments.data, &arguments.file) {
        (Some(data), _) => Ok(Box::new(std::io::Cursor::new(data.clone().into_bytes()))),
        (None, Some(file)) => Ok(Box::new(open(file)?)),
        (None, None) => Ok(Box::new(std::io::stdin())),
    }
}

fn open(file: &Path) -> Result<std::fs::File> {
    std::fs::File::open(file).with_context(|| format!("--file {}", file.display()))
}

/// The content type of data that came without one.
fn looks_like(data: &[u8]) -> &'static str {
    let attributes = ["specversion", "id", "source", "type"];
    match serde_json::from_slice::<Value>(data) {
        Ok(Value::Object(members))
            if attributes.iter().all(|name| members.get(*name).is_some_and(Value::is_string)) =>
        {
            "application/cloudevents+json"
        }
        Ok(_) => "application/json",
        Err(_) if std::str::from_utf8(data).is_ok() => "text/plain",
        Err(_) => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
