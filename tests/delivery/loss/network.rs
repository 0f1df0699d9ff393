//! The network between host and broker breaks: connections cut inside of what is being written, confirms lost.

use anyhow::Result;

use super::rig::{RUN_MAX, Rig};
use crate::harness::proxy::{Cut, Mode, Proxy, Toward};
use crate::harness::{resource, run_within};

/// Cuts at a random byte, in either direction and either way.
const CUTS: u64 = 12;

/// Confirms thrown away.
const SWALLOWS: u64 = 8;

/// The farthest byte a cut falls on, from the moment it is asked for. A share of the messages is several times that.
const CUT_WITHIN_BYTES: u64 = 150_000;

/// The most bytes of confirms that are thrown away before the connections are reset: some hundred of them.
const SWALLOW_BYTES_MAX: u64 = 3_000;

#[test]
fn connections_break_at_any_byte_and_confirms_get_lost() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, waiting) = Rig::new(test, CUTS + SWALLOWS, &["shop"]).await?;
        let proxy = Proxy::start(rig.redis.address()).await?;
        let broker = resource::redis("bus", proxy.address(), &[]);
        let mut sides = vec![];
        for one in waiting {
            sides.push(Rig::side(test, one, &broker).await?);
        }
        let Some(side) = sides.first() else { return Ok(()) };
        rig.publish(side.host.address());
        let mut random = test.random();
        for fault in 0..CUTS + SWALLOWS {
            let mode = if fault % 5 < 3 {
                let way = if random.bool() { Toward::Server } else { Toward::Client };
                let how = if random.bool() { Cut::Reset } else { Cut::Close };
                Mode::CutAfter(way, random.u64(1..CUT_WITHIN_BYTES), how)
            } else {
                Mode::Swallow(random.u64(1..SWALLOW_BYTES_MAX))
            };
            rig.open_share();
            proxy.strike(mode).await?;
            rig.ledger.fault(format!("{mode:?}"));
        }
        rig.finish(&sides).await?;
        let open = proxy.counts().open;
        assert!((1..=4).contains(&open), "{open} connections are open after {} cuts", CUTS + SWALLOWS);
        Ok(())
    })
}
