//! One file per kind: from a document's nodes to the validated thing, with every problem noted on the way.
//!
//! Called by `load`. A reader gives `None` only when it has noted why, or when the document is not for this process.
//! Absent on purpose: Dapr's `HTTPEndpoint`, which has no meaning here.

pub(crate) mod component;
pub(crate) mod configuration;
pub(crate) mod conformance;
pub(crate) mod handler;
pub(crate) mod resiliency;
pub(crate) mod secret_store;
pub(crate) mod subscription;

use std::path::{Path, PathBuf};

use crate::place::Place;
use crate::problem::Problem;

/// Keys that every resource may have at its root. `status` is what Kubernetes adds on export.
pub(crate) const ROOT_KEYS: [&str; 6] = ["apiVersion", "kind", "metadata", "spec", "scopes", "status"];

/// `metadata.name`, which must be there and fit into a path (pubsub-behaviour, section 9).
pub(crate) fn name(root: &Place<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    let metadata = root.required_section("metadata", "give the resource a name", problems)?;
    let name = metadata.required("name", "give the resource a name", problems)?;
    if name.contains(['/', '%']) || name == "." || name == ".." {
        let place = metadata.get("name").unwrap_or(metadata);
        problems.push(place.error(format!("{name:?} is no name"), "without `/` and `%`, and not `.` or `..`"));
        return None;
    }
    Some(name.to_owned())
}

/// `scopes`: the apps a resource is for; empty: all.
pub(crate) fn scopes(root: &Place<'_>, problems: &mut Vec<Problem>) -> Vec<String> {
    root.texts("scopes", problems)
}

/// `spec`, which must be a map.
pub(crate) fn spec<'a>(root: &Place<'a>, problems: &mut Vec<Problem>) -> Option<Place<'a>> {
    root.required_section("spec", "", problems)
}

/// A file named in a resource: relative to the folder that the resource stands in.
pub(crate) fn beside(resource: &Path, named: &str) -> PathBuf {
    resource.parent().map_or_else(|| PathBuf::from(named), |folder| folder.join(named))
}
