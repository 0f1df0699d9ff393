//! A real Redis on a free port, in a folder of its own.

use std::process::{Child, Command, Stdio};

pub struct RedisServer {
    pub port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl RedisServer {
    /// Starts one, pinned to the load's core. Everything that is compared uses this one server and its durability: the
    /// append-only file, synced every second.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("taskset")
            .args(["-c", "1", "redis-server", "--bind", "127.0.0.1", "--appendonly", "yes", "--save", "", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        Self { port, child, _folder: folder }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
