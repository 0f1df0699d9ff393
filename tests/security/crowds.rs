//! Clients that come in crowds, or that take their time: whoever speaks is served beside them, and memory stays bounded.
//! What they cost the others in latency is measured by `tests/bench/run crowds`.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::{Test, http, resource, run};

/// Connections that say nothing, or half of something.
const IDLE: usize = 10_000;

/// Clients that have begun to say something and do not go on.
const SLOW: usize = 1_000;

/// What the host may have in memory at its worst moment, bytes. It starts with about 60 MB.
const MEMORY_MAX: u64 = 300 * 1024 * 1024;

/// Publishes that an honest client makes beside the others.
const HONEST: usize = 50;

async fn shop(test: &Test) -> Result<(App, Host)> {
    let app = App::start().await?;
    let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
    let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app);
    Ok((app, plan.start().await?))
}

/// Opens connections and sends each of them the beginning of a request, or nothing.
async fn crowd(to: SocketAddr, count: usize, beginning: &[u8]) -> Result<Vec<TcpStream>> {
    let mut there = Vec::with_capacity(count);
    for n in 0..count {
        let mut stream = TcpStream::connect(to).await.with_context(|| format!("connection {n}"))?;
        // One that the host has closed already has nothing more to say.
        stream.write_all(beginning).await.ok();
        there.push(stream);
    }
    Ok(there)
}

/// A client that keeps its connection, as clients do.
struct Honest(TcpStream);

impl Honest {
    async fn publishes(&mut self, count: usize) -> Result<()> {
        let request = b"POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
        for n in 0..count {
            self.0.write_all(request).await?;
            let mut answer = [0; 512];
            let length = self.0.read(&mut answer).await?;
            let answer = answer.get(..length).unwrap_or_default();
            anyhow::ensure!(answer.starts_with(b"HTTP/1.1 204"), "{n}: {}", String::from_utf8_lossy(answer));
        }
        Ok(())
    }
}

fn check(count: usize, beginning: &'static [u8]) -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test).await?;
        let mut honest = Honest(TcpStream::connect(host.http()?).await?);
        honest.publishes(HONEST).await?;
        let crowd = crowd(host.http()?, count, beginning).await?;
        honest.publishes(HONEST).await.context("one that was there before")?;
        for _ in 0..HONEST {
            http::publish_ok(host.http()?, "bus/t", "{}").await.context("one that comes after")?;
        }
        app.wait_for(3 * HONEST, "/in").await?;
        let memory = host.peak_memory()?;
        assert!(memory < MEMORY_MAX, "{memory} bytes for {} connections", crowd.len());
        Ok(())
    })
}

#[test]
fn ten_thousand_that_say_nothing() -> Result<()> {
    check(IDLE, b"")
}

#[test]
fn a_thousand_that_do_not_end_their_headers() -> Result<()> {
    check(SLOW, b"POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\n")
}

/// More than are served at a time: those whose bodies are waited for make place.
#[test]
fn ten_thousand_that_send_one_byte_of_a_body() -> Result<()> {
    check(IDLE, b"POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nx")
}

#[test]
fn a_thousand_that_send_bodies_in_chunks_of_one_byte() -> Result<()> {
    check(
        SLOW,
        b"POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n1\r\ny\r\n",
    )
}
