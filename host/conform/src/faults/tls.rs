//! A broker that speaks TLS, and is not the one that was meant, or does not know us.

use std::time::Duration;

use whimbrel_resources::{Component, Refused};
use whimbrel_wasm::BrokerState;

use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::profile::replaced;
use crate::rig::Rig;

/// How long past `initTimeout` the news may take.
const NEWS_WAIT: Duration = Duration::from_secs(5);

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S19",
    title: "refuses a broker whose certificate is not right",
    expects: "with the profile's `tls` settings it opens; with each of those under `refused` (another authority, another name, \
              no certificate of its own) it does not, and within `initTimeout` the error names the setting",
    cause: "verification that is switched off or does not cover the name, or a refusal that is passed on without the \
            setting to change",
    read: "wit/README.md, \"What the failures mean\"",
    needs: &[Need::Tls],
    bound: Some(Duration::from_secs(120)),
    run: |rig| Box::pin(strangers(rig)),
}];

async fn strangers(rig: &Rig) -> Tested {
    let Some(tls) = &rig.profile().conformance.tls else {
        return Ok(Finding::NotSupported("the profile names no `tls` settings".to_owned()));
    };
    let sound = replaced(&rig.component(), &tls.metadata);
    let opened = rig.instance_of("sound", &sound).await;
    let instance = opened.map_err(|wrong| Wrong::new(format!("with the profile's tls settings {wrong}")))?;
    instance.kill().await;
    for refused in &tls.refused {
        refuses(rig, &sound, refused).await?;
    }
    Ok(Finding::Passed)
}

async fn refuses(rig: &Rig, sound: &Component, refused: &Refused) -> Result<(), Wrong> {
    let component = replaced(sound, &refused.metadata);
    let mut instance = rig.instance_begun("refused", &component)?;
    let says =
        |state: &BrokerState| state.to_string().to_ascii_lowercase().contains(&refused.names.to_ascii_lowercase());
    let bound = component.init_timeout + NEWS_WAIT;
    instance.reaches(bound, |state| *state == BrokerState::Ready || says(state)).await;
    let state = instance.state();
    instance.kill().await;
    // Their values may be keys.
    let changed: Vec<&str> = refused.metadata.iter().map(|(name, _)| name.as_str()).collect();
    let changed = changed.join(", ");
    if state == BrokerState::Ready {
        return Err(Wrong::new(format!("with another {changed} it opens all the same")));
    }
    if !says(&state) {
        let what = format!("with another {changed} the error does not name {}: the broker is {state}", refused.names);
        return Err(Wrong::new(what));
    }
    Ok(())
}
