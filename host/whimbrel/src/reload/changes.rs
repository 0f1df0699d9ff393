//! Tells when to look at the plugin folders again: at once where the system says that something happened, and every few
//! seconds, because not every file system does (network mounts, some container volumes).

use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How often is looked without having been told.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A number that goes up whenever it is time to look.
pub(crate) fn watch(folders: &[PathBuf], stopping: CancellationToken) -> watch::Receiver<u64> {
    let (looks, receiver) = watch::channel(0);
    // One word waits at most: it says all there is to say.
    let (tell, mut told) = mpsc::channel(1);
    let watcher = watcher(folders, tell);
    tokio::spawn(async move {
        // Watches as long as it lives.
        let _watcher = watcher;
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                Some(()) = told.recv() => {}
                _ = clock.tick() => {}
            }
            looks.send_modify(|looks| *looks += 1);
        }
    });
    receiver
}

fn watcher(folders: &[PathBuf], tell: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let made = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_news(event.kind)) {
            // A full channel has a word in it already.
            tell.try_send(()).ok();
        }
    });
    let watching = made.and_then(|mut watcher| {
        folders.iter().try_for_each(|folder| watcher.watch(folder, RecursiveMode::NonRecursive))?;
        Ok(watcher)
    });
    let complain = |error: &notify::Error| {
        tracing::warn!(
            "new adapter files are found by looking every {LOOK_EVERY:?}, for the system does not tell: {error}"
        );
    };
    watching.inspect_err(complain).ok()
}

/// Not that somebody reads a file: this host does.
fn is_news(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
