//! What was found, for people and for programs. Never holds a secret of the profile.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::check::{Check, Finding};
use crate::rig::Bench;

/// Of the JSON document. A change that a reader would notice makes another.
const SCHEMA: &str = "whimbrel.dev/conformance-report/v1";

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The promise is kept.
    Passed,
    /// It is not.
    Failed,
    /// The broker or the profile cannot.
    NotSupported,
    /// Another promise is broken, and this one could not be tested.
    NotTested,
}

/// One check and what it found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Its id.
    pub id: &'static str,
    /// The promise in a few words.
    pub title: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub millis: u64,
    /// Why it is not passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The check that is about what happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because_of: Option<&'static str>,
    /// What has to happen.
    pub expects: &'static str,
    /// What usually causes a failure.
    pub cause: &'static str,
    /// Where to read.
    pub read: &'static str,
}

impl Verdict {
    pub(crate) fn new(check: &Check, finding: Finding, took: Duration) -> Self {
        let (outcome, reason, because_of) = match finding {
            Finding::Passed => (Outcome::Passed, None, None),
            Finding::Failed(what) => (Outcome::Failed, Some(what), None),
            Finding::NotSupported(why) => (Outcome::NotSupported, Some(why), None),
            // A check is not excused by itself.
            Finding::Untested(other, what) if other == check.id => (Outcome::Failed, Some(what), None),
            Finding::Untested(other, what) => (Outcome::NotTested, Some(what), Some(other)),
        };
        let Check { id, title, expects, cause, read, .. } = *check;
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { id, title, outcome, millis, reason, because_of, expects, cause, read }
    }

    /// Its line in the report.
    #[must_use]
    pub fn line(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed => "FAILED".to_owned(),
            Outcome::NotSupported => format!("not supported: {}", self.reason.as_deref().unwrap_or_default()),
            Outcome::NotTested => format!("not tested, see {}", self.because_of.unwrap_or_default()),
        };
        let seconds = Duration::from_millis(self.millis).as_secs_f64();
        format!("{:<4} {:<58} {seconds:>6.1} s  {outcome}", self.id, self.title)
    }

    fn details(&self) -> String {
        let mut text = format!("\n{} {}\n", self.id, self.title);
        let rows = [
            ("expected", self.expects),
            ("happened", self.reason.as_deref().unwrap_or_default()),
            ("usually", self.cause),
            ("read", self.read),
        ];
        for (what, row) in rows {
            writeln!(text, "  {what:<9} {row}").ok();
        }
        text
    }
}

/// Everything that was found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    schema: &'static str,
    /// The plugin's type.
    adapter: String,
    /// What the faults were drawn with.
    seed: u64,
    /// What it declares to be able to do.
    features: Vec<&'static str>,
    millis: u64,
    passed: usize,
    failed: usize,
    not_supported: usize,
    not_tested: usize,
    /// In order.
    checks: Vec<Verdict>,
    #[serde(skip)]
    secrets: Vec<String>,
}

impl Report {
    pub(crate) fn new(bench: &Bench, secrets: Vec<String>) -> Self {
        Self {
            schema: SCHEMA,
            adapter: bench.profile.component.kind.clone(),
            seed: bench.seed,
            features: bench.features().names(),
            millis: 0,
            passed: 0,
            failed: 0,
            not_supported: 0,
            not_tested: 0,
            checks: Vec::new(),
            secrets,
        }
    }

    /// Takes one in, without the secrets that its texts may hold.
    pub(crate) fn take(&mut self, mut verdict: Verdict) -> &Verdict {
        if let Some(reason) = &mut verdict.reason {
            for secret in &self.secrets {
                *reason = reason.replace(secret, "***");
            }
        }
        self.checks.push(verdict);
        &self.checks[self.checks.len() - 1]
    }

    /// Whoever is not tested because of a check that did not fail has failed itself: nothing else explains what happened.
    pub(crate) fn finish(&mut self, took: Duration) {
        let open = |check: &&Verdict| matches!(check.outcome, Outcome::Failed | Outcome::NotTested);
        let open = self.checks.iter().filter(open).map(|check| check.id).collect();
        self.blame(&open);
        // What is left explains each other, unless they go in a circle.
        let explained = self.explained();
        self.blame(&explained);
        let count = |outcome| self.checks.iter().filter(|check| check.outcome == outcome).count();
        (self.passed, self.failed) = (count(Outcome::Passed), count(Outcome::Failed));
        (self.not_supported, self.not_tested) = (count(Outcome::NotSupported), count(Outcome::NotTested));
        self.millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    }

    /// Fails whoever is not tested because of a check that is not among these.
    fn blame(&mut self, culprits: &HashSet<&str>) {
        for check in self.checks.iter_mut().filter(|check| check.outcome == Outcome::NotTested) {
            if !check.because_of.is_some_and(|other| culprits.contains(other)) {
                check.outcome = Outcome::Failed;
            }
        }
    }

    /// The checks that failed, and those that were not tested because of one of them.
    fn explained(&self) -> HashSet<&'static str> {
        let failed = |check: &&Verdict| check.outcome == Outcome::Failed;
        let mut explained: HashSet<&str> = self.checks.iter().filter(failed).map(|check| check.id).collect();
        loop {
            let before = explained.len();
            let untested = self.checks.iter().filter(|check| check.outcome == Outcome::NotTested);
            let more: Vec<&str> = untested
                .filter(|check| check.because_of.is_some_and(|other| explained.contains(other)))
                .map(|check| check.id)
                .collect();
            explained.extend(more);
            if explained.len() == before {
                return explained;
            }
        }
    }

    /// Whether the adapter keeps what it promises.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.not_tested == 0
    }

    /// What stands below the lines of the checks: each failure, and how many there are of what.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text: String =
            self.checks.iter().filter(|check| check.outcome == Outcome::Failed).map(Verdict::details).collect();
        let seconds = Duration::from_millis(self.millis).as_secs_f64();
        let Self { adapter, seed, passed, failed, not_supported, not_tested, .. } = self;
        writeln!(
            text,
            "\n{adapter}: {passed} passed, {failed} failed, {not_supported} not supported, {not_tested} not tested, in {seconds:.0} s (seed {seed})"
        )
        .ok();
        text
    }

    /// One JSON document.
    #[must_use]
    pub fn json(&self) -> String {
        // Texts and numbers: there is nothing in it that could fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
