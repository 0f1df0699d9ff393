//! What `plugin.yaml` lists, read and checked. Called once, when the connection opens.

use whimbrel_sdk::properties::Properties;
use whimbrel_sdk::{Config, Failure};

use super::queues::Limits;
use super::room::ROOM_BYTES;

/// Messages of one queue, when nothing is said.
const QUEUE_MESSAGES_DEFAULT: usize = 100_000;

/// Bytes of one queue, when nothing is said: well below what an instance may have in all.
const QUEUE_BYTES_DEFAULT: usize = 32 << 20;

/// Which broker to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As Dapr's component of the same name.
    Dapr,
    /// A queue for each topic and group.
    Queue,
}

/// The resource's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// `mode`.
    pub(super) mode: Mode,
    /// `maxQueueMessages` and `maxQueueBytes`.
    pub(super) limits: Limits,
}

impl Settings {
    /// Reads them; `Invalid` names the setting that does not parse.
    pub(super) fn read(config: &Config) -> Result<Self, Failure> {
        let properties = Properties::of(config);
        let mode = match properties.text("mode").map(str::trim).unwrap_or_default() {
            "" => Mode::Dapr,
            text if text.eq_ignore_ascii_case("dapr") => Mode::Dapr,
            text if text.eq_ignore_ascii_case("queue") => Mode::Queue,
            _ => return Err(Failure::Invalid("metadata mode is neither dapr nor queue".into())),
        };
        let limits = Limits {
            messages: properties.number("maxQueueMessages", QUEUE_MESSAGES_DEFAULT)?,
            bytes: properties.number("maxQueueBytes", QUEUE_BYTES_DEFAULT)?,
        };
        if limits.bytes > ROOM_BYTES {
            let text = format!("metadata maxQueueBytes is more than {ROOM_BYTES}, which all queues together may hold");
            return Err(Failure::Invalid(text));
        }
        Ok(Self { mode, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_sdk::Property;

    #[test]
    fn settings() {
        let check = |properties: &[(&str, &str)], expected: Result<(Mode, usize, usize), &str>| {
            let property = |(name, value): &(&str, &str)| Property { name: (*name).into(), value: (*value).into() };
            let properties_list = properties.iter().map(property).collect();
            let config = Config { name: "bus".into(), properties: properties_list, instance: "one".into() };
            let found = Settings::read(&config).map(|found| (found.mode, found.limits.messages, found.limits.bytes));
            let expected = expected.map_err(|text| Failure::Invalid(text.into()));
            assert_eq!(found, expected, "{properties:?}");
        };
        let (messages, bytes) = (QUEUE_MESSAGES_DEFAULT, QUEUE_BYTES_DEFAULT);
        check(&[], Ok((Mode::Dapr, messages, bytes)));
        check(&[("mode", "dapr")], Ok((Mode::Dapr, messages, bytes)));
        check(&[("MODE", " Queue ")], Ok((Mode::Queue, messages, bytes)));
        check(&[("mode", "queue"), ("maxqueuemessages", "5")], Ok((Mode::Queue, 5, bytes)));
        check(&[("maxQueueBytes", "134217728")], Ok((Mode::Dapr, messages, ROOM_BYTES)));
        let beyond = "metadata maxQueueBytes is more than 134217728, which all queues together may hold";
        check(&[("maxQueueBytes", "134217729")], Err(beyond));
        check(&[("maxQueueBytes", "77")], Ok((Mode::Dapr, messages, 77)));
        check(&[("mode", "redis")], Err("metadata mode is neither dapr nor queue"));
        check(&[("maxQueueBytes", "-1")], Err("metadata maxQueueBytes is not a whole number in range"));
        check(&[("maxQueueMessages", "many")], Err("metadata maxQueueMessages is not a whole number in range"));
    }
}
