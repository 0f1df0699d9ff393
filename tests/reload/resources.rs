//! Resources that come, change and go while the host runs: what is declared now is what runs, what is the same is not
//! touched, and what is wrong changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::files::{said, says};
use crate::api::differs;
use crate::harness::app::{App, Reply};
use crate::harness::host::{Host, HostPlan};
use crate::harness::redis::Redis;
use crate::harness::{Test, http, plugin, resource, run};

/// What the host says when it has taken what is declared now.
pub(super) const TAKEN: &str = "resources loaded again";

/// What it says when it has not.
const REFUSED: &str = "what runs stays as it is, all of it";

/// What it says of a subscription that flows.
const SUBSCRIBED: &str = " subscribed ";

/// A host, its app and its folder of resources.
pub(super) struct Scene {
    pub(super) host: Host,
    pub(super) app: App,
    plan: HostPlan,
    taken: usize,
}

impl Scene {
    async fn new(test: &Test, resources: &[&str]) -> Result<Self> {
        let app = App::start().await?;
        Self::with(test, app, resources, |plan| plan).await
    }

    pub(super) async fn with(
        test: &Test,
        app: App,
        resources: &[&str],
        more: impl FnOnce(HostPlan) -> HostPlan,
    ) -> Result<Self> {
        let mut plan = test.host("shop")?;
        for yaml in resources {
            plan = plan.resource(yaml)?;
        }
        let plan = more(plan.app(&app));
        let host = plan.clone().start().await?;
        Ok(Self { host, app, plan, taken: 0 })
    }

    /// Puts a file in place as editors and package managers do, beside and then renamed, and waits until it is taken.
    pub(super) async fn put(&mut self, name: &str, yaml: &str) -> Result<()> {
        self.drop_in(name, yaml)?;
        self.taken().await
    }

    pub(super) fn drop_in(&self, name: &str, yaml: &str) -> Result<()> {
        let beside = self.plan.file(".new", yaml)?;
        Ok(std::fs::rename(&beside, beside.with_file_name(name))?)
    }

    /// Where a resource file is.
    pub(super) fn file(&self, name: &str) -> Result<PathBuf> {
        Ok(self.plan.file(".any", "")?.with_file_name(name))
    }

    pub(super) async fn remove(&mut self, name: &str) -> Result<()> {
        std::fs::remove_file(self.file(name)?)?;
        self.taken().await
    }

    /// Waits until what was refused is gone, so often.
    pub(super) async fn back(&self, times: usize) -> Result<()> {
        says(&self.host, "nothing has changed", times).await
    }

    pub(super) async fn taken(&mut self) -> Result<()> {
        self.taken += 1;
        says(&self.host, TAKEN, self.taken).await
    }

    pub(super) async fn refused(&self, times: usize, why: &str) -> Result<()> {
        says(&self.host, REFUSED, times).await?;
        ensure!(self.host.log()?.contains(why), "{why:?} is not in\n{}", self.host.log()?);
        Ok(())
    }

    async fn publish(&self, place: &str) -> Result<()> {
        http::publish_ok(self.host.http()?, place, "{}").await
    }

    /// The status that a publish is answered with.
    async fn status(&self, place: &str) -> Result<u16> {
        Ok(http::publish(self.host.http()?, place, "{}").await?.status)
    }

    async fn metadata(&self) -> Result<Value> {
        let metadata = http::get(self.host.http()?, "/v1.0/metadata").await?;
        Ok(serde_json::from_slice(&metadata.body)?)
    }

    /// The topics in the metadata API, in its order.
    pub(super) async fn topics(&self) -> Result<Vec<String>> {
        let metadata = self.metadata().await?;
        let topics = metadata["subscriptions"].as_array().cloned().unwrap_or_default();
        Ok(topics.iter().filter_map(|one| Some(one["topic"].as_str()?.to_owned())).collect())
    }

    async fn components(&self) -> Result<Vec<String>> {
        let metadata = self.metadata().await?;
        let components = metadata["components"].as_array().cloned().unwrap_or_default();
        Ok(components.iter().filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect())
    }

