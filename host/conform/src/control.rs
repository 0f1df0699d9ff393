//! Runs the commands that the profile names: they start, stop, kill and fill the broker, make topics ready and take them
//! away, and read what the broker stores, independently of the adapter. Called by the rig and by the fault checks.
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
const COMMAND_WAIT: Duration = Duration::from_secs(200);

/// Bytes of output that are read of one command.
const OUTPUT_BYTES_MAX: u64 = 512 << 20;

/// Bytes at the end of a failed command's error output that are shown.
const TAIL_BYTES_MAX: usize = 2000;

/// Stand for the topic and the group in a command.
const TOPIC: &str = "{topic}";
const GROUP: &str = "{group}";

/// Stands for the secret that the broker is to take.
const SECRET: &str = "{secret}";

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
        run("start", &self.0.start, &[]).await.map(drop)
    }

    /// Stops the broker in good order.
    pub(crate) async fn stop(&self) -> Result<(), ControlError> {
        run("stop", &self.0.stop, &[]).await.map(drop)
    }

    /// Ends the broker as a power cut would.
    pub(crate) async fn kill(&self) -> Result<(), ControlError> {
        run("kill", &self.0.kill, &[]).await.map(drop)
    }

    /// Makes a topic ready, where the broker does not do so by itself.
    pub(crate) async fn prepare(&self, topic: &str) -> Result<(), ControlError> {
        if self.0.prepare.is_empty() {
            return Ok(());
        }
        run("prepare", &self.0.prepare, &[(TOPIC, topic)]).await.map(drop)
    }

    /// Takes a topic away, with all that is in it.
    pub(crate) async fn delete_topic(&self, topic: &str) -> Result<(), ControlError> {
        run("deleteTopic", &self.0.delete_topic, &[(TOPIC, topic)]).await.map(drop)
    }

    /// Takes away what the broker keeps of a group.
    pub(crate) async fn delete_group(&self, topic: &str, group: &str) -> Result<(), ControlError> {
        run("deleteGroup", &self.0.delete_group, &[(TOPIC, topic), (GROUP, group)]).await.map(drop)
    }

    /// Has the broker store nothing more, of this topic at least.
    pub(crate) async fn fill(&self, topic: &str) -> Result<(), ControlError> {
        run("fill", &self.0.fill, &[(TOPIC, topic)]).await.map(drop)
    }

    /// Has it store again.
    pub(crate) async fn relieve(&self, topic: &str) -> Result<(), ControlError> {
        run("relieve", &self.0.relieve, &[(TOPIC, topic)]).await.map(drop)
    }

    /// Has the broker take this secret, and no other.
    pub(crate) async fn rotate(&self, secret: &str) -> Result<(), ControlError> {
        run("rotate", &self.0.rotate, &[(SECRET, secret)]).await.map(drop)
    }

    /// Every message that the broker has stored of a topic, acknowledged or not.
    pub(crate) async fn read(&self, topic: &str) -> Result<Vec<Stored>, ControlError> {
        let printed = run("read", &self.0.read, &[(TOPIC, topic)]).await?;
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

/// Runs a command to its end, with these names in their places, and returns what it printed.
async fn run(name: &'static str, command: &[String], names: &[(&str, &str)]) -> Result<Vec<u8>, ControlError> {
    let named = |word: &String| names.iter().fold(word.clone(), |word, (place, name)| word.replace(place, name));
    let words: Vec<String> = command.iter().map(named).collect();
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
