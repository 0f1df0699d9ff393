//! A host with nothing to do: memory, CPU, and how long it took to be ready.

use std::time::{Duration, Instant};

use crate::redis_server::RedisServer;
use crate::{cpu, http, table};

/// How long idleness is watched.
const WATCH: Duration = Duration::from_secs(10);

const STARTS: usize = 7;

const IN_MEMORY: &str = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: bus }\nspec: { type: pubsub.in-memory, version: v1 }\n";

pub fn measure() {
    let redis = RedisServer::start();
    table::head(
        "Idle and start, one adapter, compiled code cached",
        &["adapter", "ready after", "memory (PSS)", "CPU a minute"],
    );
    for (name, resources) in [("in-memory", IN_MEMORY.to_owned()), ("Redis", http::redis_resource(&redis))] {
        // The first start may compile.
        drop(http::host(&resources));
        let start = || {
            let started = Instant::now();
            let host = http::host(&resources);
            (started.elapsed().as_secs_f64(), host)
        };
        let starts: Vec<f64> = (0..STARTS).map(|_| start().0).collect();
        let (_, host) = start();
        let before = cpu::of(host.server.pid());
        std::thread::park_timeout(WATCH);
        let used = cpu::of(host.server.pid()) - before;
        table::row(&[
            name.to_owned(),
            format!("{:.0} ms", table::median(starts) * 1000.0),
            format!("{:.1} MB", cpu::memory(host.server.pid()) as f64 / 1e6),
            format!("{:.0} ms", used.as_secs_f64() * 1000.0 * 60.0 / WATCH.as_secs_f64()),
        ]);
    }
}
