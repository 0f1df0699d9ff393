//! The broker takes another secret from now on.

use std::time::Duration;

use super::behind::behind;
use super::load::{IN_FLIGHT_MIN, Load, RECOVER_WAIT};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::profile::replaced;
use crate::proxy::Cut;
use crate::rig::{Instance, Proxies, Rig};
use crate::wait::until_within;

/// Messages that are confirmed before it, by whoever has the new secret, and after.
const MESSAGES: u64 = 100;
const MESSAGES_MEANWHILE: u64 = 10;

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S17",
    title: "lives through a change of credentials",
    expects: "the broker takes another secret and every connection is cut: within 30 s the adapter's state names the setting, \
              an instance with the new secret serves; when the old one is taken again, the first instance goes on, and \
              nothing confirmed is lost",
    cause: "an adapter that gives up for ever when it is refused once, or that tells a lost connection and not why it \
            cannot make another",
    read: "wit/README.md, \"The connection to the broker\"",
    needs: &[Need::Proxy, Need::Rotate],
    bound: Some(Duration::from_secs(240)),
    run: |rig| Box::pin(rotated(rig)),
}];

async fn rotated(rig: &Rig) -> Tested {
    let (_, _, old) = rig.profile().rotating()?;
    let load = Load::new(rig).await?;
    let proxies = rig.proxies().await?;
    let instance = behind(rig, &proxies).await?;
    let inbox = load.subscribe(&instance).await?;
    let account = load
        .run(&instance, vec![(&instance, inbox)], async {
            load.flows(MESSAGES).await?;
            load.strikes("another secret").await;
            let stood = rotate(&load, &instance, &proxies).await;
            // Whatever happened: the next check needs it.
            let back = rig.control().rotate(old).await;
            stood?;
            back?;
            load.recovers(&instance).await?;
            load.flows(MESSAGES).await
        })
        .await?;
    instance.kill().await;
    account.judge()?;
    Ok(account.too_weak(1, IN_FLIGHT_MIN).map_or(Finding::Passed, Finding::Failed))
}

/// Changes the secret, and judges what both sides of the change see.
async fn rotate(load: &Load<'_>, instance: &Instance, proxies: &Proxies) -> Result<(), Wrong> {
    let rig = load.rig;
    let (setting, value, old) = rig.profile().rotating()?;
    let new = format!("conform-{:016x}", fastrand::u64(..));
    rig.control().rotate(&new).await?;
    proxies.cut_all(Cut::Reset);
    let name = setting.to_ascii_lowercase();
    let says = || instance.state().to_string().to_ascii_lowercase().contains(&name);
    if until_within(RECOVER_WAIT, "", async || says().then_some(())).await.is_err() {
        let (bound, state) = (RECOVER_WAIT.as_secs(), instance.state());
        let what =
            format!("{bound} s after the broker took another secret, the state does not name {setting}: {state}");
        return Err(Wrong::new(what));
    }
    let changed = replaced(&rig.component(), &[(setting.to_owned(), value.replace(old, &new))]);
    let other = rig.instance_of("two", &changed).await;
    let other = other.map_err(|wrong| Wrong::new(format!("with the new secret {wrong}")))?;
    load.fill(&other, MESSAGES_MEANWHILE).await?;
    other.kill().await;
    Ok(())
}
