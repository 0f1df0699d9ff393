//! An instance behind the proxies. Called by every check that breaks connections.

use std::time::Duration;

use crate::check::Wrong;
use crate::rig::{Instance, Payload, Proxies, Rig};
use crate::wait::until_within;

/// Bytes that must be seen to go through the proxies. No codec makes them fewer.
const PROBE_BYTES: usize = 4096;

/// How long publishing them may take.
const PROBE_WAIT: Duration = Duration::from_secs(20);

/// How long a confirmed publish may take to be seen in the proxies.
const THROUGH_WAIT: Duration = Duration::from_secs(3);

/// An instance that reaches the broker through the proxies and no other way: what is broken where nobody goes proves nothing.
pub(super) async fn behind(rig: &Rig, proxies: &Proxies) -> Result<Instance, Wrong> {
    let instance = rig.instance_behind("one", proxies).await?;
    let topic = rig.topic("behind").await?;
    let mut probe = vec![0; PROBE_BYTES];
    fastrand::Rng::with_seed(rig.seed()).fill(&mut probe);
    let before = proxies.counts().request_bytes;
    let mut last = String::new();
    let published = until_within(PROBE_WAIT, "", async || {
        let answers = instance.publish(&topic, vec![Payload::of(probe.clone())]).await;
        last = format!("{answers:?}");
        answers.iter().all(Result::is_ok).then_some(())
    });
    if published.await.is_err() {
        return Err(Wrong::of("D4", format!("a publish through the proxies was answered: {last}")));
    }
    // Whoever confirms before the broker may not even have written yet.
    let through = || proxies.counts().request_bytes - before >= PROBE_BYTES as u64;
    if until_within(THROUGH_WAIT, "", async || through().then_some(())).await.is_err() {
        return Err(Wrong::new(
            "the adapter was given the proxies' addresses and publishes past it: if the broker tells its clients to come \
             elsewhere, it must tell them to come to the proxies, and the profile must say where that is (proxyListen)",
        ));
    }
    Ok(instance)
}