    /// How often a topic was subscribed to.
    pub(super) fn subscribed(&self, topic: &str) -> Result<usize> {
        let named = format!("topic=\"{topic}\"");
        let log = self.host.log()?;
        Ok(log.lines().filter(|line| line.contains(SUBSCRIBED) && line.contains(&named)).count())
    }
}

#[test]
fn subscriptions_come_change_and_go() -> Result<()> {
    run(async |test| {
        let kept = resource::subscription("bus", "kept", "/kept", None);
        let mut scene = Scene::new(test, &[&resource::queue("bus"), &kept]).await?;
        scene.put("new.yaml", &resource::subscription("bus", "new", "/one", None)).await?;
        ensure!(scene.topics().await? == ["kept", "new"]);
        scene.publish("bus/new").await?;
        scene.app.wait_for(1, "/one").await?;
        // Another route needs no other feed.
        scene.put("new.yaml", &resource::subscription("bus", "new", "/two", None)).await?;
        scene.publish("bus/new").await?;
        scene.app.wait_for(1, "/two").await?;
        ensure!(scene.app.seen_on("/one").len() == 1 && scene.subscribed("new")? == 1);
        // Other metadata does.
        let fewer = resource::subscription("bus", "new", "/two", None);
        let fewer = fewer.replace("  routes:", "  metadata: {maxUnsettled: \"7\"}\n  routes:");
        scene.put("new.yaml", &fewer).await?;
        ensure!(scene.subscribed("new")? == 2);
        scene.publish("bus/new").await?;
        scene.app.wait_for(2, "/two").await?;
        scene.remove("new.yaml").await?;
        ensure!(scene.topics().await? == ["kept"]);
        scene.publish("bus/new").await?;
        scene.publish("bus/kept").await?;
        scene.app.wait_for(1, "/kept").await?;
        // What came meanwhile is there when somebody asks for it again; and nothing was seen in between.
        ensure!(scene.app.seen_on("/two").len() == 2);
        scene.put("new.yaml", &resource::subscription("bus", "new", "/three", None)).await?;
        scene.app.wait_for(1, "/three").await?;
        ensure!(scene.subscribed("kept")? == 1, "the one that was not touched has a gap:\n{}", scene.host.log()?);
        Ok(())
    })
}

/// Labels, remarks and the order of documents are no change; what has changed moves to the end.
#[test]
fn what_is_the_same_is_not_touched_and_what_has_changed_is_listed_last() -> Result<()> {
    run(async |test| {
        let of = |topic: &str, path: &str| resource::subscription("bus", topic, path, None);
        let both = of("c", "/c") + &of("d", "/d");
        let mut scene = Scene::new(test, &[&resource::queue("bus"), &both]).await?;
        ensure!(scene.topics().await? == ["c", "d"]);
        scene.drop_in("01.yaml", &(String::from("# a remark\n") + &of("d", "/d") + &of("c", "/c")))?;
        scene.host.signal(Signal::HUP)?;
        says(&scene.host, "nothing has changed", 1).await?;
        ensure!(scene.topics().await? == ["c", "d"] && said(&scene.host, TAKEN) == 0);
        scene.put("01.yaml", &(of("c", "/other") + &of("d", "/d"))).await?;
        ensure!(scene.topics().await? == ["d", "c"], "{:?}", scene.topics().await?);
        ensure!(scene.subscribed("c")? == 1 && scene.subscribed("d")? == 1);
        Ok(())
    })
}

