//! Builds one crate outside this workspace into a component, with the toolchain that this machine has:
//! `cargo run -p whimbrel-artifacts --example build-component -- FOLDER OUT.wasm`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use whimbrel_artifacts::component;
use whimbrel_artifacts::toolchain::{TARGET, Toolchain};

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, out] = arguments.as_slice() else {
        bail!("usage: build-component FOLDER OUT.wasm");
    };
    let toolchain = Toolchain::detect(Path::new("cargo"), Path::new("rustc"))?;
    let target = folder.canonicalize().with_context(|| folder.display().to_string())?.join("target");
    let status = toolchain.command(folder, &[], "release", &target).status().context("starting cargo")?;
    if !status.success() {
        bail!("cargo failed");
    }
    let module = only_module(&target.join(TARGET).join("release"))?;
    let description = std::fs::read_to_string(folder.join("plugin.yaml")).ok();
    let module = std::fs::read(&module).with_context(|| module.display().to_string())?;
    std::fs::write(out, component::encode(&module, description.as_deref())?).with_context(|| out.display().to_string())
}

/// The one module that a crate's release folder holds.
fn only_module(folder: &Path) -> Result<PathBuf> {
    let files = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut modules = files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "wasm"));
    match (modules.next(), modules.next()) {
        (Some(module), None) => Ok(module),
        (None, _) => bail!("{} holds no .wasm: is the crate a cdylib?", folder.display()),
        (Some(_), Some(_)) => bail!("{} holds several .wasm files: remove it and build again", folder.display()),
    }
}
