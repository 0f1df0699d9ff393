//! What ten thousand idle connections, and clients that take their time, cost an honest client.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::http::{IN_MEMORY, host};
use crate::{cpu, load, table};

const RUN: Duration = Duration::from_secs(4);

const ROUNDS: usize = 3;

const RATE: f64 = 2000.0;

pub fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    table::head(
        "An honest client, 2,000 publishes a second on 16 connections, in-memory, beside others",
        &["beside", "p50", "p99", "p99, to nobody", "memory (PSS)"],
    );
    let mut alone = 0.0;
    let head = "POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\n";
    let byte = format!("{head}content-length: 100000\r\n\r\nx");
    for (name, count, beginning) in [
        ("nobody", 0, ""),
        ("10,000 that say nothing", 10_000, ""),
        ("1,000 that do not end their headers", 1000, head),
        ("1,000 that send one byte of a body", 1000, &byte),
    ] {
        let host = host(IN_MEMORY);
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(runtime.block_on(async {
                let mut crowd = Vec::with_capacity(count);
                for _ in 0..count {
                    let mut stream = TcpStream::connect(&host.address).await.unwrap();
                    stream.write_all(beginning.as_bytes()).await.ok();
                    crowd.push(stream);
                }
                load::run(&host.address, 16, RUN, Some(RATE)).await
            }));
        }
        let of = |fraction| table::median(rounds.iter().map(|seen| seen.percentile(fraction).as_secs_f64()).collect());
        if count == 0 {
            alone = of(0.99);
        }
        table::row(&[
            name.to_owned(),
            table::micros(Duration::from_secs_f64(of(0.5))),
            table::micros(Duration::from_secs_f64(of(0.99))),
            format!("{:.2}", of(0.99) / alone),
            format!("{:.1} MB", cpu::memory(host.server.pid()) as f64 / 1e6),
        ]);
    }
}
