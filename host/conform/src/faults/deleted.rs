//! What a subscription stands on is deleted under it: its group, then its topic.

use std::time::Duration;

use super::load::{IN_FLIGHT_MIN, Load};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::Rig;
use crate::wait::until_within;

/// Messages that are confirmed before it, and again after.
const MESSAGES: u64 = 100;

/// How long past its recovery an adapter may take to tell what it has noticed.
const TELL_WAIT: Duration = Duration::from_secs(5);

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S18",
    title: "goes on when its group or topic is deleted",
    expects: "the group (a queue, a consumer), then the topic is deleted while messages flow: within 30 s what is published \
              since is delivered and acknowledged, from then on nothing is lost, and the adapter has told `data-loss`",
    cause: "an adapter that makes its group or topic ready when it subscribes and never again, that takes the broker's \
            \"no such group\" for an empty answer, or that goes on and tells nobody",
    read: "wit/README.md, \"The connection to the broker\"",
    needs: &[Need::Shared, Need::Delete],
    bound: Some(Duration::from_secs(240)),
    run: |rig| Box::pin(both(rig)),
}];

/// What is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Group,
    Topic,
}

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Topic => "topic",
        }
    }

    async fn delete(self, load: &Load<'_>) -> Result<(), Wrong> {
        let (control, topic) = (load.rig.control(), &load.topic);
        match self {
            Self::Group => control.delete_group(topic, &load.group).await?,
            Self::Topic => control.delete_topic(topic).await?,
        }
        Ok(())
    }
}

async fn both(rig: &Rig) -> Tested {
    let spec = &rig.profile().conformance;
    for (victim, command) in [(Victim::Group, &spec.delete_group), (Victim::Topic, &spec.delete_topic)] {
        if command.is_empty() {
            continue;
        }
        if let failed @ Finding::Failed(_) = survives(rig, victim).await? {
            return Ok(failed);
        }
    }
    Ok(Finding::Passed)
}

async fn survives(rig: &Rig, victim: Victim) -> Tested {
    let load = Load::new(rig).await?;
    let instance = rig.instance(victim.name()).await?;
    let inbox = load.subscribe(&instance).await?;
    let mut back = 0;
    let account = load
        .run(&instance, vec![(&instance, inbox)], async {
            load.flows(MESSAGES).await?;
            load.strikes(format!("the {} is deleted", victim.name())).await;
            victim.delete(&load).await?;
            load.recovers(&instance).await?;
            // Whoever reads the broker may have to begin anew.
            rig.control().prepare(&load.topic).await?;
            back = load.ledger.next();
            load.flows(MESSAGES).await
        })
        .await?;
    let told = until_within(TELL_WAIT, "", async || (instance.losses() > 0).then_some(())).await;
    instance.kill().await;
    let weak = account.too_weak(1, IN_FLIGHT_MIN);
    let told = told.map_err(|_| {
        let what = format!("the {} was deleted, and the adapter has told no `data-loss`", victim.name());
        Wrong::new(what).and(&account)
    });
    // What was there before may be gone; what was confirmed since may not.
    account.since(back).judge()?;
    told?;
    Ok(weak.map_or(Finding::Passed, Finding::Failed))
}
