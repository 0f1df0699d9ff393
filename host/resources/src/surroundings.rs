//! What resources may refer to outside of themselves: the environment of the process. Read once at start, and never
//! shown: it holds secrets that are nobody's business.

use std::collections::HashMap;
use std::fmt;

/// The namespace where the environment names none (pubsub-behaviour, section 12.9).
const DEFAULT_NAMESPACE: &str = "default";

/// The namespace of this process.
const NAMESPACE: &str = "NAMESPACE";

/// Names that `envRef` may use, separated by spaces; without it, all but those kept back.
const ALLOWED: &str = "DAPR_ENV_KEYS";

/// The environment variables of the process.
#[derive(Clone, Default)]
pub struct Surroundings {
    variables: HashMap<String, String>,
    denied_components: Vec<String>,
}

impl Surroundings {
    /// Those of this process. What is not UTF-8 is as if it were not there.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        std::env::vars_os().filter_map(text).collect()
    }

    /// The same with another `NAMESPACE`.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.variables.insert(NAMESPACE.to_owned(), namespace.to_owned());
        self
    }

    /// The same where components of these types (`pubsub.kafka`, `pubsub.kafka/v1`) are not loaded.
    #[must_use]
    pub fn deny(self, types: &[String]) -> Self {
        Self { denied_components: types.to_vec(), ..self }
    }

    /// Whether components of a type are not loaded.
    pub(crate) fn denies(&self, kind: &str, version: &str) -> bool {
        let is = |denied: &String| match denied.split_once('/') {
            None => denied.eq_ignore_ascii_case(kind),
            Some((of, which)) => of.eq_ignore_ascii_case(kind) && which.eq_ignore_ascii_case(version),
        };
        self.denied_components.iter().any(is)
    }

    /// A variable. One that is empty is as if it were not there.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `NAMESPACE`, if it is set.
    pub(crate) fn own_namespace(&self) -> Option<&str> {
        self.variable(NAMESPACE)
    }

    /// `NAMESPACE`, or what stands in for it.
    pub(crate) fn namespace(&self) -> &str {
        self.own_namespace().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// `POD_NAME`.
    pub(crate) fn pod_name(&self) -> Option<&str> {
        self.variable("POD_NAME")
    }

    /// Whether a resource may have the value of a variable by `envRef` (pubsub-behaviour, section 9).
    pub(crate) fn may_refer_to(&self, name: &str) -> bool {
        let listed = || self.variable(ALLOWED).is_none_or(|names| names.split(' ').any(|listed| listed == name));
        !name.contains(char::is_whitespace) && !kept_back(name) && listed()
    }
}

/// The tokens of the API and what else is the host's own: no resource gets to see it.
pub(crate) fn kept_back(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name == "APP_API_TOKEN" || name.starts_with("DAPR_")
}

impl FromIterator<(String, String)> for Surroundings {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { variables: variables.into_iter().collect(), denied_components: Vec::new() }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
