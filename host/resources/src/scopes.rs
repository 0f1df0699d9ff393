//! The topic scoping grammar of a component's metadata (pubsub-behaviour, section 8.2). What it means for one topic is
//! decided in the data plane.

use std::collections::HashMap;

/// The four scoping items, parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicScopes {
    /// `allowedTopics`; empty: all.
    pub allowed: Vec<String>,
    /// `protectedTopics`: need an explicit grant.
    pub protected: Vec<String>,
    /// `publishingScopes`: the topics each named app may publish to.
    pub publishing: HashMap<String, Vec<String>>,
    /// `subscriptionScopes`: the topics each named app may subscribe to.
    pub subscription: HashMap<String, Vec<String>>,
}

/// The names of the four scoping items, as Dapr documents them. Compared without regard to case.
pub(crate) const SCOPING_ITEMS: [&str; 4] =
    ["allowedTopics", "protectedTopics", "publishingScopes", "subscriptionScopes"];

impl TopicScopes {
    /// Takes one scoping item in. The last one of a name counts, an empty value is as if it were not there. `false`: the
    /// name is not that of a scoping item.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> bool {
        let Some(item) = SCOPING_ITEMS.iter().position(|known| known.eq_ignore_ascii_case(name)) else { return false };
        let value = value.replace(' ', "");
        match item {
            0 => self.allowed = topics(&value),
            1 => self.protected = topics(&value),
            2 => self.publishing = apps(&value),
            _ => self.subscription = apps(&value),
        }
        true
    }
}

/// `app *( ";" app )`, an app being `id=topics`. One without `=` is ignored, and so is what follows a second `=`.
fn apps(value: &str) -> HashMap<String, Vec<String>> {
    let mut apps: HashMap<String, Vec<String>> = HashMap::new();
    for element in value.split(';') {
        let mut parts = element.split('=');
        if let (Some(app), Some(granted)) = (parts.next(), parts.next()) {
            // `app=` grants a topic without a name: nothing at all, but the app is restricted.
            apps.entry(app.to_owned()).or_default().extend(granted.split(',').map(str::to_owned));
        }
    }
    apps
}

fn topics(value: &str) -> Vec<String> {
    if value.is_empty() { Vec::new() } else { value.split(',').map(str::to_owned).collect() }
}

#[cfg(test)]
mod tests;
