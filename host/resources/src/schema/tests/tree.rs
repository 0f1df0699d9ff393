//! A schema as a tree of keys, and documents made from it.

use serde_json::{Map, Value, json};

/// A place in a schema, references followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'a> {
    root: &'a Value,
    /// As it stands, where its description is.
    stands: &'a Value,
    node: &'a Value,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        Self { root, stands: root, node: root }
    }

    fn inside(&self, stands: &'a Value) -> Self {
        let target = stands["$ref"].as_str().and_then(|reference| self.root.pointer(reference.trim_start_matches('#')));
        Self { root: self.root, stands, node: target.unwrap_or(stands) }
    }

    pub(super) fn described(&self) -> Option<&'a str> {
        self.stands["description"].as_str()
    }

    pub(super) fn property(&self, name: &str) -> Option<Self> {
        self.node["properties"].get(name).map(|node| self.inside(node))
    }

    /// What a segment of a reader's path leads to, and how it is written for all of its like.
    fn step(&self, segment: &str) -> Option<(String, Self)> {
        if let Some(found) = self.property(segment) {
            return Some((segment.to_owned(), found));
        }
        let any = |key: &str, name: &str| {
            let node = self.node.get(key).filter(|node| node.is_object())?;
            Some((name.to_owned(), self.inside(node)))
        };
        any("items", "[]").or_else(|| any("additionalProperties", "*"))
    }

    /// A reader's path, such as `spec.policies.retries.again` or `spec.metadata[3]`.
    pub(super) fn walk(self, path: &str) -> Option<(String, Self)> {
        let spread = path.replace('[', ".[");
        let mut walked = (Vec::new(), self);
        for segment in spread.split('.').filter(|segment| !segment.is_empty()) {
            let (name, next) = walked.1.step(segment)?;
            walked.0.push(name);
            walked.1 = next;
        }
        Some((walked.0.join("."), walked.1))
    }

    /// A path as [`Tree::properties`] gives it.
    pub(super) fn at(self, path: &str) -> Option<Self> {
        // The one name with dots in it stands last.
        let (place, name) = path.split_once("annotations.").map_or_else(
            || path.rsplit_once('.').unwrap_or(("", path)),
            |(place, name)| (&path[..place.len() + "annotations".len()], name),
        );
        self.walk(place)?.1.property(name)
    }

    /// The paths of all properties, with `[]` for the items of a list and `*` for names that are free.
    pub(super) fn properties(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let mut below = |name: &str, tree: Self| {
            paths.extend(tree.properties().into_iter().map(|path| format!("{name}.{path}")));
        };
        for key in ["items", "additionalProperties"] {
            if let Some(node) = self.node.get(key).filter(|node| node.is_object()) {
                below(if key == "items" { "[]" } else { "*" }, self.inside(node));
            }
        }
        for (name, node) in self.node["properties"].as_object().into_iter().flatten() {
            below(name, self.inside(node));
        }
        paths.extend(self.node["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        paths
    }

    fn fullest(&self) -> Value {
        let of = |key: &str| self.stands.get(key).or_else(|| self.node.get(key));
        if let Some(fixed) = of("const") {
            return fixed.clone();
        }
        if let Some(example) = of("examples").and_then(|examples| examples.get(0)) {
            return example.clone();
        }
        let types = self.node["type"].as_array().cloned().unwrap_or_else(|| vec![self.node["type"].clone()]);
        match types.first().and_then(Value::as_str).unwrap_or_default() {
            "object" => {
                let mut members = Map::new();
                // What must never be there is named with `false`.
                let may_be = |(_, node): &(&String, &Value)| **node != Value::Bool(false);
                for (name, node) in self.node["properties"].as_object().into_iter().flatten().filter(may_be) {
                    members.insert(name.clone(), self.inside(node).fullest());
                }
                if let Some(node) = self.node.get("additionalProperties").filter(|node| node.is_object()) {
                    members.insert("any".to_owned(), self.inside(node).fullest());
                }
                Value::Object(members)
            }
            "array" => json!([self.inside(&self.node["items"]).fullest()]),
            "boolean" => json!(true),
            "integer" => json!(3),
            _ => json!("x"),
        }
    }
}

/// A document with everything that a schema names.
pub(super) fn fullest(schema: &Value) -> Value {
    Tree::new(schema).fullest()
}

/// A document with its keys spelled as its schema spells them.
pub(super) fn canonical(document: &Value, schema: &Value) -> Value {
    spelled(document, Some(Tree::new(schema)))
}

fn spelled(value: &Value, tree: Option<Tree<'_>>) -> Value {
    match value {
        Value::Object(members) => {
            let known = tree.and_then(|tree| tree.node["properties"].as_object());
            let spelling = |key: &String| {
                let names = known.into_iter().flat_map(Map::keys);
                names.into_iter().find(|name| name.eq_ignore_ascii_case(key)).unwrap_or(key).clone()
            };
            let member = |(key, value): (&String, &Value)| {
                let name = spelling(key);
                let below = tree.and_then(|tree| tree.step(&name)).map(|(_, tree)| tree);
                (name, spelled(value, below))
            };
            Value::Object(members.iter().map(member).collect())
        }
        Value::Array(items) => {
            let below = tree.and_then(|tree| tree.step("[0]")).map(|(_, tree)| tree);
            Value::Array(items.iter().map(|item| spelled(item, below)).collect())
        }
        other => other.clone(),
    }
}

/// The JSON pointers of every value in a document.
pub(super) fn pointers(value: &Value) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut below = |name: String, value: &Value| {
        let name = name.replace('~', "~0").replace('/', "~1");
        all.extend(pointers(value).into_iter().map(|rest| format!("/{name}{rest}")));
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| below(name.clone(), value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| below(index.to_string(), value)),
        _ => {}
    }
    all
}
