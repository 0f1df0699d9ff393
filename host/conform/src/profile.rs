//! What is judged: the component's resource, what is known of its broker, and how the plugin describes itself. Made by the
//! binary from the operator's file.

use std::net::SocketAddr;

use whimbrel_pubsub::{Features, Metrics};
use whimbrel_resources::{Component, Conformance, PluginManifest, Text};
use whimbrel_wasm::{BrokerSettings, Grants};

use crate::check::Wrong;

/// Shorter values are no secrets worth hiding, and would hide half of the report.
const SECRET_BYTES_MIN: usize = 4;

/// What is judged, and by what.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The resource as users write it.
    pub component: Component,
    /// What is known of the broker.
    pub conformance: Conformance,
    /// The plugin's own description, if it has one.
    pub manifest: Option<PluginManifest>,
}

impl Profile {
    /// The bytes a message may have, as the profile or the adapter has it.
    pub(crate) fn message_bytes_max(&self, features: &Features) -> Option<u64> {
        self.conformance.max_message_bytes.or(Some(features.max_message_bytes).filter(|bytes| *bytes > 0))
    }

    /// Where proxies find the broker, or each of its nodes.
    pub(crate) async fn broker_addresses(&self) -> Result<Vec<SocketAddr>, Wrong> {
        let Some(addresses) = &self.conformance.address else { return Err(Wrong::new("the profile names no address")) };
        let mut found = Vec::new();
        for address in addresses.split(',').map(str::trim) {
            let wrong =
                |why: String| Wrong::new(format!("no proxy can stand before the profile's address {address}: {why}"));
            let mut all = tokio::net::lookup_host(address).await.map_err(|error| wrong(error.to_string()))?;
            found.push(all.next().ok_or_else(|| wrong("the name has no address".to_owned()))?);
        }
        Ok(found)
    }

    /// The reason why a check is left out.
    pub(crate) fn exception(&self, id: &str) -> Option<&str> {
        let found = self.conformance.not_supported.iter().find(|exception| exception.check == id);
        found.map(|exception| exception.reason.as_str())
    }

    /// Values that must not be shown.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let sensitive = |name: &str| {
            let fields = self.manifest.iter().flat_map(|manifest| &manifest.fields);
            fields.into_iter().any(|field| field.sensitive && field.name.eq_ignore_ascii_case(name))
        };
        let secret = self.component.properties.iter().filter(|property| sensitive(&property.name));
        let values = secret.map(|property| property.value.reveal().to_owned()).chain(self.conformance.secret.clone());
        values.filter(|value| value.len() >= SECRET_BYTES_MIN).collect()
    }

    /// The component with other addresses of a broker in its settings, in place of all that the profile names; none: as it
    /// is.
    pub(crate) fn at(&self, addresses: &[SocketAddr]) -> Component {
        let mut component = self.component.clone();
        if let (Some(from), false) = (&self.conformance.address, addresses.is_empty()) {
            let to = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
            for property in &mut component.properties {
                property.value = Text::new(property.value.reveal().replace(from, &to));
            }
        }
        component
    }

    /// The same component with one setting's value in place of what it has, if anything.
    pub(crate) fn with(&self, name: &str, value: &str) -> Component {
        replaced(&self.component, &[(name.to_owned(), value.to_owned())])
    }

    /// The setting that holds what `rotate` changes, its value, and the part of it that is the secret.
    pub(crate) fn rotating(&self) -> Result<(&str, &str, &str), Wrong> {
        let name = self.conformance.rotates.as_deref().unwrap_or_default();
        let found = self.component.properties.iter().find(|property| property.name.eq_ignore_ascii_case(name));
        let value = found.map(|property| property.value.reveal());
        let secret = value.map(|value| self.conformance.secret.as_deref().unwrap_or(value));
        match (value, secret) {
            (Some(value), Some(secret)) if !secret.is_empty() && value.contains(secret) => Ok((name, value, secret)),
            _ => Err(Wrong::new(format!(
                "the profile's `rotates` is {name:?}, and the component's does not hold the secret"
            ))),
        }
    }

    /// What an adapter is started with: the settings, and where it may connect to.
    pub(crate) fn settings(&self, component: &Component, instance: &str) -> BrokerSettings {
        let mut grants = Grants::default();
        for (host, port) in self.manifest.iter().flat_map(|manifest| manifest.addresses(component)) {
            grants.allow(&host, port);
        }
        for pattern in &component.network {
            grants.allow_pattern(pattern);
        }
        let properties = component.properties.iter();
        BrokerSettings {
            name: component.name.clone(),
            properties: properties.map(|property| (property.name.clone(), property.value.clone())).collect(),
            instance: instance.to_owned(),
            grants,
            open_wait: component.init_timeout,
            metrics: Metrics::default(),
            batch_messages_max: None,
            trap_every: None,
        }
    }
}

/// The same component with these settings in place of what it has; one whose value is empty is left out.
pub(crate) fn replaced(component: &Component, settings: &[(String, String)]) -> Component {
    let mut component = component.clone();
    for (name, value) in settings {
        component.properties.retain(|property| !property.name.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            let (name, value, at) = (name.clone(), Text::new(value.clone()), component.at.clone());
            component.properties.push(whimbrel_resources::Property { name, value, at });
        }
    }
    component
}
