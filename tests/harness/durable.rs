//! A subscriber's log: a line is on the disk before the subscriber answers. Called by the ledger.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};

/// How many lines may wait for the disk; what waits is written with one sync.
const LINES_WAITING_MAX: usize = 4096;

/// A file of numbers, one a line.
#[derive(Debug)]
pub(crate) struct DurableLog {
    path: PathBuf,
    lines: mpsc::Sender<(u64, oneshot::Sender<()>)>,
}

impl DurableLog {
    /// Makes the file.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        let (lines, queue) = mpsc::channel(LINES_WAITING_MAX);
        std::thread::Builder::new().name("durable log".into()).spawn(move || write_all(file, queue))?;
        Ok(Self { path, lines })
    }

    /// Returns once the number is on the disk.
    pub(crate) async fn append(&self, number: u64) -> Result<()> {
        let (done, written) = oneshot::channel();
        self.lines.send((number, done)).await.context("the log's thread has ended")?;
        written.await.context("the log could not be written")
    }

    /// What is on the disk, oldest first.
    pub(crate) fn read(&self) -> Result<Vec<u64>> {
        read(&self.path)
    }
}

fn read(path: &Path) -> Result<Vec<u64>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| line.parse().with_context(|| format!("{line:?} in {}", path.display()))).collect()
}

/// Ends when the log is dropped, or at the first error: then nobody gets an answer any more.
fn write_all(mut file: File, mut queue: mpsc::Receiver<(u64, oneshot::Sender<()>)>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < LINES_WAITING_MAX {
            let Ok(next) = queue.try_recv() else { break };
            batch.push(next);
        }
        let mut text = String::new();
        for (number, _) in &batch {
            text.push_str(&number.to_string());
            text.push('\n');
        }
        if file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        for (_, done) in batch {
            // Whoever asked may have gone away: the connection was cut.
            done.send(()).ok();
        }
    }
}