#[test]
fn components_come_change_and_go() -> Result<()> {
    run(async |test| {
        let kept = resource::queue("kept") + &resource::subscription("kept", "t", "/kept", None);
        // Declared for a component that is not there: it waits for it.
        let early = resource::subscription("bus", "t", "/t", None);
        let mut scene = Scene::new(test, &[&kept, &early]).await?;
        ensure!(scene.components().await? == ["kept"] && scene.status("bus/t").await? == 404);
        scene.put("bus.yaml", &resource::in_memory("bus")).await?;
        ensure!(scene.components().await? == ["bus", "kept"]);
        scene.publish("bus/t").await?;
        scene.app.wait_for(1, "/t").await?;
        // Another connection: what is subscribed to it moves.
        scene.put("bus.yaml", &resource::queue("bus")).await?;
        scene.publish("bus/t").await?;
        scene.app.wait_for(2, "/t").await?;
        says(&scene.host, "component closed", 1).await?;
        // Only what the host decides with: the adapter stays.
        let mut scoped = resource::component("bus", "pubsub.in-memory", &[("mode", "queue"), ("allowedTopics", "u")]);
        scene.put("bus.yaml", &scoped).await?;
        ensure!(scene.status("bus/t").await? == 403 && scene.status("bus/u").await? == 204);
        ensure!(scene.topics().await?.len() == 2 && said(&scene.host, "component closed") == 1);
        scoped = scoped.replace("value: \"u\"", "value: \"t\"");
        scene.put("bus.yaml", &scoped).await?;
        scene.publish("bus/t").await?;
        scene.app.wait_for(3, "/t").await?;
        scene.remove("bus.yaml").await?;
        ensure!(scene.status("bus/t").await? == 404 && scene.components().await? == ["kept"]);
        says(&scene.host, "component closed", 2).await?;
        scene.publish("kept/t").await?;
        scene.app.wait_for(1, "/kept").await?;
        ensure!(said(&scene.host, "pubsub=\"kept\" topic=\"t\"") == 1, "a gap:\n{}", scene.host.log()?);
        Ok(())
    })
}

/// A file that has another document, one that is for somebody else now, a file that is emptied and one that goes.
#[test]
fn documents_come_and_go_within_a_file() -> Result<()> {
    run(async |test| {
        let of = |topic: &str| resource::subscription("bus", topic, &format!("/{topic}"), None);
        let mut scene = Scene::new(test, &[&resource::queue("bus"), &of("a")]).await?;
        scene.put("01.yaml", &(of("a") + &of("b"))).await?;
        ensure!(scene.topics().await? == ["a", "b"]);
        for topic in ["a", "b"] {
            scene.publish(&format!("bus/{topic}")).await?;
            scene.app.wait_for(1, &format!("/{topic}")).await?;
        }
        scene.put("01.yaml", &(of("a") + &of("b") + "scopes: [other]\n")).await?;
        ensure!(scene.topics().await? == ["a"]);
        scene.put("01.yaml", &(of("a") + &of("b") + "scopes: [other, shop]\n")).await?;
        ensure!(scene.topics().await? == ["a", "b"]);
        scene.put("01.yaml", "").await?;
        ensure!(scene.topics().await?.is_empty());
        scene.put("01.yaml", &of("b")).await?;
        scene.publish("bus/b").await?;
        scene.app.wait_for(2, "/b").await?;
        scene.remove("01.yaml").await?;
        ensure!(scene.topics().await?.is_empty() && scene.status("bus/b").await? == 204);
        Ok(())
    })
}

/// What is in flight when its subscription goes is finished and counted; it is no longer listed meanwhile.
#[test]
fn what_is_in_flight_is_finished_when_its_subscription_goes() -> Result<()> {
    run(async |test| {
        let of = |path: &str| resource::subscription("bus", "t", path, None);
        let mut scene = Scene::new(test, &[&resource::queue("bus"), &of("/old")]).await?;
        let answered = Duration::from_secs(3);
        scene.app.plan("/old", [Reply::After(answered, 200, String::new())]);
        scene.publish("bus/t").await?;
        let begun = scene.app.wait_for(1, "/old").await?[0].at;
        scene.remove("01.yaml").await?;
        ensure!(scene.topics().await?.is_empty(), "it is listed");
        scene.publish("bus/t").await?;
        scene.put("01.yaml", &of("/new")).await?;
        // What was not begun comes to who subscribes next, and only that: the other was acknowledged first.
        let next = scene.app.wait_for(1, "/new").await?[0].at;
        ensure!(next - begun >= answered, "the one before had not ended");
        ensure!(scene.app.seen_on("/old").len() == 1 && scene.app.seen_on("/new").len() == 1);
        Ok(())
    })
}

