//! The file that `whimbrel conform` reads: a `Component` as users write it, and beside it a `Conformance`.
//!
//! Called by the binary. Absent on purpose: running anything.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::folder;
use crate::place::Place;
use crate::problem::{Position, Problem, Problems, Severity};
use crate::raw;
use crate::snapshot::Component;
use crate::surroundings::Surroundings;

/// A program and its arguments; empty: there is none.
pub type Command = Vec<String>;

/// What the conformance kit must know of a broker (kind `Conformance`, apiVersion `whimbrel.dev/v1alpha1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conformance {
    /// `address`: the broker's, spelled as in the component's metadata, where a proxy's can stand in its place; of a broker of
    /// several nodes all of them, with commas. None: the broker lives in the component and is gone with it.
    pub address: Option<String>,
    /// `proxyListen`: where proxies must listen, for brokers that tell their clients where to connect: one for each of
    /// `address`, in that order. Empty: anywhere.
    pub proxy_listen: Vec<SocketAddr>,
    /// `start`: returns when the broker answers.
    pub start: Command,
    /// `stop`: in good order.
    pub stop: Command,
    /// `kill`: as a power cut would.
    pub kill: Command,
    /// `read`: prints every message stored in `{topic}`, one JSON object a line with `data` (base64) and `metadata`.
    pub read: Command,
    /// `prepare`: makes `{topic}` ready, where the broker does not do so by itself.
    pub prepare: Command,
    /// `deleteTopic`: takes `{topic}` away from the broker with all that is in it, and makes it again where neither the
    /// broker nor the adapter does.
    pub delete_topic: Command,
    /// `deleteGroup`: takes away what the broker keeps of `{group}` on `{topic}`: a queue, a group, a consumer.
    pub delete_group: Command,
    /// `fill`: has the broker store nothing more, of `{topic}` at least.
    pub fill: Command,
    /// `relieve`: has it store again.
    pub relieve: Command,
    /// `rotate`: has the broker take `{secret}` in place of the secret that it takes now.
    pub rotate: Command,
    /// `rotates`: the setting that holds that secret.
    pub rotates: Option<String>,
    /// `secret`: as that setting spells it. None: it is all of its value.
    pub secret: Option<String>,
    /// `tls`: where the broker speaks TLS, and whom it must not be taken for. None: nowhere.
    pub tls: Option<TlsVariants>,
    /// `dedup`: a CloudEvent that is published again, byte for byte, is stored once. Default false.
    pub dedup: bool,
    /// `lease`: how long the broker leaves a message with a consumer that vanished. Default: not at all.
    pub lease: Duration,
    /// `maxMessageBytes`: what the broker takes at most, where the adapter does not know.
    pub max_message_bytes: Option<u64>,
    /// `drain`: how long closing may take, besides 2 s. Default 3 s.
    pub drain: Duration,
    /// `history`: a group that the broker does not know yet can begin with messages published before. Default true.
    pub history: bool,
    /// `notSupported`: checks that are left out, and why.
    pub not_supported: Vec<Exception>,
}

/// A listener that speaks TLS. A setting whose value is empty counts as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsVariants {
    /// `metadata`: in place of the component's: with these it opens.
    pub metadata: Vec<(String, String)>,
    /// `refused`: with each of these besides it must not.
    pub refused: Vec<Refused>,
}

/// Settings with which an adapter must not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `metadata`: as in [`TlsVariants`], in place of that.
    pub metadata: Vec<(String, String)>,
    /// `names`: the setting that the error must name.
    pub names: String,
}

/// A check that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Its id, in upper case.
    pub check: String,
    /// Why, for people.
    pub reason: String,
}

impl Default for Conformance {
    fn default() -> Self {
        Self {
            address: None,
            proxy_listen: Vec::new(),
            start: Vec::new(),
            stop: Vec::new(),
            kill: Vec::new(),
            read: Vec::new(),
            prepare: Vec::new(),
            delete_topic: Vec::new(),
            delete_group: Vec::new(),
            fill: Vec::new(),
            relieve: Vec::new(),
            rotate: Vec::new(),
            rotates: None,
            secret: None,
            tls: None,
            dedup: false,
            lease: Duration::ZERO,
            max_message_bytes: None,
            drain: Duration::from_secs(3),
            history: true,
            not_supported: Vec::new(),
        }
    }
}

/// Who `{appID}` stands for in the kit.
const CONFORMING_APP: &str = "conform";

/// Reads the file: the component, the conformance, and what is odd about them.
///
/// # Errors
/// Everything that is wrong. In a `Conformance` every oddity is.
pub fn conformance(file: &Path) -> Result<(Component, Conformance, Vec<Problem>), Problems> {
    let wrong = |line, what: String, hint: &str| Problem {
        severity: Severity::Error,
        at: Position { file: file.to_path_buf(), line },
        key: String::new(),
        what,
        hint: hint.to_owned(),
    };
    let bytes =
        std::fs::read(file).map_err(|error| Problems(vec![wrong(1, format!("cannot be read: {error}"), "")]))?;
    let mut problems = Vec::new();
    // The kit stands for no app, and its file is all there is: no secret stores.
    let (surroundings, stores) = (Surroundings::of_process(), HashMap::new());
    let sources = raw::component::Sources {
        app_id: CONFORMING_APP,
        surroundings: &surroundings,
        stores: &stores,
        files: &RefCell::default(),
    };
    let (mut components, mut conformances) = (Vec::new(), Vec::new());
    for document in folder::parse(file, &bytes, &mut problems) {
        let root = Place::root(file, &document.root);
        let text = |key: &str| root.text(key, &mut Vec::new()).unwrap_or_default();
        match (text("apiVersion"), text("kind")) {
            ("dapr.io/v1alpha1", "Component") => {
                components.extend(raw::component::read(&root, Vec::new(), &sources, &mut problems));
            }
            ("whimbrel.dev/v1alpha1", "Conformance") => {
                let mut strict = Vec::new();
                conformances.extend(raw::conformance::read(&root, &mut strict));
                problems.extend(strict.into_iter().map(|problem| Problem { severity: Severity::Error, ..problem }));
            }
            _ => problems.push(root.error("neither a Component nor a Conformance".to_owned(), "one of each")),
        }
    }
    let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
    match (components.pop(), conformances.pop()) {
        (Some(component), Some(conformance)) if components.is_empty() && conformances.is_empty() && !failed => {
            Ok((component, conformance, problems))
        }
        _ => {
            if !failed {
                let hint = "one Component (dapr.io/v1alpha1) and one Conformance (whimbrel.dev/v1alpha1)";
                problems.push(wrong(1, "a document is missing, or there is one too many".to_owned(), hint));
            }
            Err(Problems(problems))
        }
    }
}

#[cfg(test)]
mod tests;
