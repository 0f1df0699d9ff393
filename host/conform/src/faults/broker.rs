//! The broker goes away and comes back, in good order and not.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::load::{IN_FLIGHT_MIN, Load};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::control::ControlError;
use crate::rig::Rig;
use crate::scale::scaled;

/// How long the broker stays away: long enough for everybody to notice.
const AWAY: Duration = Duration::from_millis(1500);

/// Messages that are confirmed before it goes.
const MESSAGES_BEFORE: u64 = 200;

/// How long a check may take at scale 1.
const BOUND: Option<Duration> = Some(Duration::from_secs(240));

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "S1",
        title: "survives a restart of the broker",
        expects: "the broker is stopped in good order while messages flow and started again: what was confirmed is still \
                  there and is delivered, and within 30 s publishes and deliveries go on in the same instance",
        cause: "an adapter that gives up reconnecting, that does not take up its subscriptions again, or that declares \
                `durable` and does not ask the broker to keep messages",
        read: "wit/README.md, \"The connection to the broker\"",
        needs: &[Need::Shared, Need::Durable, Need::Stop],
        bound: BOUND,
        run: |rig| Box::pin(restart(rig, "stop")),
    },
    Check {
        id: "S2",
        title: "loses nothing confirmed when the broker is killed",
        expects: "the broker is killed (-9) while messages flow and started again: every message confirmed before is in \
                  the broker and is delivered, and within 30 s publishes and deliveries go on in the same instance",
        cause: "a confirm that is not the broker's durable one: asked for too little, or answered too early",
        read: "wit/README.md, \"Publishing\"",
        needs: &[Need::Shared, Need::Durable, Need::Kill],
        bound: BOUND,
        run: |rig| Box::pin(restart(rig, "kill")),
    },
];

async fn restart(rig: &Rig, how: &'static str) -> Tested {
    let load = Load::new(rig).await?;
    let instance = rig.instance("one").await?;
    let inbox = load.subscribe(&instance).await?;
    let times = scaled(1);
    let account = load
        .run(&instance, vec![(&instance, inbox)], async {
            for _ in 0..times {
                load.flows(MESSAGES_BEFORE).await?;
                load.strikes(how).await;
                go_and_come_back(rig, how).await?;
                load.recovers(&instance).await?;
            }
            Ok(())
        })
        .await?;
    instance.kill().await;
    account.judge()?;
    Ok(account.too_weak(1, IN_FLIGHT_MIN).map_or(Finding::Passed, Finding::Failed))
}

/// The broker is started again whatever happened to it: the next check needs it.
async fn go_and_come_back(rig: &Rig, how: &str) -> Result<(), Wrong> {
    let control = rig.control();
    let gone: Result<(), ControlError> = if how == "kill" { control.kill().await } else { control.stop().await };
    sleep_until(Instant::now() + AWAY).await;
    let back = control.start().await;
    gone?;
    Ok(back?)
}
