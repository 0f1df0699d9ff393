//! Adapter files that change while the host runs: a new one takes over from the running one while messages flow, a broken
//! one leaves it serving. Called by `running`; how the running adapter is replaced is the component host's to know.
//!
//! For each broker the file is looked up as at the start: the one that its resource names, else the first of its type in
//! the order of the search. So a file that is removed makes way for the next in that order, and if there is none the running
//! adapter serves on. Files that no broker needs are never opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use whimbrel_resources::{Component, PluginManifest, Severity};
use whimbrel_wasm::{Adapter, Grants, Loader, Plugin, ReplaceError, Replacer};

use super::{AGAIN_WAIT_MAX, AGAIN_WAIT_MIN, SETTLE_LOOKS_MAX, SETTLED_AFTER, Stamp, changes};
use crate::brokers::grants;
use crate::plugins::{Search, Source};

/// A running broker whose adapter another file may replace.
#[derive(Debug)]
pub(crate) struct Replaceable {
    pub(crate) component: Arc<Component>,
    /// What the description of a new file must say it is.
    pub(crate) kind: String,
    pub(crate) replacer: Replacer,
    /// The running component.
    pub(crate) digest: [u8; 32],
    /// Its file as it was when it was read.
    pub(crate) stamp: Stamp,
}

/// Why a file was not taken.
#[derive(Debug)]
enum Refusal {
    /// Its adapter is not ready now, and may be another time.
    ForNow(String),
    /// It will not be taken as it is.
    AsItIs(String),
    /// The broker was closed.
    Closed,
}

/// Who looks after the adapter files of brokers, one task for each.
#[derive(Debug)]
pub(crate) struct Followers {
    search: Arc<Search>,
    loader: Loader,
    looks: watch::Receiver<u64>,
    /// Whether files are followed at all.
    follows: bool,
}

impl Followers {
    /// For brokers that have their files in the folders of the search, or where these components say. A file elsewhere is
    /// looked at every few seconds.
    pub(crate) fn new(
        components: &[Arc<Component>],
        follows: bool,
        search: &Arc<Search>,
        loader: &Loader,
        look_every: Duration,
        stopping: &CancellationToken,
    ) -> Self {
        let named = components.iter().filter_map(|component| Some(component.plugin.as_ref()?.parent()?.to_owned()));
        let mut folders: Vec<PathBuf> = search.folders().iter().cloned().chain(named).collect();
        folders.sort();
        folders.dedup();
        let looks = changes::watch(folders, look_every, stopping.clone());
        Self { search: Arc::clone(search), loader: loader.clone(), looks, follows }
    }

    /// Looks after the file of this broker until then.
    pub(crate) fn follow(&self, broker: Replaceable, until: CancellationToken) {
        if !self.follows {
            return;
        }
        let follower = Follower {
            seen: broker.stamp.clone(),
            broker,
            search: Arc::clone(&self.search),
            loader: self.loader.clone(),
            again: None,
            wait: AGAIN_WAIT_MIN,
        };
        let looks = self.looks.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = until.cancelled() => {}
                () = follower.follow(looks) => {}
            }
        });
    }
}

/// Follows the file of one broker.
struct Follower {
    broker: Replaceable,
    search: Arc<Search>,
    loader: Loader,
    /// What was looked at last, taken or not.
    seen: Stamp,
    /// When it is to be tried again as it is.
    again: Option<Instant>,
    /// How long to wait after the next failure that may pass.
    wait: Duration,
}

