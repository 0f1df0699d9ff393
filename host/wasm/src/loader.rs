//! From a file to a plugin that can be instantiated. Compiled code is kept on disk, so that the second start compiles
//! nothing; the only `unsafe` of the host is here, to load it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wasmparser::{Encoding, Parser, Payload};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::engine::Engines;
use crate::error::LoadError;

/// The custom section that holds a plugin's `plugin.yaml`.
const DESCRIPTION_SECTION: &str = "whimbrel:plugin";

/// A component's bytes, and where they came from.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The file, or the plugin's type where it is part of the program. For messages.
    pub path: PathBuf,
    /// The component.
    pub bytes: Vec<u8>,
    /// The text of its `plugin.yaml`: inside the file, else the file of the same name ending in `.yaml` beside it.
    pub description: Option<String>,
}

impl Plugin {
    /// Tells plugins apart by their content, the description included.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(&self.bytes);
        digest.update(self.description.as_deref().unwrap_or_default());
        digest.finalize().into()
    }

    /// Reads a plugin's file.
    ///
    /// # Errors
    /// It cannot be read, or is not a component.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let bytes = fs::read(path).map_err(|error| LoadError::Read { path: path.to_owned(), error })?;
        let mut plugin = Self::bundled(path, bytes)?;
        if plugin.description.is_none() {
            plugin.description = fs::read_to_string(path.with_extension("yaml")).ok();
        }
        Ok(plugin)
    }

    /// Takes a plugin that is part of the program.
    ///
    /// # Errors
    /// It is not a component.
    pub fn bundled(path: &Path, bytes: Vec<u8>) -> Result<Self, LoadError> {
        let description = description(path, &bytes)?;
        Ok(Self { path: path.to_owned(), bytes, description })
    }
}

/// What a component asks of its host, and what it offers: the names of interfaces and functions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// What it could reach, if the host gave it.
    pub imports: Vec<String>,
    /// What it is: `whimbrel:pubsub/broker` makes an adapter, `whimbrel:pubsub/handler` a handler.
    pub exports: Vec<String>,
}

