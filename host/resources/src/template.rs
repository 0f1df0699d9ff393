//! Templates in the values of a component's metadata: `{appID}`, `{namespace}`, `{podName}` and `{uuid}`
//! (pubsub-behaviour, section 7). Anything else in braces stays as it is.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use crate::surroundings::Surroundings;

/// The app.
pub(crate) const APP_ID: &str = "{appID}";
/// The namespace and the app; where it stands, topics get the namespace as their prefix, too.
pub(crate) const NAMESPACE: &str = "{namespace}";
/// The pod, which must be known.
pub(crate) const POD_NAME: &str = "{podName}";
/// A fresh UUID for each place where it stands.
pub(crate) const UUID: &str = "{uuid}";

/// What makes the UUIDs of one process unlike those of any other.
static SEEDS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);

/// What the templates in a value stand for.
pub(crate) struct Template<'a> {
    /// Of the process.
    pub(crate) surroundings: &'a Surroundings,
    /// Which value it is (component and property): in one process its UUIDs are always the same, so that a component
    /// that is read again is the same component.
    pub(crate) place: (&'a str, &'a str),
}

impl Template<'_> {
    /// The value with every template filled in but the app's: which app it is, is another's to say.
    ///
    /// # Errors
    /// It names the pod, and nobody knows the pod.
    pub(crate) fn fill(&self, mut value: &str) -> Result<String, &'static str> {
        let mut filled = String::with_capacity(value.len());
        while let Some((at, found)) = first(value) {
            filled.push_str(value.get(..at).unwrap_or_default());
            match found {
                NAMESPACE => filled.extend([self.surroundings.namespace(), ".", APP_ID]),
                POD_NAME => {
                    filled.push_str(self.surroundings.pod_name().ok_or("refers to {podName} but podName is not set")?)
                }
                _ => filled.push_str(&uuid(&(self.place, filled.len()))),
            }
            value = value.get(at + found.len()..).unwrap_or_default();
        }
        Ok(filled + value)
    }
}

/// What a filled value is for one app.
pub(crate) fn of_app(filled: &str, app_id: &str) -> String {
    filled.replace(APP_ID, app_id)
}

/// Where the first template stands, and which.
fn first(value: &str) -> Option<(usize, &'static str)> {
    let found = [NAMESPACE, POD_NAME, UUID].into_iter().filter_map(|tag| Some((value.find(tag)?, tag)));
    found.min_by_key(|(at, _)| *at)
}

/// A UUID of version 4: random to everybody outside of this process.
fn uuid(place: &impl std::hash::Hash) -> String {
    let [high, low] = SEEDS.each_ref().map(|seed| seed.hash_one(place));
    uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid().to_string()
}

#[cfg(test)]
mod tests;
