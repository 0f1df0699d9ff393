//! The schemas against the readers: whatever a reader asks for is in the schema, whatever is in the schema is asked for,
//! and what one of them refuses of a document's shape, the other does.

mod documents;
mod tree;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::place::asked;
use crate::problem::Severity;
use documents::{Read, committed, read};
use tree::{Tree, canonical, fullest, pointers};

fn parsed(schema: &Schema) -> Value {
    serde_json::from_str(schema.text).unwrap_or_else(|error| panic!("{}: {error}", schema.name))
}

fn validator(schema: &Schema) -> jsonschema::Validator {
    jsonschema::validator_for(&parsed(schema)).unwrap_or_else(|error| panic!("{}: {error}", schema.name))
}

/// Why a schema refuses a document, and where.
fn refusals(validator: &jsonschema::Validator, document: &Value) -> Vec<String> {
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn each_is_found_by_its_name_and_by_its_kind() {
    for (asked, name) in [
        ("component", "component"),
        ("Component", "component"),
        ("SECRET-STORE", "secret-store"),
        ("Subscription", "subscription-v2alpha1"),
        ("subscription-v1alpha1", "subscription-v1alpha1"),
        ("Resiliency", "resiliency"),
        ("Configuration", "configuration"),
        ("handler", "handler"),
        ("conformance", "conformance"),
    ] {
        assert_eq!(Schema::find(asked).map(|schema| schema.name), Some(name), "{asked}");
    }
    assert_eq!(Schema::find("Deployment"), None);
    for schema in SCHEMAS {
        let document = parsed(&schema);
        assert_eq!(document["properties"]["apiVersion"]["const"], schema.api_version, "{}", schema.name);
        assert_eq!(document["properties"]["kind"]["const"], schema.kind, "{}", schema.name);
        assert!(jsonschema::meta::is_valid(&document), "{}", schema.name);
    }
}

/// Keys of Dapr's that a schema names and no reader asks for.
fn may_be_unread(schema: &Value, path: &str) -> bool {
    let described = Tree::new(schema).at(path).and_then(|tree| tree.described());
    described.is_some_and(|text| text.to_lowercase().contains("not read"))
}

/// Somebody who gives a reader a new key adds it to the schema; somebody who takes one away takes it away there.
#[test]
fn the_keys_are_those_that_the_readers_ask_for() {
    for schema in SCHEMAS {
        let document = parsed(&schema);
        asked::take();
        let whole = fullest(&document);
        read(&schema, &whole);
        for (_, node) in committed().iter().filter(|(of, _)| of.name == schema.name) {
            read(&schema, &canonical(node, &document));
        }
        let mut known = BTreeSet::new();
        for (place, name) in asked::take() {
            let (path, tree) = Tree::new(&document).walk(&place).unwrap_or_else(|| panic!("{}: {place}", schema.name));
            let joined = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            assert!(tree.property(&name).is_some(), "{}: {joined} is read, and is not in the schema", schema.name);
            known.insert(joined);
        }
        for path in Tree::new(&document).properties() {
            let is_read = known.contains(&path) || may_be_unread(&document, &path);
            assert!(is_read, "{}: {path} is in the schema, and nobody reads it", schema.name);
        }
    }
}

/// A document with all that its schema names is one that the reader knows all of.
#[test]
fn the_fullest_document_is_understood() {
    for schema in SCHEMAS {
        let whole = fullest(&parsed(&schema));
        assert_eq!(refusals(&validator(&schema), &whole), Vec::<String>::new(), "{}: {whole}", schema.name);
        let Read { problems, .. } = read(&schema, &whole);
        let unclear: Vec<String> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error || problem.what == "unknown key")
            .map(ToString::to_string)
            .collect();
        assert!(unclear.is_empty(), "{}: {unclear:?} in {whole}", schema.name);
    }
}

/// Every document of the repository that its reader has nothing against is valid.
#[test]
fn what_the_readers_take_is_valid() {
    let mut sound = BTreeSet::new();
    for (schema, node) in committed() {
        let document = canonical(&node, &parsed(schema));
        let read = read(schema, &document);
        let refused = refusals(&validator(schema), &document);
        assert!(refused.is_empty() || !read.problems.is_empty(), "{refused:?}\n{document}");
        assert!(
            !refused.is_empty() || !read.is_misshapen(),
            "valid, and the reader says {:?}: {document}",
            read.problems
        );
        if refused.is_empty() {
            sound.insert(schema.name);
        }
    }
    assert_eq!(sound.len(), SCHEMAS.len(), "documents of each kind: {sound:?}");
}

/// What one wrong thing at one place may be.
fn damages(value: &Value) -> Vec<Value> {
    let mut damages =
        vec![json!("text"), json!(""), json!(" "), json!(7), json!(-1), json!(true), Value::Null, json!([]), json!({})];
    if let Value::Object(members) = value {
        let mut more = members.clone();
        more.insert("zzz".to_owned(), json!("unknown"));
        damages.push(Value::Object(more));
        for name in members.keys() {
            let mut fewer = members.clone();
            fewer.remove(name);
            damages.push(Value::Object(fewer));
        }
    }
    damages
}

/// One thing at a time is added, taken away or replaced: the schema refuses nothing that the reader has nothing against,
/// and everything whose shape the reader objects to.
#[test]
fn what_is_wrong_for_one_is_wrong_for_the_other() {
    let mut odd = Vec::new();
    for schema in SCHEMAS {
        let (document, validator) = (parsed(&schema), validator(&schema));
        let whole = fullest(&document);
        // Of secrets that are nowhere, and the like.
        let usual: Vec<String> = read(&schema, &whole).problems.iter().map(ToString::to_string).collect();
        let (mut taken, mut refused) = (0, 0);
        for place in pointers(&whole) {
            // Without these it is no resource of this kind.
            if ["", "/apiVersion", "/kind"].contains(&place.as_str()) {
                continue;
            }
            for damage in damages(whole.pointer(&place).expect("a place")) {
                let mut damaged = whole.clone();
                *damaged.pointer_mut(&place).expect("a place") = damage;
                if documents::schema_of(&damaged).is_none_or(|of| of.name != schema.name) {
                    continue;
                }
                let (mut read, wrong) = (read(&schema, &damaged), refusals(&validator, &damaged));
                read.problems.retain(|problem| !usual.contains(&problem.to_string()));
                let at = format!("{} {place}: {damaged}", schema.name);
                if !wrong.is_empty() && read.problems.is_empty() {
                    odd.push(format!("only the schema refuses: {wrong:?}\n{at}"));
                }
                if wrong.is_empty() && read.is_misshapen() {
                    odd.push(format!("only the reader refuses: {:?}\n{at}", read.problems));
                }
                if wrong.is_empty() { taken += 1 } else { refused += 1 }
            }
        }
        assert!(taken > 10 && refused > 10, "{}: {taken} taken, {refused} refused", schema.name);
    }
    assert!(odd.is_empty(), "{} differences\n{}", odd.len(), odd.join("\n"));
}
