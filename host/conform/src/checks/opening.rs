//! Opening: settings, a broker that is there, one that is not, and what it costs to do nothing.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use tokio::time::Instant;
use whimbrel_resources::FieldType;
use whimbrel_wasm::BrokerState;

use super::{read, subscribe};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{Instance, Rig};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "D1",
        title: "opens with the profile's settings",
        expects: "`open` succeeds, and the adapter tells `ready` within the resource's initTimeout",
        cause: "a wrong address or credential in the profile, or an adapter that never tells `ready` in its status",
        read: read::LIFE,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(opens(rig)),
    },
    Check {
        id: "D2",
        title: "answers ping",
        expects: "`ping` answers ok while the broker is there",
        cause: "a ping that asks for more than a sign of life, such as a permission",
        read: read::LIFE,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(pings(rig)),
    },
    Check {
        id: "B1",
        title: "refuses settings that do not parse",
        expects: "for each setting with a type, `open` answers `invalid` to a value that is none, and names the setting, within 1 s",
        cause: "a setting that is read only when it is needed, or whose default replaces what does not parse",
        read: read::DESCRIBING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(refuses(rig)),
    },
    Check {
        id: "B2",
        title: "opens, or says why not, while the broker is down",
        expects: "within initTimeout `open` fails, and not for ever, or the adapter tells `connecting` and goes on trying, calmly",
        cause: "an unreachable broker answered as `permanent` or `invalid`, no status, or a loop without a wait",
        read: read::CONNECTION,
        needs: &[Need::Shared],
        bound: None,
        run: |rig| Box::pin(waits(rig)),
    },
    Check {
        id: "C8",
        title: "costs nothing while nothing happens",
        expects: "an idle instance with a subscription uses less than a fifth of a processor",
        cause: "a loop that polls without a wait, or a timer that fires at once",
        read: read::CONNECTION,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(idles(rig)),
    },
    Check {
        id: "C10",
        title: "is what its description says",
        expects: "plugin.yaml lists every ability that `features` declares",
        cause: "an ability that was added in one place only",
        read: read::DESCRIBING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(std::future::ready(is_described(rig))),
    },
];

/// How long a bad setting may take to be refused.
const REFUSE_WAIT: Duration = Duration::from_secs(1);

/// What is neither a number, a switch, a duration nor one of a list.
const NONSENSE: &str = "neither-this-nor-that";

/// How long past `initTimeout` the news may take.
const NEWS_WAIT: Duration = Duration::from_secs(1);

/// How long idleness is measured.
const IDLE: Duration = Duration::from_secs(2);

/// The part of a processor that an idle instance may use.
const IDLE_CPU_MAX: f64 = 0.2;

async fn opens(rig: &Rig) -> Tested {
    rig.instance("one").await.map_err(Wrong::own)?;
    Ok(Finding::Passed)
}

async fn pings(rig: &Rig) -> Tested {
    rig.instance("one").await?.ping().await?;
    Ok(Finding::Passed)
}

async fn refuses(rig: &Rig) -> Tested {
    let Some(manifest) = &rig.profile().manifest else {
        return Ok(Finding::NotSupported("there is no plugin.yaml that says which settings have a type".to_owned()));
    };
    let typed: Vec<_> = manifest.fields.iter().filter(|field| field.kind != FieldType::String).collect();
    if typed.is_empty() {
        return Ok(Finding::NotSupported("no setting has a type but string".to_owned()));
    }
    for field in typed {
        refuses_one(rig, &field.name).await?;
    }
    Ok(Finding::Passed)
}

async fn refuses_one(rig: &Rig, name: &str) -> Result<(), Wrong> {
    let mut instance = rig.instance_begun("one", &rig.profile().with(name, NONSENSE))?;
    let answered = |state: &BrokerState| !matches!(state, BrokerState::Starting);
    instance.reaches(REFUSE_WAIT, answered).await;
    match instance.state() {
        BrokerState::Failed(why) if why.to_ascii_lowercase().contains(&name.to_ascii_lowercase()) => Ok(()),
        BrokerState::Failed(why) => Err(Wrong::new(format!("{name} was refused without being named: {why}"))),
        BrokerState::Starting => Err(Wrong::new(format!("{name} was neither taken nor refused within 1 s"))),
        state => Err(Wrong::new(format!("{name}: {NONSENSE} was taken; the broker is {state}"))),
    }
}

async fn waits(rig: &Rig) -> Tested {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let nobody = nobody.map_err(|error| Wrong::new(format!("this machine gives no port: {error}")))?;
    let component = rig.profile().at(&[nobody]);
    let bound = component.init_timeout + NEWS_WAIT;
    let mut instance = rig.instance_begun("one", &component)?;
    let told = |state: &BrokerState| !matches!(state, BrokerState::Starting | BrokerState::Ready);
    instance.reaches(bound, told).await;
    match instance.state() {
        BrokerState::Connecting(_) | BrokerState::Restarting(_) => {}
        BrokerState::Failed(why) => return Err(Wrong::new(format!("it gave up for ever: {why}"))),
        state => return Err(Wrong::new(format!("the broker is {state} after {} s", bound.as_secs()))),
    }
    calm(&instance, "while its broker is down").await
}

async fn idles(rig: &Rig) -> Tested {
    let instance = rig.instance("one").await?;
    let topic = rig.topic("idle").await?;
    let _inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    calm(&instance, "while nothing happens").await
}

/// Measures what an instance burns.
async fn calm(instance: &Instance, when: &str) -> Tested {
    let (before, started) = (instance.cpu(), Instant::now());
    tokio::time::sleep(IDLE).await;
    let Some((before, after)) = before.zip(instance.cpu()) else {
        return Ok(Finding::NotSupported("this system does not tell what a thread uses".to_owned()));
    };
    let part = after.saturating_sub(before).as_secs_f64() / started.elapsed().as_secs_f64();
    if part > IDLE_CPU_MAX {
        return Err(Wrong::new(format!("it used {:.0} % of a processor {when}", part * 100.0)));
    }
    Ok(Finding::Passed)
}

fn is_described(rig: &Rig) -> Tested {
    let Some(manifest) = &rig.profile().manifest else {
        return Ok(Finding::NotSupported("there is no plugin.yaml".to_owned()));
    };
    let listed = |name: &&str| manifest.features.iter().any(|feature| feature == name);
    let missing: Vec<&str> = rig.features().names().into_iter().filter(|name| !listed(name)).collect();
    if missing.is_empty() {
        return Ok(Finding::Passed);
    }
    Err(Wrong::new(format!("plugin.yaml does not list {}", missing.join(", "))))
}