impl Follower {
    async fn follow(mut self, mut looks: watch::Receiver<u64>) {
        loop {
            let again = self.again;
            let due = tokio::select! {
                changed = looks.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    false
                }
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => true,
            };
            let Some(stamp) = self.settled().await else { continue };
            if stamp != self.seen {
                self.wait = AGAIN_WAIT_MIN;
            } else if !due {
                continue;
            }
            self.again = None;
            if !self.look(stamp).await {
                return;
            }
        }
    }

    /// The file as it is, once it stays so. `None`: it changes all the time.
    async fn settled(&self) -> Option<Stamp> {
        let mut before = self.stamp();
        for _ in 0..SETTLE_LOOKS_MAX {
            if before == self.seen {
                return Some(before);
            }
            tokio::time::sleep(SETTLED_AFTER).await;
            let now = self.stamp();
            if now == before {
                return Some(now);
            }
            before = now;
        }
        None
    }

    fn stamp(&self) -> Stamp {
        Stamp::of(self.search.source(&self.broker.component))
    }

    /// Tries what there is now. `false`: the broker was closed.
    async fn look(&mut self, stamp: Stamp) -> bool {
        let component = &self.broker.component.name;
        let file = stamp.to_string();
        let source = self.search.source(&self.broker.component).filter(|_| stamp != Stamp::None);
        let Some(source) = source else {
            tracing::warn!(
                component,
                "its adapter's file is gone, and there is no other: the running adapter serves on"
            );
            self.seen = stamp;
            return true;
        };
        let read = self.read(source).await;
        if self.stamp() != stamp {
            // It was written to while it was read. The next look finds it as it is then.
            return true;
        }
        self.seen = stamp;
        let taken = match read {
            Ok(plugin) if plugin.digest() == self.broker.digest => return true,
            Ok(plugin) => self.take(plugin).await,
            Err(refusal) => Err(refusal),
        };
        let component = &self.broker.component.name;
        match taken {
            Ok(digest) => {
                tracing::info!(component, file, "another adapter file was found, and its adapter serves now");
                self.broker.digest = digest;
            }
            Err(Refusal::AsItIs(why)) => {
                tracing::error!(component, file, "not taken, the running adapter serves on: {why}");
            }
            Err(Refusal::ForNow(why)) => {
                let wait = self.wait;
                tracing::error!(component, file, ?wait, "not taken yet, the running adapter serves on: {why}");
                self.again = Some(Instant::now() + wait);
                self.wait = (wait * 2).min(AGAIN_WAIT_MAX);
            }
            Err(Refusal::Closed) => return false,
        }
        true
    }

    async fn read(&self, source: Source) -> Result<Plugin, Refusal> {
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        read.map_err(|error| Refusal::AsItIs(error.to_string()))?.map_err(|error| Refusal::AsItIs(format!("{error:#}")))
    }

    /// Lets a plugin take over. Its digest, once it serves.
    async fn take(&self, plugin: Plugin) -> Result<[u8; 32], Refusal> {
        let Replaceable { component, replacer, .. } = &self.broker;
        tracing::info!(component = component.name, file = %plugin.path.display(), "another adapter file is tried");
        let grants = self.fit(&plugin)?;
        let digest = plugin.digest();
        let loader = self.loader.clone();
        // Compiling takes a second a megabyte.
        let adapter = tokio::task::spawn_blocking(move || Adapter::load(&loader, &plugin)).await;
        let adapter = adapter.map_err(|error| Refusal::AsItIs(error.to_string()))?;
        let adapter = adapter.map_err(|error| Refusal::AsItIs(error.to_string()))?;
        replacer.replace(&adapter, grants).await.map(|()| digest).map_err(|error| match error {
            ReplaceError::NotReady(why) => Refusal::ForNow(why),
            ReplaceError::Unfit(why) | ReplaceError::Kept(why) => Refusal::AsItIs(why),
            ReplaceError::Closed => Refusal::Closed,
        })
    }

    /// Whether a plugin is of the type that runs, and can do with the resource as it is. What it may reach then.
    fn fit(&self, plugin: &Plugin) -> Result<Grants, Refusal> {
        let Replaceable { component, kind, .. } = &self.broker;
        let Some(text) = &plugin.description else { return Ok(grants(component, None)) };
        let manifest = PluginManifest::parse(text, &plugin.path)
            .map_err(|error| Refusal::AsItIs(format!("its plugin.yaml is wrong: {error}")))?;
        if manifest.kind != *kind {
            return Err(Refusal::AsItIs(format!("it is a {}, not a {kind}", manifest.kind)));
        }
        let problems = whimbrel_resources::check(component, &manifest);
        let wrong = problems.iter().find(|problem| problem.severity == Severity::Error);
        match wrong {
            Some(problem) => Err(Refusal::AsItIs(format!("the resource does not fit it: {problem}"))),
            None => Ok(grants(component, Some(&manifest))),
        }
    }
}
