//! Connects without a wait for as long as the broker is away: what an adapter does that forgot its backoff.

use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::properties::Properties;
use whimbrel_sdk::{Config, net, timer};

use crate::Shared;

/// Connections in a row, then a breath: the host interrupts what never lets go.
const BURST_CONNECTIONS: u32 = 20;

/// The breath.
const BREATH: Duration = Duration::from_millis(1);

/// Bursts after one loss.
const BURSTS_MAX: u32 = 200;

pub(crate) async fn run(config: Config, shared: Rc<Shared>) {
    let Some((host, port)) = Properties::of(&config).text("redisHost").and_then(|address| address.split_once(':'))
    else {
        return;
    };
    let Ok(port) = port.parse() else { return };
    let loss = shared.losses.get();
    for _ in 0..BURSTS_MAX {
        for _ in 0..BURST_CONNECTIONS {
            drop(net::connect(host, port, None).await);
        }
        if shared.losses.get() != loss {
            return;
        }
        timer::sleep(BREATH).await;
    }
}
