//! YAML text to a small tree of nodes that know their lines.
//!
//! Called by `folder` and `manifest`. Lenient as Dapr's reader is: a key given twice counts with its last value, `---`
//! may stand twice in a row, a document that is no YAML does not spoil its neighbours. Absent on purpose: typed
//! scalars (a number keeps its spelling), tags other than `!!str`, and the YAML 1.1 booleans `yes` and `on`.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

/// Collections inside one another. Resources need about eight.
const MAX_DEPTH: usize = 64;

/// Nodes and bytes of text that one document may come to once its aliases are written out.
const MAX_EXPANDED_BYTES: usize = 2 * 1024 * 1024;

/// What stands at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Of the key, for a value in a map; else where it begins. From 1.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// The four shapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    /// `plain`: written without quotes, so it may mean a number or a boolean.
    Text {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In order; of two equal keys the last counts.
    Map(Vec<(String, Node)>),
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Cuts a file where a line starts with `---`: the number of each part's first line, and the part.
pub(crate) fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if let Some(rest) = line.strip_prefix("---") {
            parts.push((first_line, &text[start..offset]));
            // What follows the marker on its line belongs to the document, so the marker stays with it. A line such as
            // `-----` is only a separator.
            let inline = rest.starts_with([' ', '\t']) && !rest.trim().is_empty();
            (start, first_line) = if inline { (offset, index + 1) } else { (offset + line.len(), index + 2) };
        }
        offset += line.len();
    }
    parts.push((first_line, &text[start..]));
    parts.retain(|(_, part)| part.lines().any(says_something));
    parts
}

/// Whether a line is more than a comment, a directive, or an end marker.
fn says_something(line: &str) -> bool {
    let line = line.trim();
    !(line.is_empty() || line.starts_with(['#', '%']) || line == "...")
}

/// Reads the documents of one part; more than one only after `...`. The first line has the number given.
///
/// # Errors
/// When it is no YAML, or beyond the bounds of this module.
pub(crate) fn parse(text: &str, first_line: usize) -> Result<Vec<Node>, Malformed> {
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Malformed {
            line: first_line + error.marker().line().saturating_sub(1),
            what: error.info().to_owned(),
        })?;
        let line = first_line + span.start.line().saturating_sub(1);
        tree.take(event, line).map_err(|what| Malformed { line, what: what.to_owned() })?;
    }
    Ok(tree.roots)
}

/// A collection that is not yet closed.
struct Open {
    line: usize,
    anchor: usize,
    /// What was spent when it began: the difference is what an alias to it costs.
    spent: usize,
    /// Of the deepest finished child.
    height: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<(String, Node)>, key: Option<(String, usize)> },
}

/// A finished node, with what an alias to it costs.
#[derive(Clone)]
struct Finished {
    node: Node,
    cost: usize,
    /// Collections inside one another, itself included.
    height: usize,
}

