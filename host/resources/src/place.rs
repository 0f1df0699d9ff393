//! A node together with how one got there, so that whatever is wrong with it can be said with file, line and key.
//!
//! Called by every reader of a kind. Names of keys are compared without regard to case, as Dapr's decoder does.

use std::path::Path;

use crate::problem::{Position, Problem, Severity};
use crate::yaml::{Node, Value, boolean};

/// One place in one document.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a Path,
    /// The path from the root, empty for the root.
    pub(crate) key: String,
    pub(crate) node: &'a Node,
}

impl<'a> Place<'a> {
    pub(crate) fn root(file: &'a Path, node: &'a Node) -> Self {
        Self { file, key: String::new(), node }
    }

    pub(crate) fn at(&self) -> Position {
        Position { file: self.file.to_path_buf(), line: self.node.line }
    }

    fn inside(&self, name: &str, node: &'a Node) -> Self {
        let key = if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) };
        Self { file: self.file, key, node }
    }

    /// The value of a key, if there is one and it is not null; of two, the last.
    pub(crate) fn get(&self, name: &str) -> Option<Self> {
        #[cfg(test)]
        asked::note(&self.key, name);
        let Value::Map(entries) = &self.node.value else { return None };
        let (_, node) = entries.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        (node.value != Value::Null).then(|| self.inside(name, node))
    }

    /// A map under a key. Anything else there is a problem.
    pub(crate) fn section(&self, name: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        self.get(name).filter(|place| place.is_map(problems))
    }

    /// Whether it is a map. Anything else is a problem.
    pub(crate) fn is_map(&self, problems: &mut Vec<Problem>) -> bool {
        let is_map = matches!(self.node.value, Value::Map(_));
        if !is_map {
            problems.push(self.error(format!("expected a map, found {}", self.shape()), ""));
        }
        is_map
    }

    /// The entries of a map under a key, in order, named as they are spelled.
    pub(crate) fn entries(&self, name: &str, problems: &mut Vec<Problem>) -> Vec<(&'a str, Self)> {
        let Some(section) = self.section(name, problems) else { return Vec::new() };
        let Value::Map(entries) = &section.node.value else { return Vec::new() };
        entries.iter().map(|(key, node)| (key.as_str(), section.inside(key, node))).collect()
    }

    /// The items of a list under a key. Anything else there is a problem.
    pub(crate) fn items(&self, name: &str, problems: &mut Vec<Problem>) -> Vec<Self> {
        self.get(name).map(|list| list.listed(problems)).unwrap_or_default()
    }

    /// The items of a list. Anything else is a problem.
    pub(crate) fn listed(&self, problems: &mut Vec<Problem>) -> Vec<Self> {
        let Value::List(items) = &self.node.value else {
            problems.push(self.error(format!("expected a list, found {}", self.shape()), ""));
            return Vec::new();
        };
        let place = |(index, node)| Self { file: self.file, key: format!("{}[{index}]", self.key), node };
        items.iter().enumerate().map(place).collect()
    }

    /// The text itself; numbers and booleans count as text, in their spelling.
    pub(crate) fn as_text(&self, problems: &mut Vec<Problem>) -> Option<&'a str> {
        match &self.node.value {
            Value::Text { text, .. } => Some(text),
            Value::Null => Some(""),
            Value::List(_) | Value::Map(_) => {
                problems.push(self.error(format!("expected a text, found {}", self.shape()), ""));
                None
            }
        }
    }

    /// The text under a key.
    pub(crate) fn text(&self, name: &str, problems: &mut Vec<Problem>) -> Option<&'a str> {
        self.get(name)?.as_text(problems)
    }

    /// The text under a key, unless it is blank.
    pub(crate) fn filled(&self, name: &str, problems: &mut Vec<Problem>) -> Option<&'a str> {
        self.text(name, problems).filter(|text| !text.trim().is_empty())
    }

    /// A text under a key that must be there.
    pub(crate) fn required(&self, name: &str, hint: &str, problems: &mut Vec<Problem>) -> Option<&'a str> {
        let before = problems.len();
        let found = self.filled(name, problems);
        if found.is_none() && problems.len() == before {
            problems.push(self.missing(name, hint));
        }
        found
    }

    /// A map under a key that must be there.
    pub(crate) fn required_section(&self, name: &str, hint: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        if self.get(name).is_none() {
            problems.push(self.missing(name, hint));
        }
        self.section(name, problems)
    }

    fn missing(&self, name: &str, hint: &str) -> Problem {
        Problem { key: self.inside(name, self.node).key, ..self.error("is missing".to_owned(), hint) }
    }

    /// The texts of a list under a key.
    pub(crate) fn texts(&self, name: &str, problems: &mut Vec<Problem>) -> Vec<String> {
        let items = self.items(name, problems);
        items.iter().filter_map(|item| item.as_text(problems).map(str::to_owned)).collect()
    }

    /// A map of texts under a key, in order; of two equal names the last counts.
    pub(crate) fn pairs(&self, name: &str, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
        let entries = self.entries(name, problems);
        let last: std::collections::HashMap<&str, usize> =
            entries.iter().enumerate().map(|(index, (key, _))| (*key, index)).collect();
        let counts = entries.iter().enumerate().filter(|(index, (key, _))| last.get(key) == Some(index));
        let pair =
            |(_, (key, place)): (_, &(&str, Self))| Some(((*key).to_owned(), place.as_text(problems)?.to_owned()));
        counts.filter_map(pair).collect()
    }

    /// `true` or `false` under a key; false when absent.
    pub(crate) fn flag(&self, name: &str, problems: &mut Vec<Problem>) -> bool {
        self.parsed(name, "true or false", boolean, problems).unwrap_or_default()
    }

    /// A value under a key in some form of its own. One that does not parse is a problem that says what was expected.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let place = self.get(name)?;
        let text = place.as_text(problems)?.trim();
        let parsed = parse(text);
        if parsed.is_none() {
            problems.push(place.error(format!("{} is not {expected}", quoted(text)), ""));
        }
        parsed
    }

    /// A warning for each key that is not known here, with the one that was probably meant.
    pub(crate) fn warn_unknown(&self, known: &[&str], problems: &mut Vec<Problem>) {
        #[cfg(test)]
        known.iter().for_each(|name| asked::note(&self.key, name));
        let Value::Map(entries) = &self.node.value else { return };
        for (key, node) in entries.iter().filter(|(key, _)| !known.iter().any(|name| name.eq_ignore_ascii_case(key))) {
            let hint = did_you_mean(key, known);
            problems.push(self.inside(key, node).warning("unknown key".to_owned(), hint));
        }
    }

    pub(crate) fn error(&self, what: String, hint: impl Into<String>) -> Problem {
        self.problem(Severity::Error, what, hint.into())
    }

    pub(crate) fn warning(&self, what: String, hint: impl Into<String>) -> Problem {
        self.problem(Severity::Warning, what, hint.into())
    }

    fn problem(&self, severity: Severity, what: String, hint: String) -> Problem {
        Problem { severity, at: self.at(), key: self.key.clone(), what, hint }
    }

    fn shape(&self) -> &'static str {
        match self.node.value {
            Value::Null => "nothing",
            Value::Text { .. } => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Characters of a value that a problem shows.
const SHOWN_CHARS: usize = 60;

/// A value as a problem shows it: quoted, and not longer than a line bears.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// Bytes of the longest name that is compared for likeness: comparing costs the product of both lengths.
const COMPARED_BYTES: usize = 64;

/// Known names that are compared.
const COMPARED_NAMES: usize = 200;

/// `did you mean X?` for the known name most like this one, or nothing.
pub(crate) fn did_you_mean(name: &str, known: &[&str]) -> String {
    if name.len() > COMPARED_BYTES {
        return String::new();
    }
    let given = name.to_ascii_lowercase();
    let distance = |other: &&&str| strsim::osa_distance(&given, &other.to_ascii_lowercase());
    let nearest = known.iter().take(COMPARED_NAMES).min_by_key(distance);
    // One slip for every three letters: `host` is not taken for `port`.
    let near = nearest.filter(|other| distance(other) * 3 <= other.len().max(3));
    near.map(|other| format!("did you mean {other}?")).unwrap_or_default()
}

/// Every key that a reader has asked for or knows, with the place where, on this thread: what the schemas are compared with.
#[cfg(test)]
pub(crate) mod asked {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local!(static ASKED: RefCell<BTreeSet<(String, String)>> = RefCell::default());

    pub(crate) fn note(place: &str, name: &str) {
        ASKED.with_borrow_mut(|asked| asked.insert((place.to_owned(), name.to_owned())));
    }

    pub(crate) fn take() -> BTreeSet<(String, String)> {
        ASKED.take()
    }
}

#[cfg(test)]
mod tests;
