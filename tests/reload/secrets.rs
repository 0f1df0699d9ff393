//! Redis gets another password, and the secret that Kubernetes has mounted follows, as the kubelet shows it: a link to
//! another folder. The host connects with the new one and loses nothing, and nobody reads a password in what it says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::files::said;
use super::flow::{Flow, came_twice};
use super::resources::Scene;
use crate::harness::app::App;
use crate::harness::redis::{Credentials, Redis};
use crate::harness::scale::scaled;
use crate::harness::{Test, http, resource, run_within, until};

/// How long a whole test may take before it counts as stuck.
const RUN_MAX: Duration = Duration::from_secs(240);

/// How often the password is another.
const ROTATIONS: u64 = 6;

/// Messages in all, at scale 1.
const MESSAGES: u64 = 4_000;

/// How long the app takes for each, so that some are in flight at each rotation.
const SLOW: Duration = Duration::from_millis(5);

/// The user that the host logs in as.
const USER: &str = "shop";

/// What Redis says to a wrong password, as the host's log shows it.
const REFUSED: &str = "WRONGPASS";

/// What a publish waits for an adapter that is turned away. Without a policy it would be half a minute.
const IMPATIENT: &str = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: policies}\nspec:\n  policies: \
                         {timeouts: {quick: 2s}}\n  targets: {components: {bus: {outbound: {timeout: quick}}}}\n";

/// A secret as the kubelet mounts it: a folder whose keys are links through a link that is replaced as a whole.
struct Mounted(PathBuf);

impl Mounted {
    fn new(folder: &Path, name: &str) -> Result<Self> {
        let secret = folder.join(name);
        std::fs::create_dir(&secret)?;
        std::os::unix::fs::symlink("..data/password", secret.join("password"))?;
        Ok(Self(secret))
    }

    /// Replaces the value, and removes the folder it was in, as the kubelet does.
    fn flip(&self, edition: u64, password: &str) -> Result<()> {
        let now = format!("..{edition}");
        std::fs::create_dir(self.0.join(&now))?;
        std::fs::write(self.0.join(&now).join("password"), password)?;
        std::os::unix::fs::symlink(&now, self.0.join("..data_tmp"))?;
        std::fs::rename(self.0.join("..data_tmp"), self.0.join("..data"))?;
        if let Some(before) = edition.checked_sub(1) {
            std::fs::remove_dir_all(self.0.join(format!("..{before}")))?;
        }
        Ok(())
    }
}

struct Vault {
    scene: Scene,
    redis: Redis,
    secret: Mounted,
    flow: Flow,
    seed: u64,
}

fn password(seed: u64, edition: u64) -> String {
    format!("geheim-{edition}-{seed:016x}")
}

impl Vault {
    /// Declared besides: policies, or nothing.
    async fn new(test: &Test, policies: Option<&str>) -> Result<Self> {
        let credentials = Credentials { user: USER.into(), password: password(test.seed, 0) };
        let redis = Redis::start_for(test, credentials).await?;
        let folder = test.folder("mounted")?;
        let secret = Mounted::new(&folder, "redis")?;
        secret.flip(0, &password(test.seed, 0))?;
        let app = App::start().await?;
        let mut flow = Flow::new(test, &app, &["/in"], scaled(MESSAGES), ROTATIONS)?;
        flow.subscriber.slow(SLOW);
        let path = folder.display().to_string();
        let store = resource::component("vault", "secretstores.kubernetes", &[("mountPath", &path)]);
        let settings = [("redisUsername", USER), ("processingTimeout", "10s")];
        let broker = resource::redis("bus", redis.address(), &settings)
            + "  - name: redisPassword\n    secretKeyRef: {name: redis, key: password}\nauth: {secretStore: vault}\n";
        let subscription = resource::subscription("bus", "orders", "/in", None);
        let slow = |plan: crate::harness::host::HostPlan| plan.flag("--app-max-concurrency", "2");
        let declared: Vec<&str> = [&*store, &*broker, &*subscription].into_iter().chain(policies).collect();
        let scene = Scene::with(test, app, &declared, slow).await?;
        flow.begin(&scene.host, "bus/orders");
        Ok(Self { scene, redis, secret, flow, seed: test.seed })
    }

    /// No password stands in what the host wrote, or shows.
    async fn nothing_is_told(&self) -> Result<()> {
        let metadata = http::get(self.scene.host.http()?, "/v1.0/metadata").await?.text();
        for edition in 0..=ROTATIONS {
            let password = password(self.seed, edition);
            ensure!(!self.scene.host.log()?.contains(&password), "the log tells {password}");
            ensure!(!metadata.contains(&password), "the metadata tell {password}");
        }
        Ok(())
    }
}

/// As it should be done: for a while both passwords are good. Nobody notices.
#[test]
fn a_password_is_replaced_while_both_are_good() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let mut vault = Vault::new(test, None).await?;
        for round in 0..ROTATIONS {
            vault.flow.in_the_middle_of(round).await?;
            let (old, new) = (password(vault.seed, round), password(vault.seed, round + 1));
            vault.redis.add_password(&new).await?;
            vault.secret.flip(round + 1, &new)?;
            vault.scene.taken().await?;
            vault.redis.remove_password(&old).await?;
            vault.flow.ledger.fault(format!("rotation {round}"));
        }
        let report = vault.flow.finish().await?;
        let (failed, twice) = (report.unknown, came_twice(&report));
        ensure!(failed == 0 && twice == 0, "{failed} publishes failed, {twice} messages came twice");
        vault.nothing_is_told().await
    })
}

/// As it is done, too: Redis knows only the new one and throws out who came with the old one, and the secret follows when
/// the host has been turned away. Publishes fail in between, and are made again.
#[test]
fn a_password_is_replaced_before_the_host_knows() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let mut vault = Vault::new(test, Some(IMPATIENT)).await?;
        for round in 0..ROTATIONS {
            vault.flow.in_the_middle_of(round).await?;
            let refused = said(&vault.scene.host, REFUSED);
            let new = password(vault.seed, round + 1);
            vault.redis.change_password(&new).await?;
            vault.flow.ledger.fault(format!("rotation {round}"));
            let turned_away = async || (said(&vault.scene.host, REFUSED) > refused).then_some(());
            until("the host to be turned away", turned_away).await?;
            vault.secret.flip(round + 1, &new)?;
            vault.scene.taken().await?;
        }
        vault.flow.finish().await?;
        vault.nothing_is_told().await
    })
}
