//! CPU time, memory and pinning of processes, from `/proc`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Clock ticks a second in `/proc/PID/stat` (fixed by the kernel's ABI).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time that a process has used, user and system.
pub fn of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name stands in brackets and may hold anything; the fields after it are numbers.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}

/// CPU time of this process, to the nanosecond.
pub fn own() -> Duration {
    cpu_time::ProcessTime::now().as_duration()
}

/// Proportional set size, bytes.
pub fn memory(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A child that is killed at the end, whatever happens.
pub struct Server(pub Child);

impl Server {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts this program again with other arguments, pinned to the first core.
pub fn start(arguments: &[&str], log: &PathBuf, environment: &[(&str, &str)]) -> Server {
    let program = std::env::current_exe().unwrap();
    let log = std::fs::File::create(log).unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program).args(arguments).envs(environment.iter().copied());
    Server(command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null()).spawn().unwrap())
}

/// Waits for a line in a server's log and gives what follows a marker in it.
pub fn announced(log: &PathBuf, marker: &str) -> String {
    for _ in 0..2000 {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if let Some((_, rest)) = text.split_once(marker)
            && let Some(end) = rest.find(char::is_whitespace)
        {
            return rest[..end].to_owned();
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("{} never said {marker}: {}", log.display(), std::fs::read_to_string(log).unwrap_or_default());
}
