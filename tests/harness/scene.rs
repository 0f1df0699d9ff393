//! One test: its name, its folder, its seed, its bound in time. Called by every test of this package.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

/// How long an ordinary test may take, on a machine that builds at the same time.
const TEST_MAX: Duration = Duration::from_secs(120);

/// What belongs to one test.
#[derive(Debug)]
pub(crate) struct Test {
    /// Decides every random choice of the test. `WHIMBREL_TEST_SEED` sets it.
    pub(crate) seed: u64,
    folder: PathBuf,
    names: AtomicU32,
}

impl Test {
    /// A new folder inside the test's own.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("{number:02}-{name}"));
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }

    /// A generator that the seed decides.
    pub(crate) fn random(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }
}

/// Runs an ordinary test.
pub(crate) fn run(body: impl AsyncFnOnce(&Test) -> Result<()>) -> Result<()> {
    run_within(TEST_MAX, body)
}

/// Runs a test that may take longer. When it fails, its folder stays (logs of the hosts, data of the brokers) and its
/// path and seed are printed.
pub(crate) fn run_within(bound: Duration, body: impl AsyncFnOnce(&Test) -> Result<()>) -> Result<()> {
    let test = Test { seed: seed(), folder: own_folder()?, names: AtomicU32::new(0) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let kept = KeepUnlessDone { folder: test.folder.clone(), seed: test.seed, done: false };
    let outcome = runtime.block_on(async {
        let late = || Err(anyhow!("the test took longer than {bound:?}"));
        tokio::time::timeout(bound, Box::pin(body(&test))).await.unwrap_or_else(|_| late())
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome?;
    kept.delete();
    Ok(())
}

/// Where cargo put what it built: two folders above the test's own executable.
pub(crate) fn build_folder() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let folder = executable.parent().and_then(Path::parent).context("the test runs outside cargo's folders")?;
    Ok(folder.to_owned())
}

fn own_folder() -> Result<PathBuf> {
    let name = std::thread::current().name().unwrap_or("unnamed").replace("::", ".");
    let runs = build_folder()?.with_file_name("test-runs");
    let folder = runs.join(format!("{name}-{}-{:06x}", std::process::id(), fastrand::u32(..0x0100_0000)));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

fn seed() -> u64 {
    let given = std::env::var("WHIMBREL_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

/// Tells where to look when a test fails, by an error or by a panic.
struct KeepUnlessDone {
    folder: PathBuf,
    seed: u64,
    done: bool,
}

impl KeepUnlessDone {
    fn delete(mut self) {
        self.done = true;
    }
}

impl Drop for KeepUnlessDone {
    fn drop(&mut self) {
        if self.done {
            std::fs::remove_dir_all(&self.folder).ok();
        } else {
            eprintln!("logs and data: {}", self.folder.display());
            eprintln!("again with the same choices: WHIMBREL_TEST_SEED={}", self.seed);
        }
    }
}
