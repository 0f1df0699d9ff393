//! Secret stores and what is in them: a JSON file, the environment, or a folder of mounted secrets (pubsub-behaviour,
//! section 9). Read while resources are loaded, so that a reload sees what has changed. Absent on purpose: stores that
//! are asked over a network.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::folder;
use crate::surroundings::{Surroundings, kept_back};

/// The keys and values of one secret.
type Secret = HashMap<String, String>;

/// One store.
pub(crate) enum Store {
    /// `secretstores.local.file`, whole, and the file.
    File(HashMap<String, Secret>, PathBuf),
    /// `secretstores.local.env`: what every name begins with.
    Environment { prefix: String },
    /// `secretstores.kubernetes`: where each secret is a folder, and each of its keys a file.
    Folder(PathBuf),
}

impl Store {
    /// Reads a JSON file of secrets. Of several values, a nested one is named by its path with the separator between;
    /// `multi_valued`: each member at the top is a secret with keys of its own.
    ///
    /// # Errors
    /// It cannot be read, or is no JSON object. The text shows nothing of it.
    pub(crate) fn file(path: &Path, separator: &str, multi_valued: bool) -> Result<Self, String> {
        let bytes = folder::regular(path)?;
        let Ok(Value::Object(members)) = serde_json::from_slice(&bytes) else {
            return Err("the file of secrets is no JSON object".to_owned());
        };
        let mut secrets = HashMap::new();
        for (name, value) in members {
            let mut flat = Secret::new();
            match &value {
                Value::Object(nested) if multi_valued => {
                    nested.iter().for_each(|(key, value)| flatten(key, value, separator, &mut flat));
                    secrets.insert(name, flat);
                }
                _ => {
                    flatten(&name, &value, separator, &mut flat);
                    secrets.extend(flat.into_iter().map(|(key, value)| (key.clone(), Secret::from([(key, value)]))));
                }
            }
        }
        Ok(Self::File(secrets, path.to_owned()))
    }

    /// The value of a key of a secret. `None`: there is none, or it is not for resources.
    pub(crate) fn get(&self, name: &str, key: &str, surroundings: &Surroundings) -> Option<String> {
        match self {
            Self::File(secrets, _) => secrets.get(name)?.get(key).cloned(),
            Self::Environment { prefix } => {
                let variable = format!("{prefix}{name}");
                // A secret of the environment has one key: its name.
                (key == name && !kept_back(&variable)).then(|| surroundings.variable(&variable))?.map(str::to_owned)
            }
            Self::Folder(_) => String::from_utf8(folder::regular(&self.source(name, key)?).ok()?).ok(),
        }
    }

    /// The file that a key of a secret is in, or would be.
    pub(crate) fn source(&self, name: &str, key: &str) -> Option<PathBuf> {
        match self {
            Self::File(_, path) => Some(path.clone()),
            Self::Environment { .. } => None,
            Self::Folder(folder) => {
                let inside =
                    |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\0']);
                (inside(name) && inside(key)).then(|| folder.join(name).join(key))
            }
        }
    }
}

/// Nested values under the path that leads to them; an item of a list goes by its number. The reader of JSON stops at
/// 128 levels, and so does this.
fn flatten(path: &str, value: &Value, separator: &str, flat: &mut Secret) {
    let inside = |name: &str| format!("{path}{separator}{name}");
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| flatten(&inside(name), value, separator, flat));
        }
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(index, value)| flatten(&inside(&index.to_string()), value, separator, flat));
        }
        Value::String(text) => drop(flat.insert(path.to_owned(), text.clone())),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => drop(flat.insert(path.to_owned(), value.to_string())),
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

#[cfg(test)]
mod tests;