impl Plugin {
    /// Looks at the component without compiling it.
    ///
    /// # Errors
    /// It is broken.
    pub fn interfaces(&self) -> Result<Interfaces, LoadError> {
        let mut interfaces = Interfaces::default();
        walk(&self.path, &self.bytes, |payload| {
            match payload {
                Payload::ComponentImportSection(section) => {
                    for import in section.clone() {
                        interfaces.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section.clone() {
                        interfaces.exports.push(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(interfaces)
    }
}

/// The description inside a component; and the check that it is one, from its first bytes.
fn description(path: &Path, bytes: &[u8]) -> Result<Option<String>, LoadError> {
    let mut found = None;
    walk(path, bytes, |payload| {
        if let Payload::CustomSection(section) = payload
            && section.name() == DESCRIPTION_SECTION
        {
            found = String::from_utf8(section.data().to_vec()).ok();
        }
        Ok(())
    })?;
    Ok(found)
}

/// Looks at the sections of a component, not at what is inside of those that hold modules or other components.
fn walk(
    path: &Path,
    bytes: &[u8],
    mut look: impl FnMut(&Payload<'_>) -> Result<(), wasmparser::BinaryReaderError>,
) -> Result<(), LoadError> {
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    let invalid = |reason: String| LoadError::Invalid { path: path.to_owned(), reason };
    while !rest.is_empty() {
        let chunk = parser.parse(rest, true).map_err(|error| invalid(error.to_string()))?;
        let wasmparser::Chunk::Parsed { consumed, payload } = chunk else {
            return Err(invalid("it ends in the middle".to_owned()));
        };
        rest = &rest[consumed.min(rest.len())..];
        look(&payload).map_err(|error| invalid(error.to_string()))?;
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => {
                return Err(LoadError::CoreModule { path: path.to_owned() });
            }
            // What is inside is the compiler's to look at.
            Payload::ModuleSection { unchecked_range, .. } | Payload::ComponentSection { unchecked_range, .. } => {
                let length = unchecked_range.end - unchecked_range.start;
                if length > rest.len() {
                    return Err(invalid("it ends in the middle".to_owned()));
                }
                rest = &rest[length..];
            }
            Payload::End(_) => break,
            _ => {}
        }
    }
    Ok(())
}

/// Compiles components, or takes them from the cache.
#[derive(Debug, Clone)]
pub struct Loader {
    engines: Engines,
    cache: Option<PathBuf>,
}

impl Loader {
    /// A loader that keeps compiled code in a folder; `None`: nowhere. A folder that others may write to is not used,
    /// for whoever writes there could run code in this process.
    #[must_use]
    pub fn new(engines: Engines, cache: Option<PathBuf>) -> Self {
        let cache = cache.filter(|folder| match private(folder) {
            Ok(()) => true,
            Err(reason) => {
                tracing::warn!(folder = %folder.display(), "compiled code is not cached: {reason}");
                false
            }
        });
        Self { engines, cache }
    }

    /// The engines it compiles for.
    #[must_use]
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    pub(crate) fn adapter(&self, plugin: &Plugin) -> Result<Component, LoadError> {
        self.component(&self.engines.adapters, plugin)
    }

    pub(crate) fn handler(&self, plugin: &Plugin) -> Result<Component, LoadError> {
        self.component(&self.engines.handlers, plugin)
    }

    fn component(&self, engine: &Engine, plugin: &Plugin) -> Result<Component, LoadError> {
        let invalid =
            |error: wasmtime::Error| LoadError::Invalid { path: plugin.path.clone(), reason: format!("{error:#}") };
        let Some(cache) = &self.cache else {
            return Component::new(engine, &plugin.bytes).map_err(invalid);
        };
        let file = cache.join(key(engine, &plugin.bytes));
        if let Some(component) = cached(engine, &file) {
            tracing::debug!(plugin = %plugin.path.display(), "compiled code taken from the cache");
            return Ok(component);
        }
        let started = std::time::Instant::now();
        let code = engine.precompile_component(&plugin.bytes).map_err(invalid)?;
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(plugin = %plugin.path.display(), millis, "compiled");
        if let Err(error) = store(&file, &code) {
            tracing::warn!(file = %file.display(), "compiled code is not cached: {error}");
            return Component::new(engine, &plugin.bytes).map_err(invalid);
        }
        cached(engine, &file).map_or_else(|| Component::new(engine, &plugin.bytes).map_err(invalid), Ok)
    }
}

/// Names compiled code by the engine that can run it, and by what it was made of.
fn key(engine: &Engine, bytes: &[u8]) -> String {
    let mut engine_hash = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut engine_hash);
    format!("{:016x}-{}.cwasm", engine_hash.finish(), hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Loads compiled code, if it is there and whole.
fn cached(engine: &Engine, file: &Path) -> Option<Component> {
    let code = fs::read(file).ok()?;
    let digest = fs::read_to_string(file.with_extension("sha256")).ok()?;
    if digest != hex(&Sha256::digest(&code)) {
        tracing::warn!(file = %file.display(), "compiled code is broken, and is made anew");
        return None;
    }
    drop(code);
    #[expect(unsafe_code, reason = "compiled code can only be loaded this way (decision 0004)")]
    // SAFETY: the file was written by `store` below, in a folder that `private` has found to be this user's alone, it
    // is named after the engine's compatibility hash and the component's content, and its digest has just been checked
    // against the one written beside it. Whoever can forge all that can already run code as this user.
    let component = unsafe { Component::deserialize_file(engine, file) };
    component.inspect_err(|error| tracing::warn!(file = %file.display(), "compiled code is not usable: {error:#}")).ok()
}

/// Writes compiled code so that a reader finds it whole or not at all.
fn store(file: &Path, code: &[u8]) -> std::io::Result<()> {
    let temporary = file.with_extension(format!("{}-{:x}", std::process::id(), fastrand::u64(..)));
    let write = |path: &Path, bytes: &[u8]| {
        let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        out.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    let digest = hex(&Sha256::digest(code));
    let written = write(file, code).and_then(|()| write(&file.with_extension("sha256"), digest.as_bytes()));
    if written.is_err() {
        // What could not be put in place must not pile up.
        fs::remove_file(&temporary).ok();
    }
    written
}

/// Makes the folder, and checks that nobody else may write to it.
fn private(folder: &Path) -> Result<(), String> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| error.to_string())?;
    let metadata = fs::metadata(folder).map_err(|error| error.to_string())?;
    if metadata.mode() & 0o022 != 0 {
        return Err("others may write to the folder; run chmod go-w on it".to_owned());
    }
    // This process's own files carry its user.
    let own = fs::metadata("/proc/self").map_err(|error| error.to_string())?.uid();
    if metadata.uid() != own {
        return Err("the folder belongs to another user; name one of your own with WHIMBREL_CACHE".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