/// A host that is told not to follow changes takes none while another takes the same; but it does when it is asked.
#[test]
fn nothing_is_followed_where_that_is_switched_off() -> Result<()> {
    run(async |test| {
        let still = |plan: HostPlan| -> Result<HostPlan> {
            let text = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\n\
                        spec: {features: [{name: HotReload, enabled: false}]}\n";
            let file = plan.file("configuration", text)?;
            Ok(plan.flag("--config", &file.display().to_string()))
        };
        let plan = still(test.host("still")?.resource(resource::queue("bus"))?)?;
        let app = App::start().await?;
        let host = plan.clone().app(&app).start().await?;
        let mut still = Scene { host, app, plan, taken: 0 };
        let mut other = Scene::new(test, &[&resource::queue("bus")]).await?;
        let new = resource::subscription("bus", "new", "/new", None);
        still.drop_in("new.yaml", &new)?;
        other.put("new.yaml", &new).await?;
        ensure!(other.topics().await? == ["new"] && still.topics().await?.is_empty());
        still.host.signal(Signal::HUP)?;
        still.taken().await?;
        ensure!(still.topics().await? == ["new"]);
        Ok(())
    })
}

/// A component that cannot be opened leaves everything as it is, and is taken when it can.
#[test]
fn a_component_that_does_not_open_leaves_the_old_one() -> Result<()> {
    run(async |test| {
        let first = Redis::start(test).await?;
        let mut second = Redis::start(test).await?;
        let of = |redis: &Redis| {
            resource::redis("bus", redis.address(), &[]).replace("spec:\n", "spec:\n  initTimeout: 1s\n")
        };
        let subscription = resource::subscription("bus", "t", "/t", None);
        let mut scene = Scene::new(test, &[&of(&first), &subscription]).await?;
        second.kill().await?;
        scene.drop_in("00.yaml", &of(&second))?;
        scene.drop_in("new.yaml", &resource::subscription("bus", "new", "/new", None))?;
        scene.refused(1, "[INIT_COMPONENT_FAILURE]").await?;
        ensure!(scene.topics().await? == ["t"], "a part was taken");
        scene.publish("bus/t").await?;
        scene.app.wait_for(1, "/t").await?;
        ensure!(scene.subscribed("t")? == 1 && first.entries("t").await?.len() == 1);
        second.start_again().await?;
        scene.taken().await?;
        scene.publish("bus/t").await?;
        scene.app.wait_for(2, "/t").await?;
        ensure!(first.entries("t").await?.len() == 1 && second.entries("t").await?.len() == 1);
        Ok(())
    })
}

#[test]
fn a_broken_file_changes_nothing() -> Result<()> {
    run(async |test| {
        differs("5.8 what cannot be taken");
        let subscription = resource::subscription("bus", "t", "/t", None);
        let mut scene = Scene::new(test, &[&resource::queue("bus"), &subscription]).await?;
        let twice = resource::queue("bus");
        let wrong = resource::component("odd", "pubsub.in-memory", &[("mode", "sideways")]);
        let rule = resource::subscription("bus", "new", "/new", None)
            .replace("    default: /new\n", "    rules: [{match: \"event.\", path: /new}]\n");
        let nothing = resource::component("odd", "pubsub.nothing", &[]);
        let broken =
            [(twice, "duplicate definition"), (wrong, "mode"), (rule, "new.yaml"), (nothing, "pubsub.nothing")];
        for (number, (yaml, why)) in broken.iter().enumerate() {
            scene.drop_in("new.yaml", yaml)?;
            scene.refused(number + 1, why).await?;
            ensure!(scene.topics().await? == ["t"] && scene.components().await? == ["bus"]);
            scene.publish("bus/t").await?;
            scene.app.wait_for(number + 1, "/t").await?;
        }
        scene.put("new.yaml", &resource::subscription("bus", "new", "/new", None)).await?;
        scene.publish("bus/new").await?;
        scene.app.wait_for(1, "/new").await?;
        ensure!(scene.subscribed("t")? == 1);
        Ok(())
    })
}

