//! `whimbrel conform`: judges an adapter against a live broker, and prints what it found.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use whimbrel_conform::{Options, Profile, Report};
use whimbrel_resources::PluginManifest;
use whimbrel_wasm::{Adapter, Engines, Loader, Plugin};

use crate::args::ConformArguments;
use crate::error::Exit;

/// Runs the kit. It succeeds if nothing failed.
pub(crate) fn answer(arguments: &ConformArguments) -> Exit {
    match judge(arguments) {
        Ok(report) => {
            print(&if arguments.json { report.json() + "\n" } else { report.summary() });
            if report.is_good() { Exit::Drained } else { Exit::Failed }
        }
        Err(error) => {
            writeln!(std::io::stderr(), "{error:#}").ok();
            Exit::Usage
        }
    }
}

fn judge(arguments: &ConformArguments) -> Result<Report> {
    crate::telemetry::start_quietly(&arguments.log_level)?;
    let (profile, adapter) = prepare(arguments)?;
    let options = options(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    Ok(runtime.block_on(whimbrel_conform::run(profile, adapter, &options, |verdict| {
        if !arguments.json {
            print(&(verdict.line() + "\n"));
        }
    })))
}

/// The file's settings are given to the adapter as they are: that it refuses bad ones is one of the checks.
fn prepare(arguments: &ConformArguments) -> Result<(Profile, Adapter)> {
    let plugin = Plugin::read(&arguments.plugin)?;
    let manifest = plugin.description.as_deref().map(|text| PluginManifest::parse(text, &plugin.path)).transpose();
    let manifest = manifest.context("reading the plugin's description")?;
    let (component, conformance, warnings) = whimbrel_resources::conformance(&arguments.config)?;
    let mut odd = warnings;
    odd.extend(manifest.iter().flat_map(|manifest| whimbrel_resources::check(&component, manifest)));
    for problem in odd {
        writeln!(std::io::stderr(), "{problem}").ok();
    }
    let engines = Engines::new().map_err(anyhow::Error::msg)?;
    let adapter = Adapter::load(&Loader::new(engines, crate::run::cache_folder()), &plugin)?;
    Ok((Profile { component, conformance, manifest }, adapter))
}

fn options(arguments: &ConformArguments) -> Result<Options> {
    let known = whimbrel_conform::ids();
    let only: Vec<String> = arguments.only.iter().map(|id| id.trim().to_ascii_uppercase()).collect();
    if let Some(unknown) = only.iter().find(|id| !known.contains(&id.as_str())) {
        bail!("--only {unknown}: no check has this id; there are {}", known.join(", "));
    }
    Ok(Options { faults: arguments.faults, only, seed: arguments.seed })
}

/// Whoever reads may have seen enough: a closed pipe is no failure.
fn print(text: &str) {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}
