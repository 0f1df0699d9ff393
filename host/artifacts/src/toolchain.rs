//! How guests are built: the one place that knows the choice (decision 0003). Also part of `build.rs`.
//!
//! Where the toolchain in use has `wasm32-wasip2`, it builds them. Where rustup may not add it, Debian's compiler does,
//! with the standard library from source. Both link a plain core module; `component` turns it into a component, so that
//! one encoder version serves both ways.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The target of every guest.
pub const TARGET: &str = "wasm32-wasip2";

/// The profile of every guest, in the workspace's manifest.
pub const PROFILE: &str = "guest";

/// What to run where no way is open.
const REMEDY: &str = "no toolchain for WebAssembly components was found. Run one of\n  \
    rustup target add wasm32-wasip2\n  \
    apt-get install -y rustc-web cargo-web rust-web-src lld-22 wasi-libc";

/// A way to build guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// The toolchain in use has the target.
    Installed {
        /// Its cargo.
        cargo: PathBuf,
    },
    /// Debian's packages, the standard library from source.
    FromSource {
        /// Where the compiler, cargo and the linker are.
        bin: PathBuf,
        /// The linker's name there.
        linker: OsString,
        /// The C library's objects.
        libc: PathBuf,
    },
}

impl Toolchain {
    /// Looks for a way on this machine.
    ///
    /// # Errors
    /// None is open; the text says what to run.
    pub fn detect(cargo: &Path, rustc: &Path) -> Result<Self> {
        if has_target(rustc) {
            return Ok(Self::Installed { cargo: cargo.to_owned() });
        }
        Self::debian(Path::new("/usr")).context(REMEDY)
    }

    /// Debian's packages below a prefix.
    fn debian(prefix: &Path) -> Result<Self> {
        let bin = prefix.join("bin");
        let libc = prefix.join("lib/wasm32-wasi");
        for (file, package) in
            [(bin.join("rustc"), "rustc-web"), (bin.join("cargo"), "cargo-web"), (libc.join("libc.a"), "wasi-libc")]
        {
            if !file.exists() {
                bail!("{} is missing (package {package})", file.display());
            }
        }
        let sysroot =
            Command::new(bin.join("rustc")).args(["--print", "sysroot"]).output().context("asking for the sysroot")?;
        let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim().to_owned());
        if !sysroot.join("lib/rustlib/src/rust/library/std").exists() {
            bail!("the standard library's source is missing (package rust-web-src)");
        }
        let linker = wasm_linker(&bin).context("no wasm-ld is there (package lld-22)")?;
        Ok(Self::FromSource { bin, linker, libc })
    }

    /// The inner cargo for some packages of a workspace or crate.
    #[must_use]
    pub fn command(&self, folder: &Path, packages: &[String], profile: &str, target_dir: &Path) -> Command {
        let mut command = match self {
            Self::Installed { cargo } => {
                let mut command = Command::new(cargo);
                scrub(&mut command);
                // The toolchain's own linker for components may be older than what our bindings need.
                command.env("RUSTFLAGS", "-Clinker=rust-lld -Clinker-flavor=wasm-ld");
                command.arg("build");
                command
            }
            Self::FromSource { bin, linker, libc } => {
                let mut command = Command::new(bin.join("cargo"));
                scrub(&mut command);
                let linker = bin.join(linker);
                command.env("RUSTC", bin.join("rustc")).env("RUSTC_BOOTSTRAP", "1").env(
                    "RUSTFLAGS",
                    format!("-L{} -Clinker={} -Clinker-flavor=wasm-ld", libc.display(), linker.display()),
                );
                command.args(["build", "-Zbuild-std=std,panic_abort"]);
                command
            }
        };
        command
            .args(["--target", TARGET, "--profile", profile])
            .arg("--target-dir")
            .arg(target_dir)
            .current_dir(folder);
        for package in packages {
            command.args(["-p", package]);
        }
        command
    }
}

/// Whether a compiler has the guests' standard library.
fn has_target(rustc: &Path) -> bool {
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    output.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    })
}

/// The newest `wasm-ld` in a folder: Debian adds the version to its name.
fn wasm_linker(bin: &Path) -> Option<OsString> {
    let names = std::fs::read_dir(bin).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let versions = names.filter_map(|name| {
        let version: u32 = name.to_str()?.strip_prefix("wasm-ld-")?.parse().ok()?;
        Some((version, name))
    });
    versions.max().map(|(_, name)| name)
}

/// What the outer cargo says to its children is not for the inner one: its flags, its wrappers (clippy is one), its
/// target folder.
fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let inherited = text.starts_with("CARGO") && text != "CARGO_HOME";
        if inherited || text.starts_with("RUSTC") || text.ends_with("RUSTFLAGS") || text == "RUSTDOCFLAGS" {
            command.env_remove(&name);
        }
    }
}

// The path is spelled out because build.rs includes this file from elsewhere.
#[cfg(test)]
#[path = "toolchain/tests.rs"]
mod tests;
