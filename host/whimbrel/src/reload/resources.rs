//! Resource files that change while the host runs, and SIGHUP: what is declared is loaded again, and what runs becomes like it.
//! On any problem what runs stays as it is, all of it, and the log says why.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use whimbrel_resources::{Diff, Problems, Snapshot, Surroundings};

use super::{AGAIN_WAIT_MAX, AGAIN_WAIT_MIN, SETTLE_LOOKS_MAX, SETTLED_AFTER, Stamp, changes};
use crate::plugins::Source;
use crate::running::Running;

/// What is declared, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// `--resources-path`.
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) app_id: String,
    /// Types of components that are not loaded.
    pub(crate) denied: Vec<String>,
    /// How often changes are looked for that the system does not tell of.
    pub(crate) look_every: Duration,
    /// Whether changes are looked for. SIGHUP is heeded in any case.
    pub(crate) follows: bool,
}

impl Declared {
    /// Reads it: what is sound, and all that is wrong.
    pub(crate) fn read(&self) -> (Snapshot, Problems) {
        let surroundings = Surroundings::of_process().deny(&self.denied);
        whimbrel_resources::survey(&self.folders, &[&self.app_id], &surroundings)
    }
}

/// Why the files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Something may have changed.
    Look,
    /// SIGHUP.
    Asked,
    /// It failed before for a reason that may have passed.
    Due,
}

/// Every file with how it was.
type Stamps = Vec<(PathBuf, Stamp)>;

/// See the module.
pub(crate) struct Follower {
    declared: Declared,
    running: Running,
    /// Outside of the folders: secrets, handlers.
    files: Vec<PathBuf>,
    /// What was looked at last, taken or not.
    seen: Stamps,
    /// Why that was not taken; empty, if it was.
    refused: String,
    again: Option<Instant>,
    wait: Duration,
}

impl Follower {
    /// What runs is what was declared when the files were so.
    pub(crate) fn new(declared: Declared, running: Running) -> Self {
        let files = files(running.snapshot());
        let mut follower = Self {
            declared,
            running,
            files,
            seen: Stamps::new(),
            refused: String::new(),
            again: None,
            wait: AGAIN_WAIT_MIN,
        };
        follower.seen = follower.stamps();
        follower
    }

    /// Subscribes, first for the handlers, then for the app once it is `reached`; says so when all is live; and follows the
    /// files, for ever. Dropped, it leaves what runs as it is.
    pub(crate) async fn run(
        mut self,
        reached: impl Future<Output = ()>,
        mut asked: Signal,
        is_live: impl FnOnce(),
        stopping: &CancellationToken,
    ) {
        let handlers = self.files.iter().filter_map(|file| Some(file.parent()?.to_owned()));
        let mut folders: Vec<PathBuf> = self.declared.folders.iter().cloned().chain(handlers).collect();
        folders.sort();
        folders.dedup();
        let mut looks = changes::watch(folders, self.declared.look_every, stopping.clone());
        let mut begun = self.running.begin().await;
        let (mut reached, mut is_reached) = (pin!(reached), false);
        let mut is_live = Some(is_live);
        loop {
            let again = self.again;
            let why = tokio::select! {
                () = &mut reached, if !is_reached => {
                    is_reached = true;
                    begun.extend(self.running.app_reached().await);
                    continue;
                }
                () = all_live(&mut begun), if is_reached && is_live.is_some() => {
                    if let Some(tell) = is_live.take() {
                        tell();
                    }
                    continue;
                }
                Some(()) = asked.recv() => Why::Asked,
                Ok(()) = looks.changed(), if self.declared.follows => Why::Look,
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => Why::Due,
            };
            self.look(why).await;
        }
    }

    async fn look(&mut self, why: Why) {
        if why == Why::Asked {
            tracing::info!("asked to load the resources again (SIGHUP)");
        }
        let stamps = self.settled().await;
        if stamps != self.seen {
            self.wait = AGAIN_WAIT_MIN;
        } else if why == Why::Look {
            return;
        }
        let declared = self.declared.clone();
        let Ok((snapshot, problems)) = tokio::task::spawn_blocking(move || declared.read()).await else { return };
        if self.stamps() != stamps {
            // It was written to while it was read. The next look finds it as it is then.
            self.again = Some(Instant::now() + SETTLED_AFTER);
            return;
        }
        self.again = None;
        self.files.extend(files(&snapshot));
        self.files.sort();
        self.files.dedup();
        self.seen = self.stamps();
        if problems.has_errors() {
            return self.refuse(&problems.to_string(), why);
        }
        let snapshot = Snapshot { warnings: problems.0, ..snapshot };
        match self.running.become_like(snapshot).await {
            Ok(different) => self.taken(different.as_ref(), why),
            Err(error) => self.refuse(&format!("{error:#}"), why),
        }
    }

    fn taken(&mut self, different: Option<&Diff>, why: Why) {
        self.files = files(self.running.snapshot());
        self.seen = self.stamps();
        let was_refused = !std::mem::take(&mut self.refused).is_empty();
        match different {
            Some(Diff { components, subscriptions, handlers, policies }) => {
                tracing::info!(%components, %subscriptions, %handlers, policies, "resources loaded again");
            }
            None if was_refused || why == Why::Asked => {
                tracing::info!("the resources are as they were when they were taken last: nothing has changed");
            }
            None => {}
        }
    }

    /// Says what is wrong, once, and tries again: a broker may be there later, a secret or a plugin.
    fn refuse(&mut self, problems: &str, why: Why) {
        let wait = self.wait;
        self.again = Some(Instant::now() + wait);
        self.wait = (wait * 2).min(AGAIN_WAIT_MAX);
        if self.refused == problems && why != Why::Asked {
            return;
        }
        problems.clone_into(&mut self.refused);
        for problem in problems.lines() {
            tracing::error!("{problem}");
        }
        tracing::error!(?wait, "the resources are not taken as they are now, what runs stays as it is, all of it");
    }

    /// The files as they are, once they stay so, or after a while as they are just then.
    async fn settled(&self) -> Stamps {
        let mut before = self.stamps();
        for _ in 0..SETTLE_LOOKS_MAX {
            if before == self.seen {
                break;
            }
            tokio::time::sleep(SETTLED_AFTER).await;
            let now = self.stamps();
            if now == before {
                break;
            }
            before = now;
        }
        before
    }

    /// One `stat` for each file. A folder that is gone has none.
    fn stamps(&self) -> Stamps {
        let declared = self.declared.folders.iter().flat_map(|folder| whimbrel_resources::resource_files(folder));
        let stamp = |file: PathBuf| (file.clone(), Stamp::of(Some(Source::File(file))));
        declared.chain(self.files.iter().cloned()).map(stamp).collect()
    }
}

/// Waits until each has answered, or was stopped.
async fn all_live(begun: &mut Vec<oneshot::Receiver<()>>) {
    while let Some(ready) = begun.last_mut() {
        ready.await.ok();
        begun.pop();
    }
}

/// What a snapshot is made of besides the files in its folders.
fn files(snapshot: &Snapshot) -> Vec<PathBuf> {
    let handlers = snapshot.handlers.iter().map(|handler| handler.file.clone());
    snapshot.files.iter().cloned().chain(handlers).collect()
}
