//! Which file is taken: the one that is complete, the next in the search order where one is removed, for every resource of
//! its type, and for nobody else.

use std::io::Write as _;
use std::mem::MaybeUninit;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::files::{Folder, NOT_TAKEN, TAKEN, TRIED, edition, said, says};
use crate::harness::redis::Redis;
use crate::harness::{http, plugin, resource, run, until};

const KIND: &str = "pubsub.redis";

#[test]
fn a_file_that_is_removed_makes_way_for_the_next() -> Result<()> {
    run(async |test| {
        let folder = Folder::new(test)?;
        let redis = Redis::start(test).await?;
        let other = test.folder("other")?;
        let plan = test.host("shop")?.resource(resource::redis("bus", redis.address(), &[]))?;
        let plan = folder.of(plan).flag("--plugins", &other.display().to_string());
        folder.drop_in(KIND, &edition(plugin::redis(), 1)?)?;
        std::fs::write(other.join("pubsub.redis.wasm"), edition(plugin::redis(), 2)?)?;
        let host = plan.start().await?;
        std::fs::remove_file(folder.file(KIND))?;
        says(&host, TAKEN, 1).await?;
        ensure!(host.log()?.lines().any(|line| line.contains(TAKEN) && line.contains("other")), "not from there");
        std::fs::remove_file(other.join("pubsub.redis.wasm"))?;
        says(&host, TAKEN, 2).await?;
        ensure!(
            host.log()?.lines().any(|line| line.contains(TAKEN) && line.contains("built in")),
            "not the built-in one"
        );
        http::publish_ok(host.http()?, "bus/t", "{}").await
    })
}

#[test]
fn a_file_that_is_gone_for_good_serves_on() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let file = test.folder("elsewhere")?.join("adapter.wasm");
        std::fs::copy(plugin::redis(), &file)?;
        let broker = resource::from_file(&resource::redis("bus", redis.address(), &[]), &file, "");
        let host = test.host("shop")?.resource(broker)?.start().await?;
        std::fs::remove_file(&file)?;
        says(&host, "its adapter's file is gone", 1).await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        // The file that a resource names is followed as well.
        std::fs::write(&file, edition(plugin::redis(), 1)?)?;
        says(&host, TAKEN, 1).await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await
    })
}

#[test]
fn all_resources_of_a_type_move() -> Result<()> {
    run(async |test| {
        let folder = Folder::new(test)?;
        let redis = Redis::start(test).await?;
        let mut plan = test.host("shop")?;
        for name in ["one", "two", "three"] {
            plan = plan.resource(resource::redis(name, redis.address(), &[]))?;
        }
        let host = folder.of(plan.resource(resource::in_memory("four"))?).start().await?;
        folder.drop_in(KIND, &edition(plugin::redis(), 1)?)?;
        says(&host, TAKEN, 3).await?;
        for name in ["one", "two", "three"] {
            let log = host.log()?;
            let named = format!("component=\"{name}\"");
            ensure!(
                log.lines().any(|line| line.contains(TAKEN) && line.contains(&named)),
                "{name} did not move:\n{log}"
            );
            http::publish_ok(host.http()?, &format!("{name}/t"), "{}").await?;
        }
        Ok(())
    })
}

/// A file that grows slowly is not looked into; one whose writer stops in the middle is refused, and taken when it is whole.
#[test]
fn a_file_is_taken_when_it_is_complete() -> Result<()> {
    run(async |test| {
        let folder = Folder::new(test)?;
        let redis = Redis::start(test).await?;
        let plan = test.host("shop")?.resource(resource::redis("bus", redis.address(), &[]))?;
        let host = folder.of(plan).start().await?;
        let whole = edition(plugin::redis(), 1)?;
        let mut out = std::fs::File::create(folder.file(KIND))?;
        for part in whole.chunks(whole.len() / 20) {
            out.write_all(part)?;
            // Slower than any file system, and faster than what counts as a pause.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(out);
        says(&host, TAKEN, 1).await?;
        ensure!(said(&host, NOT_TAKEN) == 0, "it was taken before it was whole:\n{}", host.log()?);

        let whole = edition(plugin::redis(), 2)?;
        let (first, second) = whole.split_at(whole.len() / 2);
        let mut out = std::fs::File::create(folder.file(KIND))?;
        out.write_all(first)?;
        says(&host, "ends in the middle", 1).await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        out.write_all(second)?;
        says(&host, TAKEN, 2).await?;
        // Written once more as it is: nothing happens.
        folder.drop_in(KIND, &whole)?;
        let opened = Opened::of(&folder)?;
        until("it to be looked at", async || opened.names().ok().filter(|names| !names.is_empty())).await?;
        folder.drop_in(KIND, &edition(plugin::redis(), 3)?)?;
        says(&host, TAKEN, 3).await?;
        ensure!(said(&host, TRIED) == 3, "the same file was tried again:\n{}", host.log()?);
        Ok(())
    })
}

/// Nobody opens the file of a type that no resource names; the one that is named is opened once.
#[test]
fn files_cost_nothing_until_a_resource_names_them() -> Result<()> {
    run(async |test| {
        let folder = Folder::new(test)?;
        for kind in ["pubsub.redis", "pubsub.kafka", "pubsub.nothing"] {
            std::fs::write(folder.file(kind), edition(plugin::redis(), 1)?)?;
        }
        std::fs::write(folder.file("pubsub.broken"), "no component")?;
        std::fs::write(folder.file("pubsub.in-memory"), edition(plugin::in_memory(), 1)?)?;
        let opened = Opened::of(&folder)?;
        let host = folder.of(test.host("shop")?.resource(resource::in_memory("bus"))?).start().await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        let needed = ["pubsub.in-memory.wasm"];
        let names = opened.names()?;
        ensure!(names == needed, "opened: {names:?}");
        // A file that nobody needs comes, and one that is needed: when that one was looked at, so was the other, or not at all.
        std::fs::rename(folder.file("pubsub.redis"), folder.file("pubsub.other"))?;
        let moved = folder.0.with_file_name("moved");
        std::fs::write(&moved, edition(plugin::in_memory(), 2)?)?;
        std::fs::rename(moved, folder.file("pubsub.in-memory"))?;
        says(&host, "the running adapter is not durable", 1).await?;
        let names = opened.names()?;
        ensure!(names == needed, "opened: {names:?}");
        let compiled = std::fs::read_dir(folder.cache())?
            .filter_map(|entry| entry.ok()?.path().extension().map(ToOwned::to_owned));
        let compiled = compiled.filter(|extension| extension == "cwasm").count();
        ensure!(compiled == 2, "{compiled} components were compiled");
        Ok(())
    })
}

/// What the system knows about who opens a folder's files.
struct Opened(rustix::fd::OwnedFd);

impl Opened {
    fn of(folder: &Folder) -> Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, &folder.0, inotify::WatchFlags::OPEN).context("watching the folder")?;
        Ok(Self(watch))
    }

    /// The files that were opened since, one after another of the same counted once; the folder itself has no name.
    fn names(&self) -> Result<Vec<String>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut names = vec![];
        loop {
            match reader.next() {
                Ok(event) => names.extend(event.file_name().map(|name| name.to_string_lossy().into_owned())),
                Err(Errno::AGAIN) => return Ok(names),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