/// What is in flight finishes under the policy it began with.
#[test]
fn policies_hold_for_what_comes_after() -> Result<()> {
    run(async |test| {
        let of = |retries: u32, wait: &str| {
            let policy = format!("{{retries: {{r: {{policy: constant, duration: {wait}, maxRetries: {retries}}}}}}}");
            resource::inbound("bus", &policy, "{retry: r}")
        };
        let broker = resource::queue("bus");
        let subscription = resource::subscription("bus", "t", "/t", Some("dead"));
        let dead = resource::subscription("bus", "dead", "/dead", None);
        let mut scene = Scene::new(test, &[&broker, &subscription, &dead, &of(1, "2s")]).await?;
        scene.app.plan("/t", [Reply::status(500)]);
        scene.publish("bus/t").await?;
        scene.app.wait_for(1, "/t").await?;
        scene.put("03.yaml", &of(3, "10ms")).await?;
        scene.app.wait_for(1, "/dead").await?;
        ensure!(scene.app.seen_on("/t").len() == 2, "the old policy has one retry");
        scene.publish("bus/t").await?;
        scene.app.wait_for(2, "/dead").await?;
        ensure!(scene.app.seen_on("/t").len() == 2 + 4, "the new policy has three");
        let metadata = scene.metadata().await?;
        ensure!(metadata["resiliencies"][0]["name"] == "policies", "{metadata}");
        scene.remove("03.yaml").await?;
        ensure!(scene.metadata().await?["resiliencies"].is_null());
        Ok(())
    })
}

/// What the app asks for itself is asked once, and stays over what is declared.
#[test]
fn what_the_app_asked_for_is_not_lost() -> Result<()> {
    run(async |test| {
        differs("5.8 what the app asked for");
        let app = App::start().await?;
        app.subscribe(r#"[{"pubsubname":"bus","topic":"own","route":"/own"}]"#);
        let mut scene = Scene::with(test, app, &[&resource::queue("bus")], |plan| plan).await?;
        scene.app.subscribe("[]");
        scene.put("new.yaml", &resource::subscription("bus", "new", "/new", None)).await?;
        ensure!(scene.topics().await? == ["own", "new"]);
        scene.put("own.yaml", &resource::subscription("bus", "own", "/declared", None)).await?;
        for topic in ["own", "new"] {
            scene.publish(&format!("bus/{topic}")).await?;
            scene.app.wait_for(1, &format!("/{topic}")).await?;
        }
        ensure!(scene.app.seen_on("/declared").is_empty() && scene.subscribed("own")? == 1);
        Ok(())
    })
}

/// An app is asked when the first component comes.
#[test]
fn the_first_component_asks_the_app() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.subscribe(r#"[{"pubsubname":"bus","topic":"own","route":"/own"}]"#);
        let mut scene = Scene::with(test, app, &[], |plan| plan).await?;
        ensure!(scene.topics().await?.is_empty());
        scene.put("bus.yaml", &resource::queue("bus")).await?;
        ensure!(scene.topics().await? == ["own"]);
        scene.publish("bus/own").await?;
        scene.app.wait_for(1, "/own").await?;
        Ok(())
    })
}

/// Kubernetes shows a `ConfigMap` as links into a folder that is itself a link, and replaces that one.
#[test]
fn a_config_map_is_swapped() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let folder = test.folder("mounted")?;
        let version = |name: &str, topic: &str| -> Result<()> {
            let version = folder.join(name);
            std::fs::create_dir(&version)?;
            std::fs::write(version.join("s.yaml"), resource::subscription("bus", topic, &format!("/{topic}"), None))?;
            std::os::unix::fs::symlink(name, folder.join("..data_tmp"))?;
            Ok(std::fs::rename(folder.join("..data_tmp"), folder.join("..data"))?)
        };
        version("..1", "one")?;
        std::os::unix::fs::symlink("..data/s.yaml", folder.join("s.yaml"))?;
        let mounted = folder.display().to_string();
        let more = |plan: HostPlan| plan.flag("--resources-path", &mounted);
        let mut scene = Scene::with(test, app, &[&resource::queue("bus")], more).await?;
        for (number, topic) in [(2, "two"), (3, "three")] {
            version(&format!("..{number}"), topic)?;
            scene.taken().await?;
            ensure!(scene.topics().await? == [topic]);
            scene.publish(&format!("bus/{topic}")).await?;
            scene.app.wait_for(1, &format!("/{topic}")).await?;
        }
        Ok(())
    })
}

