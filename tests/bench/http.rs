//! Publishing over HTTP with the in-memory adapter, against the bare endpoint.

use std::time::Duration;

use crate::cpu::{self, Server};
use crate::load::{self, Seen};
use crate::redis_server::RedisServer;
use crate::table;

/// One measurement.
const RUN: Duration = Duration::from_secs(4);

/// Medians are of so many.
const ROUNDS: usize = 3;

pub const IN_MEMORY: &str = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: bus }\nspec: { type: pubsub.in-memory, version: v1, metadata: [] }\n";

/// A host that runs with some resources.
pub struct Host {
    pub server: Server,
    pub address: String,
    _folder: tempfile::TempDir,
}

/// Starts a host with one resource file and waits until it is ready.
pub fn host(resources: &str) -> Host {
    host_for(resources, &[])
}

/// The same with more flags.
pub fn host_for(resources: &str, flags: &[&str]) -> Host {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("resources")).unwrap();
    std::fs::write(folder.path().join("resources/all.yaml"), resources).unwrap();
    let log = folder.path().join("log");
    let path = folder.path().join("resources");
    let arguments =
        ["host", "--app-id", "me", "--dapr-http-port", "0", "--dapr-listen-addresses", "127.0.0.1", "--resources-path"];
    let server = cpu::start(&[&arguments[..], &[path.to_str().unwrap()], flags].concat(), &log, &[]);
    let address = cpu::announced(&log, "listening http=");
    ready(&address);
    Host { server, address, _folder: folder }
}

/// Waits for `/v1.0/healthz` to answer 204.
pub fn ready(address: &str) {
    use std::io::{Read as _, Write as _};
    for _ in 0..2000 {
        let mut answer = [0; 12];
        let asked = std::net::TcpStream::connect(address).and_then(|mut stream| {
            write!(stream, "GET /v1.0/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
            stream.read_exact(&mut answer)
        });
        if asked.is_ok() && &answer == b"HTTP/1.1 204" {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    panic!("the host at {address} did not become ready");
}

pub fn redis_resource(redis: &RedisServer) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: bus }}\nspec:\n  type: pubsub.redis\n  version: v1\n  metadata:\n    - {{ name: redisHost, value: \"127.0.0.1:{}\" }}\n    - {{ name: maxLenApprox, value: \"10000\" }}\n",
        redis.port
    )
}

/// One server under one load: the medians of CPU a request, requests a second, p50 and p99.
struct Figures {
    cpu: Duration,
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

pub fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    table::head(
        "Publish over HTTP, 1 KiB of JSON, server pinned to one core",
        &[
            "server",
            "connections",
            "CPU a request",
            "requests/s",
            "p50",
            "p99",
            "CPU, to bare axum",
            "requests/s, to bare axum",
        ],
    );
    let log = tempfile::NamedTempFile::new().unwrap().into_temp_path().to_path_buf();
    let bare = cpu::start(&["bare"], &log, &[]);
    let bare_address = cpu::announced(&log, "listening http=");
    let memory = host(IN_MEMORY);
    let redis = RedisServer::start();
    let streams = host(&redis_resource(&redis));
    for (connections, rate) in [(32, None), (1, None), (16, Some(2000.0))] {
        let name = rate.map_or_else(|| connections.to_string(), |rate: f64| format!("{connections} at {rate}/s"));
        let servers = [
            ("bare axum", &bare, &bare_address),
            ("in-memory", &memory.server, &memory.address),
            ("Redis", &streams.server, &streams.address),
        ];
        // The servers take turns within each round, so that a drift of the machine hits all alike.
        let mut rounds: [Vec<(Seen, Duration)>; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (index, (_, server, address)) in servers.iter().enumerate() {
                runtime.block_on(load::run(address, connections, RUN / 8, rate));
                let before = cpu::of(server.pid());
                let seen = runtime.block_on(load::run(address, connections, RUN, rate));
                rounds[index].push((seen, cpu::of(server.pid()) - before));
            }
        }
        let figures: Vec<Figures> = rounds.iter().map(|rounds| figures(rounds)).collect();
        for ((server, ..), seen) in servers.iter().zip(&figures) {
            table::row(&[
                (*server).to_owned(),
                name.clone(),
                table::micros(seen.cpu),
                format!("{:.0}", seen.per_second),
                table::micros(seen.p50),
                table::micros(seen.p99),
                format!("{:.2}", seen.cpu.as_secs_f64() / figures[0].cpu.as_secs_f64()),
                format!("{:.2}", seen.per_second / figures[0].per_second),
            ]);
        }
    }
}

fn figures(rounds: &[(Seen, Duration)]) -> Figures {
    let of = |value: &dyn Fn(&(Seen, Duration)) -> f64| table::median(rounds.iter().map(value).collect());
    Figures {
        cpu: Duration::from_secs_f64(of(&|(seen, cpu)| cpu.as_secs_f64() / seen.requests as f64)),
        per_second: of(&|(seen, _)| seen.per_second()),
        p50: Duration::from_secs_f64(of(&|(seen, _)| seen.percentile(0.5).as_secs_f64())),
        p99: Duration::from_secs_f64(of(&|(seen, _)| seen.percentile(0.99).as_secs_f64())),
    }
}
