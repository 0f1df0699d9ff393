//! Finding the plugin for a resource: `--plugins`, `WHIMBREL_PLUGINS`, `plugins/` beside the program, what is built in.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use whimbrel_artifacts::{BUNDLED, Bundled};
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

    /// Every adapter there is, in the order of the search: of one type the first counts. Files are not read.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Found> {
        let mut all = Vec::new();
        for folder in &self.folders {
            let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
            let mut files: Vec<PathBuf> = entries.collect();
            files.sort();
            let wasm = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "wasm");
            all.extend(files.into_iter().filter(wasm).filter_map(|file| {
                let kind = file.file_stem()?.to_str()?.to_owned();
                Some(Found { kind, source: Source::File(file) })
            }));
        }
        all.extend(
            BUNDLED.iter().map(|bundled| Found { kind: bundled.kind.to_owned(), source: Source::Bundled(bundled) }),
        );
        all
    }

    /// The plugin of a component: the file its annotation names, else the first of its type.
    ///
    /// # Errors
    /// There is none, or its file is no component.
    pub(crate) fn find(&self, component: &Component) -> Result<Plugin> {
        if let Some(file) = &component.plugin {
            return Ok(Plugin::read(file)?);
        }
        self.of_type(&component.kind)
            .with_context(|| format!("couldn't find message bus {}/{}", component.kind, component.version))
    }

    /// Where the plugin of a component is to be had now. Nothing is read; a file that the resource names need not exist.
    #[must_use]
    pub(crate) fn source(&self, component: &Component) -> Option<Source> {
        match &component.plugin {
            Some(file) => Some(Source::File(file.clone())),
            None => self.first(&component.kind),
        }
    }

    /// The first plugin of a type. Only its own name is looked for, whatever else lies in the folders.
    fn first(&self, kind: &str) -> Option<Source> {
        let name = format!("{kind}.wasm");
        // A type is a name, never a path.
        let is_name = Path::new(&name).file_name().is_some_and(|file| file == name.as_str());
        let mut files = self.folders.iter().filter(|_| is_name).map(|folder| folder.join(&name));
        let file = files.find(|file| file.is_file()).map(Source::File);
        file.or_else(|| BUNDLED.iter().find(|bundled| bundled.kind == kind).map(Source::Bundled))
    }

    /// The first plugin of a type.
    ///
    /// # Errors
    /// There is none, or its file is no component.
    pub(crate) fn of_type(&self, kind: &str) -> Result<Plugin> {
        match self.first(kind) {
            Some(source) => source.read(),
            None => bail!(
                "no {kind}.wasm in {:?}, and the built-in ones are {}",
                self.folders,
                BUNDLED.iter().map(|bundled| bundled.kind).collect::<Vec<_>>().join(", ")
            ),
        }
    }
}

/// Where a plugin is to be had.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// It is part of the program.
    Bundled(&'static Bundled),
}

impl Source {
    /// Reads it.
    ///
    /// # Errors
    /// The file is no component.
    pub(crate) fn read(&self) -> Result<Plugin> {
        match self {
            Self::File(file) => Ok(Plugin::read(file)?),
            Self::Bundled(bundled) => Ok(Plugin::bundled(Path::new(bundled.kind), bundled.bytes.to_vec())?),
        }
    }
}

/// An adapter that a resource can name.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its type: the file's name without `.wasm`.
    pub(crate) kind: String,
    /// Where it is.
    pub(crate) source: Source,
}
