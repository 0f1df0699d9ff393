//! Dapr's `Component`, as far as it is a secret store of this machine (pubsub-behaviour, section 9).

use std::path::PathBuf;

use crate::place::{Place, quoted};
use crate::problem::Problem;
use crate::secrets::Store;
use crate::yaml::boolean;

/// What separates the names on the way to a nested secret.
const DEFAULT_SEPARATOR: &str = ":";

/// What every secret store's type begins with.
const FAMILY: &str = "secretstores.";

/// As a component's; the store itself reads `type` and `metadata`.
const SPEC_KEYS: [&str; 5] = ["type", "version", "metadata", "initTimeout", "ignoreErrors"];
const ITEM_KEYS: [&str; 2] = ["name", "value"];

/// Whether a document is a secret store, of any type.
pub(crate) fn is_one(root: &Place<'_>) -> bool {
    let spec = root.section("spec", &mut Vec::new());
    let kind = spec.and_then(|spec| spec.text("type", &mut Vec::new()));
    kind.is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with(FAMILY))
}

/// Reads a secret store that is in scope, with its secrets. `None`: it is of a type that is not known here, with a
/// warning, or it cannot be read.
pub(crate) fn read(root: &Place<'_>, problems: &mut Vec<Problem>) -> Option<(String, Store)> {
    let name = super::name(root, problems)?;
    let spec = super::spec(root, problems)?;
    let kind = spec.text("type", problems)?.trim().to_ascii_lowercase();
    root.warn_unknown(&[&super::ROOT_KEYS[..], &["auth"]].concat(), problems);
    spec.warn_unknown(&SPEC_KEYS, problems);
    let settings = Settings::of(&spec, problems);
    let store = match kind.strip_prefix(FAMILY)? {
        "local.file" => {
            let file = settings.required("secretsFile", "the JSON file with the secrets", &spec, problems)?;
            let separator = settings.text("nestedSeparator").unwrap_or(DEFAULT_SEPARATOR);
            let multi_valued = settings.text("multiValued").and_then(boolean).unwrap_or_default();
            Store::file(&PathBuf::from(file), separator, multi_valued)
                .map_err(|what| problems.push(settings.at("secretsFile", &spec).error(what, "")))
                .ok()?
        }
        "local.env" => Store::Environment { prefix: settings.text("prefix").unwrap_or_default().to_owned() },
        "kubernetes" => {
            let hint = "the folder where each secret is mounted as a folder of its own";
            Store::Folder(PathBuf::from(settings.required("mountPath", hint, &spec, problems)?))
        }
        _ => {
            let what = format!("{} is no secret store that is known here, ignored", quoted(&kind));
            let known = "secretstores.local.file, secretstores.local.env or secretstores.kubernetes";
            problems.push(spec.get("type").unwrap_or(spec).warning(what, known));
            return None;
        }
    };
    Some((name, store))
}

/// The items of `spec.metadata` with a plain value, named without regard to case; of two, the last.
struct Settings<'a>(Vec<(&'a str, &'a str, Place<'a>)>);

impl<'a> Settings<'a> {
    fn of(spec: &Place<'a>, problems: &mut Vec<Problem>) -> Self {
        let items = spec.items("metadata", problems).into_iter();
        let mut read = |item: Place<'a>| {
            if !item.is_map(problems) {
                return None;
            }
            item.warn_unknown(&ITEM_KEYS, problems);
            let name = item.required("name", "each item is a name and a value", problems)?;
            Some((name, item.text("value", problems)?, item))
        };
        Self(items.filter_map(&mut read).collect())
    }

    fn find(&self, name: &str) -> Option<&(&'a str, &'a str, Place<'a>)> {
        self.0.iter().rev().find(|(known, value, _)| known.eq_ignore_ascii_case(name) && !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.find(name).map(|(_, value, _)| *value)
    }

    fn at(&self, name: &str, spec: &Place<'a>) -> Place<'a> {
        let place = self.find(name).map_or_else(|| spec.clone(), |(_, _, place)| place.clone());
        Place { key: format!("spec.metadata.{name}"), ..place }
    }

    fn required(&self, name: &str, hint: &str, spec: &Place<'a>, problems: &mut Vec<Problem>) -> Option<&'a str> {
        let found = self.text(name);
        if found.is_none() {
            problems.push(self.at(name, spec).error("is missing".to_owned(), hint));
        }
        found
    }
}
