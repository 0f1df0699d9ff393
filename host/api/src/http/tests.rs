//! The OpenAPI document against the routes and the error table.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use http::Method;
use serde_json::Value;

use super::OPENAPI;
use super::route::Route;

const METHODS: [&str; 9] = ["get", "put", "post", "delete", "options", "head", "patch", "trace", "connect"];

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("a JSON document")
}

/// What the operations of a route are called. A new route does not compile until it is named here, and fails until it is
/// in the document.
fn operation(route: &Route<'_>) -> Option<&'static str> {
    match route {
        Route::Publish { .. } => Some("publish"),
        Route::BulkPublish { .. } => Some("bulkPublish"),
        Route::Health => Some("health"),
        Route::OutboundHealth => Some("outboundHealth"),
        Route::Metadata => Some("metadata"),
        Route::SetMetadata(_) => Some("setMetadata"),
        Route::Shutdown => Some("shutdown"),
        Route::OpenApi => Some("openapi"),
        Route::Other => None,
    }
}

/// The paths of this API; one with servers of its own is served elsewhere.
fn paths(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let all = document["paths"].as_object().expect("paths").iter();
    all.filter(|(_, path)| path.get("servers").is_none())
}

#[test]
fn the_document_has_each_route_and_each_route_is_in_it() {
    let document = document();
    for (path, operations) in paths(&document) {
        let filled = path.replace("{pubsubname}", "bus").replace("{topic}", "a/b").replace("{key}", "k");
        for name in METHODS {
            let method = Method::from_bytes(name.to_ascii_uppercase().as_bytes()).expect("a method");
            let route = Route::of(&method, &filled);
            let id = operations.get(name).map(|operation| operation["operationId"].as_str().expect("an id"));
            match (operation(&route), id) {
                (None, None) => {}
                (Some(known), Some(id)) => {
                    let variant = id.strip_prefix(known).unwrap_or_else(|| panic!("{name} {path}: {id}, not {known}"));
                    assert!(["", "ByPut", "Alpha", "AlphaByPut"].contains(&variant), "{name} {path}: {id}");
                }
                odd => panic!("{name} {path}: {odd:?}"),
            }
        }
    }
}

/// The paths that the routes are told by, as their source has them.
#[test]
fn each_path_of_the_routes_is_in_the_document() {
    let document = document();
    let source = include_str!("route.rs");
    let literals: BTreeSet<&str> = source.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/')).collect();
    assert!(literals.len() >= 8, "{literals:?}");
    for literal in literals {
        let is_known = paths(&document).any(|(path, _)| match path.strip_prefix(literal) {
            Some(rest) => rest.is_empty() || (literal.ends_with('/') && rest.starts_with('{')),
            None => false,
        });
        assert!(is_known, "{literal} is in no path of openapi.json");
    }
}

fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            text.push_str(&fs::read_to_string(&path).expect("text"));
        }
    }
}

fn check_words(text: &str, prefix: &str, listed: &Value) {
    let used: BTreeSet<&str> = text.split('"').filter(|word| word.starts_with(prefix)).collect();
    let listed: BTreeSet<&str> = listed.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(used, listed, "what the host answers, and what openapi.json lists");
}

#[test]
fn the_document_has_the_error_codes_and_reasons_of_the_table() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let schemas = &document()["components"]["schemas"];
    check_words(&text, "ERR_", &schemas["ErrorCode"]["enum"]);
    check_words(&text, "DAPR_PUBSUB_", &schemas["ErrorInfo"]["properties"]["reason"]["enum"]);
    // Each is declared for some answer, too.
    for code in schemas["ErrorCode"]["enum"].as_array().expect("a list") {
        let quoted = code.to_string();
        assert!(OPENAPI.matches(&quoted).count() >= 2, "{quoted} is the code of no response");
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
    for kind in ["parameters", "responses", "schemas"] {
        for name in document["components"][kind].as_object().expect("components").keys() {
            // What is served where nothing else is has no operation.
            let is_used = found.contains(&format!("#/components/{kind}/{name}")) || name == "NotRouted";
            assert!(is_used, "{kind} {name} is used nowhere");
        }
    }
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for operation in METHODS.iter().filter_map(|method| operations.get(method)) {
            assert!(ids.insert(operation["operationId"].as_str()), "{path}: its id is that of another");
            assert!(operation["responses"].as_object().is_some_and(|responses| !responses.is_empty()), "{path}");
        }
    }
}
