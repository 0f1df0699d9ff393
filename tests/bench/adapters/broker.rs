//! A real broker for the measurements, from the one place that can start them: `tests/brokers/broker`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A running broker on the load's core. All sides of a table use this one and its durability.
pub struct Server {
    pub address: String,
    name: String,
    folder: tempfile::TempDir,
    topics: AtomicU32,
}

impl Server {
    /// Installs what is missing, and starts one.
    pub fn start(name: &str) -> Self {
        let kind = if name == "jetstream" { "nats" } else { name };
        let mut server = Self {
            address: String::new(),
            name: kind.to_owned(),
            folder: tempfile::tempdir().unwrap(),
            topics: AtomicU32::new(0),
        };
        server.tool(&["install", kind]);
        let text = server.on_it("start", &["--unsynced"]);
        let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        line["address"].as_str().unwrap().clone_into(&mut server.address);
        server
    }

    /// A topic that nobody has used, ready for use.
    pub fn topic(&self) -> String {
        let topic = format!("bench-{}", self.topics.fetch_add(1, Ordering::Relaxed));
        self.on_it("prepare", &[&topic]);
        topic
    }

    fn on_it(&self, what: &str, more: &[&str]) -> String {
        let folder = self.folder.path().to_str().unwrap();
        self.tool(&[&[self.name.as_str(), what, "--folder", folder], more].concat())
    }

    fn tool(&self, arguments: &[&str]) -> String {
        let tool: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("brokers/broker");
        let output = Command::new("taskset").args(["-c", "1"]).arg(tool).args(arguments).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.address.is_empty() {
            self.on_it("kill", &[]);
        }
    }
}
