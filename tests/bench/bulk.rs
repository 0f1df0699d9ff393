//! Bulk publishes of 100 events of 1 KiB each, against the bare endpoint that reads the same bodies.

use std::time::Duration;

use crate::http::{IN_MEMORY, host, redis_resource};
use crate::load::{self, Seen};
use crate::redis_server::RedisServer;
use crate::{cpu, table};

const RUN: Duration = Duration::from_secs(4);

const ROUNDS: usize = 3;

/// Events in one request.
const EVENTS: usize = 100;

const CONNECTIONS: usize = 8;

pub fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    table::head(
        "Bulk publish, 100 x 1 KiB of JSON, 8 connections, server pinned to one core",
        &["server", "CPU a message", "messages/s", "p50 of a request", "CPU, to bare axum"],
    );
    let log = tempfile::NamedTempFile::new().unwrap().into_temp_path().to_path_buf();
    let bare = cpu::start(&["bare"], &log, &[]);
    let bare_address = cpu::announced(&log, "listening http=");
    let memory = host(IN_MEMORY);
    let redis = RedisServer::start();
    let streams = host(&redis_resource(&redis));
    let servers = [
        ("bare axum", &bare, &bare_address),
        ("in-memory", &memory.server, &memory.address),
        ("Redis", &streams.server, &streams.address),
    ];
    let mut rounds: [Vec<(Seen, Duration)>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (index, (_, server, address)) in servers.iter().enumerate() {
            let request = || load::bulk_request(address, "t", EVENTS);
            runtime.block_on(load::run_with(request(), address, CONNECTIONS, RUN / 8, None));
            let before = cpu::of(server.pid());
            let seen = runtime.block_on(load::run_with(request(), address, CONNECTIONS, RUN, None));
            rounds[index].push((seen, cpu::of(server.pid()) - before));
        }
    }
    let of = |index: usize, value: &dyn Fn(&(Seen, Duration)) -> f64| {
        table::median(rounds[index].iter().map(value).collect())
    };
    let cpu = |index| of(index, &|(seen, cpu)| cpu.as_secs_f64() / (seen.requests as f64 * EVENTS as f64));
    for (index, (server, ..)) in servers.iter().enumerate() {
        table::row(&[
            (*server).to_owned(),
            table::micros(Duration::from_secs_f64(cpu(index))),
            format!("{:.0}", of(index, &|(seen, _)| seen.per_second() * EVENTS as f64)),
            table::micros(Duration::from_secs_f64(of(index, &|(seen, _)| seen.percentile(0.5).as_secs_f64()))),
            format!("{:.2}", cpu(index) / cpu(0)),
        ]);
    }
}
