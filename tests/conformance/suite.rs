//! Runs `whimbrel conform` and reads its report. Called by the adapters' modules and by the liars.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;
use whimbrel_artifacts::Artifact;

use crate::harness::{build_folder, run_within, scale, whimbrel};

/// How long the checks of one adapter may take on a machine that does other things at the same time, faults included.
const JUDGE_MAX: Duration = Duration::from_secs(900);

/// Where a case's broker is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Broker {
    /// In the component: the kit's file, beside these tests.
    Inside(&'static str),
    /// `tests/brokers/broker` starts it: its kind and its variant.
    Started(&'static str, &'static str),
}

/// An adapter in one configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    /// The adapter.
    pub(super) adapter: Artifact,
    /// Its broker.
    pub(super) broker: Broker,
    /// The checks that it does not support, in the order of the report.
    pub(super) not_supported: &'static [&'static str],
    /// Whether the broker, the network and the clients are broken, too, and which of those checks it does not support.
    pub(super) faults: Option<&'static [&'static str]>,
}

/// What `whimbrel conform --json` prints, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    schema: String,
    checks: Vec<Verdict>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    id: String,
    title: String,
    outcome: String,
    reason: Option<String>,
}

impl Report {
    /// The checks that ended so.
    pub(super) fn ids(&self, outcome: &str) -> Vec<&str> {
        let ended = self.checks.iter().filter(|check| check.outcome == outcome);
        ended.map(|check| check.id.as_str()).collect()
    }

    /// What went wrong, a line for each check.
    pub(super) fn complaints(&self) -> String {
        let wrong = self.checks.iter().filter(|check| ["failed", "not-tested"].contains(&check.outcome.as_str()));
        let line = |check: &Verdict| {
            let reason = check.reason.as_deref().unwrap_or_default();
            format!("\n{} {} ({}): {reason}", check.id, check.title, check.outcome)
        };
        wrong.map(line).collect()
    }
}

/// Judges an adapter in each of its cases.
pub(super) fn judge(cases: &[Case]) -> Result<()> {
    run_within(scale::scaled_time(JUDGE_MAX) * u32::try_from(cases.len())?, async |_| {
        for case in cases {
            let report = report(case).await.with_context(|| format!("{case:?}"))?;
            let complaints = report.complaints();
            assert!(complaints.is_empty(), "{case:?}{complaints}");
            let not_supported = [case.not_supported, case.faults.unwrap_or_default()].concat();
            assert_eq!(report.ids("not-supported"), not_supported, "{case:?}");
            assert!(!report.ids("passed").is_empty(), "{case:?}");
        }
        Ok(())
    })
}

async fn report(case: &Case) -> Result<Report> {
    let component = OsString::from(case.adapter.path);
    let more: &[&str] = if case.faults.is_some() { &["--faults"] } else { &[] };
    match case.broker {
        Broker::Inside(file) => conform(case.adapter, &folder().join("conformance").join(file), more).await,
        Broker::Started(kind, variant) => {
            let mut command = Command::new(folder().join("brokers/broker"));
            command.args([kind, "conform", "--variant", variant]).arg(component).arg("--json").args(more);
            // Where it finds the program, and what it installed.
            command.env("CARGO_TARGET_DIR", build_folder()?.parent().context("cargo's folder")?);
            read(command).await
        }
    }
}

/// Runs the kit with a file of one's own.
pub(super) async fn conform(adapter: Artifact, config: &Path, more: &[&str]) -> Result<Report> {
    let mut command = Command::new(whimbrel()?);
    command.arg("conform").arg(adapter.path).arg("--config").arg(config).arg("--json").args(more);
    read(command).await
}

/// It fails where the adapter does, and tells so in its report.
async fn read(mut command: Command) -> Result<Report> {
    command.env("WHIMBREL_CACHE", build_folder()?.with_file_name("test-cache"));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("starting the kit")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let report: Report = serde_json::from_slice(&output.stdout).with_context(|| format!("no report: {complaint}"))?;
    ensure!(report.schema == "whimbrel.dev/conformance-report/v1", "another schema: {}", report.schema);
    let failed = !report.ids("failed").is_empty() || !report.ids("not-tested").is_empty();
    ensure!(output.status.success() != failed, "it ended with {}: {complaint}", output.status);
    Ok(report)
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
