//! Finding the plugin for a resource: `--plugins`, `WHIMBREL_PLUGINS`, `plugins/` beside the program, what is built in.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use whimbrel_resources::Component;
use whimbrel_wasm::Plugin;

/// Where plugins are looked for, in order.
#[derive(Debug)]
pub(crate) struct Search {
    folders: Vec<PathBuf>,
}

impl Search {
    /// The search order of this process.
    #[must_use]
    pub(crate) fn new(arguments: &[PathBuf]) -> Self {
        let mut folders = arguments.to_vec();
        folders.extend(env::var_os("WHIMBREL_PLUGINS").iter().flat_map(env::split_paths));
        folders.extend(env::current_exe().ok().and_then(|program| Some(program.parent()?.join("plugins"))));
        folders.retain(|folder| folder.is_dir());
        Self { folders }
    }

    /// The folders, for the log.
    #[must_use]
    pub(crate) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The plugin of a component: the file its annotation names, else the first of its type.
    ///
    /// # Errors
    /// There is none, or its file is no component.
    pub(crate) fn find(&self, component: &Component) -> Result<Plugin> {
        if let Some(file) = &component.plugin {
            return Ok(Plugin::read(file)?);
        }
        let name = format!("{}.wasm", component.kind);
        if let Some(file) = self.folders.iter().map(|folder| folder.join(&name)).find(|file| file.exists()) {
            return Ok(Plugin::read(&file)?);
        }
        if let Some(bundled) = whimbrel_artifacts::BUNDLED.iter().find(|bundled| bundled.kind == component.kind) {
            return Ok(Plugin::bundled(Path::new(bundled.kind), bundled.bytes.to_vec())?);
        }
        bail!(
            "couldn't find message bus {}/{}: no {name} in {:?}, and the built-in ones are {}",
            component.kind,
            component.version,
            self.folders,
            whimbrel_artifacts::BUNDLED.iter().map(|bundled| bundled.kind).collect::<Vec<_>>().join(", ")
        )
    }
}
