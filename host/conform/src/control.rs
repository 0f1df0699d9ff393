//! Runs the commands that the profile names: they start, stop and kill the broker, make topics ready, and read what the
//! broker stores, independently of the adapter. Called by the rig and by the fault checks.
//!
//! A command's output goes into files, for a broker that `start` leaves behind would keep a pipe open.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use whimbrel_resources::Conformance;

/// How long one command may take.
const COMMAND_WAIT: Duration = Duration::from_secs(90);

/// Bytes of output that are read of one command.
const OUTPUT_BYTES_MAX: u64 = 512 << 20;

/// Bytes at the end of a failed command's error output that are shown.
const TAIL_BYTES_MAX: usize = 2000;

/// Stands for the topic in a command.
const TOPIC: &str = "{topic}";

/// A command did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// There is none.
    #[error("the profile names no command `{0}`")]
    Absent(&'static str),
    /// It does not exist, or may not run.
    #[error("the profile's command `{name}` ({words:?}) does not run: {error}")]
    Unrunnable { name: &'static str, words: Vec<String>, error: std::io::Error },
    /// It took too long.
    #[error("the profile's command `{name}` ({words:?}) has not ended after {COMMAND_WAIT:?}: {tail}")]
    Late { name: &'static str, words: Vec<String>, tail: String },
    /// It says so.
    #[error("the profile's command `{name}` ({words:?}) ended with {status}: {tail}")]
    Failed { name: &'static str, words: Vec<String>, status: std::process::ExitStatus, tail: String },
    /// What it printed is not what was asked for.
    #[error("the profile's command `read` printed a line that is no message (an object with data in base64): {0}")]
    Unreadable(String),
}

/// A message as the broker stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its bytes.
    pub(crate) data: Vec<u8>,
    /// What travels with it.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A line of what `read` prints.
#[derive(Deserialize)]
struct Line {
    data: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// The profile's commands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Control<'a>(pub(crate) &'a Conformance);

impl Control<'_> {
    /// Starts the broker where it was; returns when it answers.
    pub(crate) async fn start(&self) -> Result<(), ControlError> {
        run("start", &self.0.start, "").await.map(drop)
    }

    /// Stops the broker in good order.
    pub(crate) async fn stop(&self) -> Result<(), ControlError> {
        run("stop", &self.0.stop, "").await.map(drop)
    }

    /// Ends the broker as a power cut would.
    pub(crate) async fn kill(&self) -> Result<(), ControlError> {
        run("kill", &self.0.kill, "").await.map(drop)
    }

    /// Makes a topic ready, where the broker does not do so by itself.
    pub(crate) async fn prepare(&self, topic: &str) -> Result<(), ControlError> {
        if self.0.prepare.is_empty() {
            return Ok(());
        }
        run("prepare", &self.0.prepare, topic).await.map(drop)
    }

    /// Every message that the broker has stored of a topic, acknowledged or not.
    pub(crate) async fn read(&self, topic: &str) -> Result<Vec<Stored>, ControlError> {
        let printed = run("read", &self.0.read, topic).await?;
        let lines = printed.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        lines.map(stored).collect()
    }
}

fn stored(line: &[u8]) -> Result<Stored, ControlError> {
    let unreadable = |why: &dyn std::fmt::Display| {
        let line: String = String::from_utf8_lossy(line).chars().take(200).collect();
        ControlError::Unreadable(format!("{why}: {line}"))
    };
    let Line { data, metadata } = serde_json::from_slice(line).map_err(|error| unreadable(&error))?;
    let data = STANDARD.decode(data).map_err(|error| unreadable(&error))?;
    Ok(Stored { data, metadata })
}

/// Runs a command to its end, and returns what it printed.
async fn run(name: &'static str, command: &[String], topic: &str) -> Result<Vec<u8>, ControlError> {
    let words: Vec<String> = command.iter().map(|word| word.replace(TOPIC, topic)).collect();
    let Some((program, arguments)) = words.split_first() else { return Err(ControlError::Absent(name)) };
    let unrunnable = |error| ControlError::Unrunnable { name, words: words.clone(), error };
    let (mut out, mut complaints) = (scratch().map_err(unrunnable)?, scratch().map_err(unrunnable)?);
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(unrunnable)?)
        .stderr(complaints.try_clone().map_err(unrunnable)?)
        .kill_on_drop(true)
        .spawn()
        .map_err(unrunnable)?;
    let ended = tokio::time::timeout(COMMAND_WAIT, child.wait()).await;
    let mut tail = || tail(&contents(&mut complaints).unwrap_or_default());
    let Ok(status) = ended else { return Err(ControlError::Late { name, tail: tail(), words }) };
    let status = status.map_err(unrunnable)?;
    if !status.success() {
        return Err(ControlError::Failed { name, status, tail: tail(), words });
    }
    contents(&mut out).map_err(unrunnable)
}

fn scratch() -> std::io::Result<File> {
    tempfile::tempfile()
}

fn contents(file: &mut File) -> std::io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn tail(output: &[u8]) -> String {
    let start = output.len().saturating_sub(TAIL_BYTES_MAX);
    String::from_utf8_lossy(output.get(start..).unwrap_or_default()).trim().to_owned()
}

#[cfg(test)]
mod tests;
