//! One command that measures: `tests/bench/run [SECTION]`. Every figure stands beside its baseline of the same run; only
//! ratios within one run count. Prints Markdown tables.
//!
//! Server processes are pinned to one core, the load (and a broker) to the other. CPU is the server process's own
//! (`/proc/PID/stat`), or this process's where both sides run in it.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement stops at the first surprise, and prints"
)]

mod adapters;
mod bare;
mod bulk;
mod cpu;
mod crowds;
mod drain;
mod handler;
mod http;
mod idle;
mod load;
mod redis_server;
mod table;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        // The program itself, so that one build measures.
        Some("host") => {
            let words = ["whimbrel", "run"].iter().map(|word| (*word).to_owned());
            let exit = whimbrel::main(words.chain(arguments.into_iter().skip(2)).map(Into::into));
            std::process::exit(i32::from(exit != whimbrel::Exit::Drained));
        }
        Some("bare") => bare::serve(),
        Some("post") => drain::child(&arguments[2..]),
        Some("handle") => handler::child(&arguments[2..]),
        Some("adapter") => adapters::child(&arguments[2..]),
        section => measure(section.filter(|section| !section.starts_with('-'))),
    }
}

fn measure(section: Option<&str>) {
    let wanted = |name: &str| section.is_none_or(|section| section == name);
    if wanted("http") {
        http::measure();
    }
    for (name, ..) in adapters::KINDS {
        if wanted(name) || section == Some("adapters") {
            adapters::measure(name);
        }
    }
    if wanted("bulk") {
        bulk::measure();
    }
    if wanted("drain") {
        drain::measure();
    }
    if wanted("crowds") {
        crowds::measure();
    }
    if wanted("handler") {
        handler::measure();
    }
    if wanted("idle") {
        idle::measure();
    }
}