/// The folder goes, and what runs stays; it comes again, as another one, and is followed.
#[test]
fn the_folder_goes_and_comes_again() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let folder = test.folder("mounted")?;
        let write = |topic: &str| -> Result<()> {
            let yaml = resource::subscription("bus", topic, &format!("/{topic}"), None);
            Ok(std::fs::write(folder.join("s.yaml"), yaml)?)
        };
        write("one")?;
        let mounted = folder.display().to_string();
        let more = |plan: HostPlan| plan.flag("--resources-path", &mounted);
        let mut scene = Scene::with(test, app, &[&resource::queue("bus")], more).await?;
        std::fs::remove_dir_all(&folder)?;
        scene.refused(1, "the folder of resources cannot be read").await?;
        scene.publish("bus/one").await?;
        scene.app.wait_for(1, "/one").await?;
        std::fs::create_dir(&folder)?;
        write("two")?;
        scene.taken().await?;
        ensure!(scene.topics().await? == ["two"]);
        write("three")?;
        scene.taken().await?;
        ensure!(scene.topics().await? == ["three"]);
        Ok(())
    })
}

/// A file of secrets outside of the folders, and SIGHUP.
#[test]
fn secrets_are_resolved_again() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let (first, second) = (Redis::start(test).await?, Redis::start(test).await?);
        let file = test.folder("secrets")?.join("secrets.json");
        let write = |file: &Path, redis: &Redis| -> Result<()> {
            Ok(std::fs::write(file, format!(r#"{{"host": "{}"}}"#, redis.address()))?)
        };
        write(&file, &first)?;
        let path = file.display().to_string();
        let store = resource::component("vault", "secretstores.local.file", &[("secretsFile", &path)]);
        let broker = resource::component("bus", "pubsub.redis", &[("processingTimeout", "2s")])
            + "  - name: redisHost\n    secretKeyRef: {name: host}\nauth: {secretStore: vault}\n";
        let subscription = resource::subscription("bus", "t", "/t", None);
        let mut scene = Scene::with(test, app, &[&store, &broker, &subscription], |plan| plan).await?;
        scene.publish("bus/t").await?;
        scene.app.wait_for(1, "/t").await?;
        write(&file, &second)?;
        scene.host.signal(Signal::HUP)?;
        scene.taken().await?;
        scene.publish("bus/t").await?;
        scene.app.wait_for(2, "/t").await?;
        ensure!(first.entries("t").await?.len() == 1 && second.entries("t").await?.len() == 1);
        ensure!(!scene.host.log()?.contains("secret store is"), "{}", scene.host.log()?);
        // Without being asked, too.
        write(&file, &first)?;
        scene.taken().await
    })
}

#[test]
fn handlers_come_change_and_go() -> Result<()> {
    run(async |test| {
        let file = test.folder("handlers")?.join("handler.wasm");
        let swap = |number: u64| -> Result<()> {
            let beside = file.with_extension("new");
            std::fs::write(&beside, super::files::edition(plugin::misbehaving_handler(), number)?)?;
            Ok(std::fs::rename(beside, &file)?)
        };
        swap(0)?;
        let of = |topic: &str| resource::handler("h", &file, &[("bus", topic, None)], "{instances: 2}");
        let kept = resource::subscription("bus", "kept", "/kept", None);
        let mut scene = Scene::new(test, &[&resource::queue("bus"), &kept]).await?;
        scene.put("h.yaml", &of("a")).await?;
        ensure!(scene.topics().await? == ["kept", "a"]);
        says(&scene.host, "handler loaded", 1).await?;
        // Another file: its instances take over, and the feed stays.
        swap(1)?;
        says(&scene.host, "handler loaded", 2).await?;
        scene.taken().await?;
        ensure!(scene.subscribed("a")? == 1);
        std::fs::write(&file, "no component")?;
        says(&scene.host, "the running handler serves on", 1).await?;
        scene.put("h.yaml", &of("b")).await?;
        ensure!(scene.topics().await? == ["kept", "b"] && scene.subscribed("b")? == 1);
        scene.remove("h.yaml").await?;
        ensure!(scene.topics().await? == ["kept"] && scene.subscribed("kept")? == 1);
        Ok(())
    })
}
