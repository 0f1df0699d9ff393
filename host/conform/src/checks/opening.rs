//! Opening: settings, a broker that is there, one that is not.

use crate::check::{Check, Finding, Tested, Wrong};
use crate::rig::Rig;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "D1",
        title: "opens with the profile's settings",
        expects: "`open` succeeds, and the adapter tells `ready` within the resource's initTimeout",
        cause: "a wrong address or credential in the profile, or an adapter that never tells `ready` in its status",
        read: "wit/README.md, \"The life of an adapter\"",
        needs: &[],
        bound: None,
        run: |rig| Box::pin(opens(rig)),
    },
    Check {
        id: "D2",
        title: "answers ping",
        expects: "`ping` answers ok while the broker is there",
        cause: "a ping that asks for more than a sign of life, such as a permission",
        read: "wit/README.md, \"The life of an adapter\"",
        needs: &[],
        bound: None,
        run: |rig| Box::pin(pings(rig)),
    },
];

async fn opens(rig: &Rig) -> Tested {
    rig.instance("one").await.map_err(Wrong::own)?;
    Ok(Finding::Passed)
}

async fn pings(rig: &Rig) -> Tested {
    rig.instance("one").await?.ping().await?;
    Ok(Finding::Passed)
}
