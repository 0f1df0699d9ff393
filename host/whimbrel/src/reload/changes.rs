//! Tells when to look at folders again: at once where the system says that something happened, and every few
//! seconds, because not every file system does (network mounts, some container volumes).

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How often is looked without having been told, unless something else is said. (Dapr's is a minute.)
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A number that goes up whenever it is time to look: when something is told of these folders, and so often in any case.
pub(crate) fn watch(folders: Vec<PathBuf>, every: Duration, stopping: CancellationToken) -> watch::Receiver<u64> {
    let (looks, receiver) = watch::channel(0);
    // One word waits at most: it says all there is to say.
    let (tell, mut told) = mpsc::channel(1);
    let mut watching = Watching { folders, every, tell, identities: Vec::new(), watcher: None, complained: false };
    watching.renew();
    tokio::spawn(async move {
        let mut clock = tokio::time::interval(every);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                Some(()) = told.recv() => {}
                _ = clock.tick() => watching.renew(),
            }
            looks.send_modify(|looks| *looks += 1);
        }
    });
    receiver
}

/// Who listens to the system.
struct Watching {
    folders: Vec<PathBuf>,
    every: Duration,
    tell: mpsc::Sender<()>,
    /// Device and inode of each folder, as far as it was there.
    identities: Vec<Option<(u64, u64)>>,
    /// Watches as long as it lives.
    watcher: Option<RecommendedWatcher>,
    complained: bool,
}

impl Watching {
    /// The system watches folders, not names: one that has come, or has come again, is watched anew.
    fn renew(&mut self) {
        let identity = |folder: &PathBuf| std::fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()));
        let identities: Vec<_> = self.folders.iter().map(identity).collect();
        if identities == self.identities {
            return;
        }
        let there = self.folders.iter().zip(&identities).filter(|(_, identity)| identity.is_some());
        match watcher(there.map(|(folder, _)| folder), self.tell.clone()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) if !self.complained => {
                self.complained = true;
                let every = self.every;
                tracing::warn!(
                    "changed files are found by looking every {every:?}, for the system does not tell: {error}"
                );
            }
            Err(_) => {}
        }
        self.identities = identities;
    }
}

fn watcher<'a>(
    folders: impl Iterator<Item = &'a PathBuf>,
    tell: mpsc::Sender<()>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_news(event.kind)) {
            // A full channel has a word in it already.
            tell.try_send(()).ok();
        }
    })?;
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Not that somebody reads a file: this host does.
fn is_news(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time is paused: it jumps to the next look.
    #[tokio::test(start_paused = true)]
    async fn looks_come_as_often_as_is_said() {
        for every in [LOOK_EVERY, Duration::from_millis(700), Duration::from_secs(3600)] {
            let stopping = CancellationToken::new();
            let mut looks = watch(Vec::new(), every, stopping.clone());
            let begun = tokio::time::Instant::now();
            // The first is at once.
            for _ in 0..4 {
                looks.changed().await.expect("it looks until it is told to stop");
            }
            assert_eq!(begun.elapsed(), 3 * every);
            stopping.cancel();
            assert!(looks.changed().await.is_err(), "{every:?}: it looks on");
        }
    }
}
