//! The repository's own resources, and what their readers say of a document.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::{SCHEMAS, Schema};
use crate::configuration::Configuration;
use crate::folder;
use crate::load;
use crate::place::Place;
use crate::problem::Problem;
use crate::raw;
use crate::surroundings::Surroundings;

/// What a reader said.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) problems: Vec<Problem>,
}

impl Read {
    /// Whether something is where it must not be, or is not where it must be.
    pub(super) fn is_misshapen(&self) -> bool {
        let shapes = |problem: &Problem| {
            let what = problem.what.as_str();
            // Needed by one type of secret store alone, in a list.
            let is_setting = problem.key.starts_with("spec.metadata.");
            what == "unknown key" || what.starts_with("expected a ") || (what == "is missing" && !is_setting)
        };
        self.problems.iter().any(shapes)
    }
}

/// Reads a document as the host does, or the kit. JSON is YAML.
pub(super) fn read(schema: &Schema, document: &Value) -> Read {
    let mut problems = Vec::new();
    let documents = folder::parse(Path::new("f.yaml"), document.to_string().as_bytes(), &mut problems);
    let [only] = &documents[..] else { panic!("one document: {problems:?} {document}") };
    let root = Place::root(&only.file, &only.root);
    match schema.kind {
        "Conformance" => {
            raw::conformance::read(&root, &mut problems);
            return Read { problems };
        }
        "Configuration" => {
            raw::configuration::read(&root, &mut Configuration::default(), &mut problems);
            return Read { problems };
        }
        _ => {}
    }
    // Scopes name whoever they like.
    let scopes = document["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let apps: Vec<&str> = std::iter::once("me").chain(scopes).collect();
    let (_, problems) = load::snapshot(&documents, &apps, &Surroundings::default(), problems);
    Read { problems: problems.0 }
}

/// The schema of a document, by what it says it is.
pub(super) fn schema_of(document: &Value) -> Option<&'static Schema> {
    let is_store = document["spec"]["type"]
        .as_str()
        .is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("secretstores."));
    SCHEMAS.iter().find(|schema| {
        document["apiVersion"] == schema.api_version
            && document["kind"] == schema.kind
            && (schema.kind != "Component" || is_store == (schema.name == "secret-store"))
    })
}

/// The documents of the tests, the examples and the kit that are of a kind with a schema.
pub(super) fn committed() -> Vec<(&'static Schema, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = [
        "host/resources/tests/valid",
        "host/resources/tests/invalid",
        "host/resources/tests/configuration",
        "tests/conformance/in_memory",
        "examples",
    ];
    let mut files = Vec::new();
    folders.iter().for_each(|folder| find(&root.join(folder), &mut files));
    let mut found = Vec::new();
    for file in files {
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for document in folder::parse(&file, &bytes, &mut Vec::new()) {
            let value: Value = serde_json::from_str(&document.root.json()).expect("JSON");
            found.extend(schema_of(&roots_spelled(&value)).map(|schema| (schema, value)));
        }
    }
    assert!(found.len() > 40, "only {} documents were found", found.len());
    found
}

/// Root keys and the type, spelled as they are documented: enough to tell the kind.
fn roots_spelled(value: &Value) -> Value {
    SCHEMAS.iter().fold(value.clone(), |value, schema| super::canonical(&value, &super::parsed(schema)))
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
}
