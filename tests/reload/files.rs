//! A plugins folder, and files to drop into it. Called by the tests here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use whimbrel_artifacts::component::{DESCRIPTION_SECTION, append_custom_section};

use crate::harness::host::{Host, HostPlan};
use crate::harness::{Test, until};

/// What the host says when it has read a file and compiles it, or takes it from the cache.
pub(super) const TRIED: &str = "another adapter file is tried";

/// What it says when it has compiled one that was not in the cache: the swap itself begins.
pub(super) const COMPILED: &str = " compiled plugin=";

/// What it says when a file's adapter has taken over.
pub(super) const TAKEN: &str = "its adapter serves now";

/// What it says when it has not.
pub(super) const NOT_TAKEN: &str = "the running adapter serves on";

/// A folder that a host looks for plugins in.
#[derive(Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(test: &Test) -> Result<Self> {
        Ok(Self(test.folder("plugins")?))
    }

    /// The host looks here first, and keeps what it compiles for this test alone: no two files here are the same.
    pub(super) fn of(&self, plan: HostPlan) -> HostPlan {
        let plan = plan.flag("--plugins", &self.0.display().to_string());
        plan.env("WHIMBREL_CACHE", &self.cache().display().to_string())
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.0.with_file_name("cache")
    }

    /// The file of a type.
    pub(super) fn file(&self, kind: &str) -> PathBuf {
        self.0.join(format!("{kind}.wasm"))
    }

    /// Puts a file in place as package managers do: beside, then renamed.
    pub(super) fn drop_in(&self, kind: &str, bytes: &[u8]) -> Result<()> {
        let beside = self.0.join(".new");
        std::fs::write(&beside, bytes)?;
        Ok(std::fs::rename(beside, self.file(kind))?)
    }

    /// Writes over the file that is there, as `cp` does.
    pub(super) fn write_over(&self, kind: &str, bytes: &[u8]) -> Result<()> {
        Ok(std::fs::write(self.file(kind), bytes)?)
    }
}

/// The same component in another file: a custom section more.
pub(super) fn edition(of: &Path, number: u64) -> Result<Vec<u8>> {
    Ok(edition_of(std::fs::read(of)?, number))
}

/// The same, of what was read.
pub(super) fn edition_of(mut bytes: Vec<u8>, number: u64) -> Vec<u8> {
    append_custom_section(&mut bytes, "edition", number.to_string().as_bytes());
    bytes
}

/// A component with another description: of two, the last counts.
pub(super) fn described(of: &Path, description: &str) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(of)?;
    append_custom_section(&mut bytes, DESCRIPTION_SECTION, description.as_bytes());
    Ok(bytes)
}

/// How often the host has said something in this start.
pub(super) fn said(host: &Host, what: &str) -> usize {
    host.log().map(|log| log.matches(what).count()).unwrap_or_default()
}

/// Waits until the host has said something so many times in this start.
pub(super) async fn says(host: &Host, what: &str, times: usize) -> Result<()> {
    let waiting = until(what, async || (said(host, what) >= times).then_some(()));
    waiting.await.with_context(|| {
        let mut log = host.log().unwrap_or_default();
        write!(log, "\n({times} times {what:?})").ok();
        log
    })
}
