//! Builds every component of the workspace with an inner cargo, and writes `artifacts.rs`, which names them.

#[path = "src/component.rs"]
#[expect(unreachable_pub, reason = "public in the library, which is made of the same files")]
mod component;
#[path = "src/toolchain.rs"]
#[expect(unreachable_pub, reason = "public in the library, which is made of the same files")]
mod toolchain;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use toolchain::Toolchain;

/// A component crate of the workspace.
struct Guest {
    package: String,
    folder: PathBuf,
    /// The text of `plugin.yaml`, for adapters.
    description: Option<String>,
    /// Part of the program: what we ship, and not examples or test guests.
    shipped: bool,
}

fn main() -> Result<()> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let target = guest_target_dir(&out)?;
    let guests = find(&root)?;
    let mut code = Vec::new();
    // A test guest may build on an adapter without its exports. One run of cargo would give both the same features, and
    // the second may leave a module of the first's name: so each is encoded before the next begins.
    for shipped in [true, false] {
        let some: Vec<&Guest> = guests.iter().filter(|guest| guest.shipped == shipped).collect();
        build(&root, &some, &target)?;
        for guest in some {
            code.push((guest, encode(guest, &target)?));
        }
    }
    fs::write(out.join("artifacts.rs"), generate(&code)?)?;
    rerun(&root, &guests, &target);
    Ok(())
}

/// The inner cargo has a target folder of its own: the outer one holds the lock on its own.
fn guest_target_dir(out: &Path) -> Result<PathBuf> {
    // OUT_DIR is <target>/<profile>/build/<package>/out.
    Ok(out.ancestors().nth(4).context("OUT_DIR has no target folder")?.join("guests"))
}

/// No hand-kept list: a folder with a manifest is a component.
fn find(root: &Path) -> Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for (folder, shipped) in [("plugins", true), ("examples/handlers", false), ("tests/guests", false)] {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(root.join(folder))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        entries.sort();
        for folder in entries {
            let manifest = folder.join("Cargo.toml");
            if !manifest.exists() || folder.ends_with("plugins/sdk") {
                continue;
            }
            let text = fs::read_to_string(&manifest)?;
            let name = text.lines().find_map(|line| line.strip_prefix("name = "));
            let package =
                name.with_context(|| format!("{} has no name", manifest.display()))?.trim_matches('"').to_owned();
            let description = fs::read_to_string(folder.join("plugin.yaml")).ok();
            guests.push(Guest { package, folder, description, shipped });
        }
    }
    Ok(guests)
}

fn build(root: &Path, guests: &[&Guest], target: &Path) -> Result<()> {
    let cargo = PathBuf::from(std::env::var("CARGO")?);
    let rustc = PathBuf::from(std::env::var("RUSTC")?);
    let toolchain = Toolchain::detect(&cargo, &rustc)?;
    let packages: Vec<String> = guests.iter().map(|guest| guest.package.clone()).collect();
    let output =
        toolchain.command(root, &packages, toolchain::PROFILE, target).output().context("starting the inner cargo")?;
    if !output.status.success() {
        bail!("building the components with {toolchain:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The component's file, written only when it changed so that nothing downstream is rebuilt for nothing.
fn encode(guest: &Guest, target: &Path) -> Result<PathBuf> {
    let built = target.join(toolchain::TARGET).join(toolchain::PROFILE);
    let module = built.join(format!("{}.wasm", guest.package.replace('-', "_")));
    let module = fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
    let component = component::encode(&module, guest.description.as_deref()).with_context(|| guest.package.clone())?;
    let folder = target.join("components");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}.wasm", name(guest)));
    if fs::read(&path).ok().as_ref() != Some(&component) {
        fs::write(&path, component)?;
    }
    Ok(path)
}

/// A broker's type, else the package's own part of its name.
fn name(guest: &Guest) -> String {
    let kind = guest.description.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("type: "));
    kind.map_or_else(|| guest.package.trim_start_matches("whimbrel-").to_owned(), |kind| kind.trim().to_owned())
}

fn generate(guests: &[(&Guest, PathBuf)]) -> Result<String> {
    let mut code = String::new();
    for (guest, path) in guests {
        let name = name(guest);
        let constant = guest.package.trim_start_matches("whimbrel-").replace('-', "_").to_uppercase();
        writeln!(
            code,
            "/// `{name}`.\npub const {constant}: Artifact = Artifact {{ name: {name:?}, path: {path:?} }};"
        )?;
    }
    writeln!(code, "/// Every adapter that comes with the host.\npub const BUNDLED: &[Bundled] = &[")?;
    for (guest, path) in guests.iter().filter(|(guest, _)| guest.shipped) {
        writeln!(code, "    Bundled {{ kind: {:?}, bytes: include_bytes!({path:?}) }},", name(guest))?;
    }
    writeln!(code, "];")?;
    writeln!(code, "/// Calls a macro with the module name of every adapter that comes with the host.")?;
    writeln!(code, "#[macro_export]\nmacro_rules! foreach_broker {{ ($each:ident) => {{")?;
    for (guest, _) in guests.iter().filter(|(guest, _)| guest.shipped) {
        writeln!(code, "    $each!({});", guest.package.trim_start_matches("whimbrel-").replace('-', "_"))?;
    }
    writeln!(code, "}} }}")?;
    Ok(code)
}

/// Whatever went into a component, by cargo's own account, plus what it does not know of.
fn rerun(root: &Path, guests: &[Guest], target: &Path) {
    let mut files = BTreeSet::from([root.join("Cargo.toml"), root.join("Cargo.lock"), root.join("wit")]);
    for folder in ["plugins", "examples/handlers", "tests/guests"] {
        files.insert(root.join(folder));
    }
    for guest in guests {
        files.insert(guest.folder.join("Cargo.toml"));
        files.insert(guest.folder.join("plugin.yaml"));
        let built = target.join(toolchain::TARGET).join(toolchain::PROFILE);
        let sources = fs::read_to_string(built.join(format!("{}.d", guest.package.replace('-', "_"))));
        for line in sources.unwrap_or_default().lines() {
            let (_, paths) = line.split_once(": ").unwrap_or_default();
            files.extend(paths.split(' ').filter(|path| !path.is_empty()).map(PathBuf::from));
        }
    }
    for file in ["build.rs", "src/component.rs", "src/toolchain.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for file in files.iter().filter(|file| file.exists()) {
        println!("cargo::rerun-if-changed={}", file.display());
    }
}
