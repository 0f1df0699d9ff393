//! A closed loop of HTTP requests on a few connections, each answer awaited.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a run of load saw.
pub struct Seen {
    pub requests: u64,
    pub wall: Duration,
    pub latencies: Vec<Duration>,
}

impl Seen {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    pub fn percentile(&self, fraction: f64) -> Duration {
        percentile(&self.latencies, fraction)
    }
}

/// Of sorted latencies.
pub fn percentile(sorted: &[Duration], fraction: f64) -> Duration {
    let index = (sorted.len() as f64 * fraction) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// A request for 1 KiB of JSON.
pub fn request(address: &str) -> Vec<u8> {
    let body = format!("{{\"id\":\"order-1\",\"text\":\"{}\"}}", "x".repeat(1024 - 28));
    let head = format!(
        "POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// A bulk publish of so many events, 1 KiB of JSON each, to a topic.
pub fn bulk_request(address: &str, topic: &str, events: usize) -> Vec<u8> {
    let text = "x".repeat(1024 - 28);
    let entry = |n| {
        format!(r#"{{"entryId":"{n}","contentType":"application/json","event":{{"id":"order-1","text":"{text}"}}}}"#)
    };
    let body = format!("[{}]", (0..events).map(entry).collect::<Vec<_>>().join(","));
    let head = format!(
        "POST /v1.0/publish/bulk/bus/{topic} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Publishes on so many connections for a while. `rate`: requests a second in all; none: as fast as answers come.
pub async fn run(address: &str, connections: usize, duration: Duration, rate: Option<f64>) -> Seen {
    run_with(request(address), address, connections, duration, rate).await
}

/// The same with any request that is answered with 204.
pub async fn run_with(
    request: Vec<u8>,
    address: &str,
    connections: usize,
    duration: Duration,
    rate: Option<f64>,
) -> Seen {
    let started = Instant::now();
    let loops: Vec<_> = (0..connections)
        .map(|connection| {
            let (address, request) = (address.to_owned(), request.clone());
            let pace = rate.map(|rate| Duration::from_secs_f64(connections as f64 / rate));
            tokio::spawn(async move { one(&address, &request, started, duration, pace, connection).await })
        })
        .collect();
    let mut latencies = Vec::new();
    for connection in loops {
        latencies.extend(connection.await.unwrap());
    }
    let wall = started.elapsed();
    latencies.sort_unstable();
    Seen { requests: latencies.len() as u64, wall, latencies }
}

/// Sends a request so many times, one after the other.
pub async fn send(request: &[u8], address: &str, count: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..count {
        exchange(&mut stream, request).await;
    }
}

/// One request, and its answer of 204.
async fn exchange(stream: &mut TcpStream, request: &[u8]) {
    let mut buffer = [0; 4096];
    stream.write_all(request).await.unwrap();
    let mut filled = 0;
    while !buffer[..filled].ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(count > 0, "closed: {}", String::from_utf8_lossy(&buffer[..filled]));
        filled += count;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&buffer[..filled]));
}

async fn one(
    address: &str,
    request: &[u8],
    started: Instant,
    duration: Duration,
    pace: Option<Duration>,
    connection: usize,
) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut latencies = Vec::new();
    let mut next = started + pace.unwrap_or_default().mul_f64(connection as f64 / 64.0);
    while started.elapsed() < duration {
        if let Some(pace) = pace {
            tokio::time::sleep_until(next.into()).await;
            next += pace;
        }
        let sent = Instant::now();
        exchange(&mut stream, request).await;
        latencies.push(sent.elapsed());
    }
    latencies
}
