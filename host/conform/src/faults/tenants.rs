//! Two tenants on one broker.

use std::time::Duration;

use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{Inbox, Payload, Rig};

/// Messages of each.
const MESSAGES: usize = 50;

/// How long they may take to arrive, and how long a stray one could still come.
const ARRIVE_WAIT: Duration = Duration::from_secs(20);
const LATE: Duration = Duration::from_millis(500);

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S20",
    title: "keeps two tenants of one broker apart",
    expects: "two instances with groups of one name, each on its own topic, whose names differ in their last character, get \
              their own messages and no others",
    cause: "a name cut or changed for the broker so that two topics become one",
    read: "wit/README.md, \"Subscribing, credit, and order\"",
    needs: &[Need::Shared, Need::Queue],
    bound: None,
    run: |rig| Box::pin(apart(rig)),
}];

async fn apart(rig: &Rig) -> Tested {
    let (mine, yours) = (rig.topic("tenant").await?, rig.topic("tenant").await?);
    let group = rig.group("tenant");
    let (one, two) = (rig.instance("one").await?, rig.instance("two").await?);
    let subscribed = async |instance: &crate::rig::Instance, topic: &str| {
        let inbox = instance.subscribe(topic, &group, 100).await;
        inbox.map_err(|error| Wrong::of("D3", format!("subscribing to {topic} failed: {error}")))
    };
    let (mut my_inbox, mut your_inbox) = (subscribed(&one, &mine).await?, subscribed(&two, &yours).await?);
    for (instance, topic) in [(&one, &mine), (&two, &yours)] {
        let payloads = (0..MESSAGES).map(|_| Payload::of(topic.clone())).collect();
        let failed = instance.publish(topic, payloads).await.into_iter().find_map(Result::err);
        if let Some(error) = failed {
            return Err(Wrong::of("D4", format!("publishing to {topic} failed: {error}")));
        }
    }
    let (mine, yours) = tokio::join!(only_its_own(&mut my_inbox, &mine), only_its_own(&mut your_inbox, &yours));
    mine.and(yours)?;
    Ok(Finding::Passed)
}

async fn only_its_own(inbox: &mut Inbox, topic: &str) -> Result<(), Wrong> {
    let mut came = inbox.take(MESSAGES, ARRIVE_WAIT).await;
    came.extend(inbox.watch(LATE).await);
    let foreign = came.iter().filter(|arrived| arrived.message.data != topic.as_bytes()).count();
    for arrived in &came {
        inbox.ack(arrived).await?;
    }
    if foreign > 0 {
        return Err(Wrong::of("D10", format!("{foreign} of the messages that came on {topic} are another tenant's")));
    }
    if came.len() < MESSAGES {
        return Err(Wrong::of("D6", format!("{} of {MESSAGES} messages came on {topic}", came.len())));
    }
    Ok(())
}