/// The documents read so far, and the one in the making.
#[derive(Default)]
struct Tree {
    roots: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Finished>,
    spent: usize,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let cost = 1 + text.len();
                self.spend(cost)?;
                let value = scalar(text.into_owned(), style, tag.as_deref());
                self.place(Finished { node: Node { line, value }, cost, height: 0 }, anchor)
            }
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, Inside::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(line, anchor, Inside::Map { entries: Vec::new(), key: None }),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn spend(&mut self, cost: usize) -> Result<(), &'static str> {
        self.spent += cost;
        if self.spent > MAX_EXPANDED_BYTES { Err("the document is too large") } else { Ok(()) }
    }

    /// The price is paid before the copy is made: that is what stops a document of aliases to aliases.
    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), &'static str> {
        let target = self.anchors.get(&anchor).ok_or("an alias inside what it stands for")?;
        let (cost, height) = (target.cost, target.height);
        if self.open.len() + height > MAX_DEPTH {
            return Err("nested too deeply");
        }
        self.spend(cost)?;
        let Some(mut copy) = self.anchors.get(&anchor).cloned() else { return Ok(()) };
        copy.node.line = line;
        self.place(copy, 0)
    }

    fn begin(&mut self, line: usize, anchor: usize, inside: Inside) -> Result<(), &'static str> {
        if self.open.len() >= MAX_DEPTH {
            return Err("nested too deeply");
        }
        let spent = self.spent;
        self.spend(1)?;
        self.open.push(Open { line, anchor, spent, height: 0, inside });
        Ok(())
    }

    fn end(&mut self) -> Result<(), &'static str> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.inside {
            Inside::List(items) => Value::List(items),
            Inside::Map { entries, .. } => Value::Map(merge(entries)),
        };
        let node = Node { line: open.line, value };
        self.place(Finished { node, cost: self.spent - open.spent, height: open.height + 1 }, open.anchor)
    }

    /// Puts a finished node where it belongs: into the collection that is open, or among the documents.
    fn place(&mut self, finished: Finished, anchor: usize) -> Result<(), &'static str> {
        if anchor != 0 {
            self.anchors.insert(anchor, finished.clone());
        }
        let Finished { mut node, height, .. } = finished;
        let Some(open) = self.open.last_mut() else {
            self.roots.push(node);
            return Ok(());
        };
        open.height = open.height.max(height);
        match &mut open.inside {
            Inside::List(items) => items.push(node),
            Inside::Map { entries, key } => match key.take() {
                Some((name, line)) => {
                    node.line = line;
                    entries.push((name, node));
                }
                None => *key = Some((key_text(node.value)?, node.line)),
            },
        }
        Ok(())
    }
}

fn key_text(value: Value) -> Result<String, &'static str> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Text { text, .. } => Ok(text),
        Value::List(_) | Value::Map(_) => Err("a list or a map as a key"),
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let forced = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    let plain = style == ScalarStyle::Plain && !forced;
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
        _ => Value::Text { text, plain },
    }
}

/// Writes out `<<` keys: what they bring stands before the map's own entries, which therefore win.
fn merge(entries: Vec<(String, Node)>) -> Vec<(String, Node)> {
    if entries.iter().all(|(key, _)| key != "<<") {
        return entries;
    }
    let (merged, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key == "<<");
    let mut all = Vec::new();
    for (_, node) in merged {
        match node.value {
            Value::Map(brought) => all.extend(brought),
            // Of several maps the first wins, so it comes last.
            Value::List(items) => all.extend(items.into_iter().rev().flat_map(|item| match item.value {
                Value::Map(brought) => brought,
                _ => Vec::new(),
            })),
            _ => {}
        }
    }
    all.extend(own);
    all
}

impl Node {
    /// The node as JSON text: keys sorted, plain numbers and booleans as such, all else as strings.
    pub(crate) fn json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) {
        match &self.value {
            Value::Null => out.push_str("null"),
            Value::Text { text, plain } => match boolean(text).filter(|_| *plain) {
                Some(flag) => out.push_str(if flag { "true" } else { "false" }),
                None if *plain && serde_json::from_str::<serde_json::Number>(text).is_ok() => out.push_str(text),
                None => push_quoted(out, text),
            },
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    out.push(if index == 0 { '[' } else { ',' });
                    item.write_json(out);
                }
                out.push_str(if items.is_empty() { "[]" } else { "]" });
            }
            Value::Map(entries) => {
                let last_wins: BTreeMap<&str, &Node> = entries.iter().map(|(key, node)| (key.as_str(), node)).collect();
                for (index, (key, node)) in last_wins.iter().enumerate() {
                    out.push(if index == 0 { '{' } else { ',' });
                    push_quoted(out, key);
                    out.push(':');
                    node.write_json(out);
                }
                out.push_str(if entries.is_empty() { "{}" } else { "}" });
            }
        }
    }
}

/// YAML 1.2's booleans.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn push_quoted(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests;
