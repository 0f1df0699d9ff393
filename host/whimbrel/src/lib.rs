//! Wiring: arguments, resources, plugins, doors, signals, exit codes. No per-message code.

pub mod args;
mod brokers;
mod catalog;
mod check;
mod conform;
mod descriptors;
mod documents;
mod error;
mod handlers;
mod metrics;
mod page;
mod plugins;
mod publish;
mod reload;
mod run;
mod running;
mod stop;
mod subscribe;
mod subscriptions;
mod telemetry;
mod traces;
mod wait;

use std::ffi::OsString;
use std::io::Write as _;

use clap::Parser as _;

pub use error::Exit;
pub use whimbrel_api as api;
pub use whimbrel_pubsub as pubsub;
pub use whimbrel_resources as resources;
pub use whimbrel_wasm as wasm;

/// Runs the program with these arguments, the first its name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> Exit {
    let parsed = match args::Arguments::try_parse_from(args::double_dashes(args::as_called(arguments))) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are no errors, and go to the standard output.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage } else { Exit::Drained };
        }
    };
    let run = match parsed.command {
        args::Command::Run(run) => run,
        args::Command::Check(asked) => return check::answer(&asked),
        args::Command::Plugins(asked) => return catalog::answer(&asked),
        args::Command::Conform(asked) => return conform::answer(&asked),
        args::Command::Schema(asked) => return documents::schema(&asked),
        args::Command::Openapi => return documents::openapi(),
        args::Command::Publish(asked) => return publish::answer(&asked),
        args::Command::Subscribe(asked) => return subscribe::answer(&asked),
        args::Command::Completions(asked) => return documents::completions(&asked),
        args::Command::Man => return documents::man(),
    };
    if let Err(error) = telemetry::start(&run.log_level, run.log_as_json) {
        writeln!(std::io::stderr(), "{error:#}").ok();
        return Exit::Usage;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) if run.wait => runtime.block_on(wait::until_outbound(run.dapr_http_port)),
        Ok(runtime) => runtime.block_on(run::run(*run)),
        Err(error) => {
            tracing::error!("starting the runtime: {error}");
            Exit::Failed
        }
    }
}
