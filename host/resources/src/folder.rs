//! The documents in a folder of resources, in the order in which they count: by file name, then as they stand in it.
//!
//! Called by `load`. No recursion into folders. Absent on purpose: watching for changes.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::problem::{Position, Problem, Severity};
use crate::yaml::{self, Node, Value};

/// Bytes of one file of resources.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Files in one folder that are looked at.
const MAX_FILES: usize = 20_000;

/// Files of one folder that are said to be none of resources.
const MAX_STRANGERS: usize = 100;

/// One YAML document.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) file: Arc<Path>,
    pub(crate) root: Node,
}

/// Reads a folder. What cannot be read is noted and passed over.
pub(crate) fn documents(folder: &Path, problems: &mut Vec<Problem>) -> Vec<Document> {
    let files = match files(folder) {
        Ok((files, strangers)) => {
            let what = || "not a resource by its name, ignored".to_owned();
            let strangers = strangers.iter().take(MAX_STRANGERS);
            problems.extend(
                strangers.map(|file| problem(Severity::Warning, file, 1, what(), "resources end in .yaml or .yml")),
            );
            files
        }
        Err(error) => {
            let what = format!("the folder of resources cannot be read: {error}");
            problems.push(problem(Severity::Error, folder, 1, what, "create it, or name another"));
            return Vec::new();
        }
    };
    if files.len() > MAX_FILES {
        let what = format!("more than {MAX_FILES} files in one folder");
        problems.push(problem(Severity::Error, folder, 1, what, "spread them over several folders"));
    }
    let mut documents = Vec::new();
    for file in files.into_iter().take(MAX_FILES) {
        match read(&file) {
            Ok(Some(bytes)) => documents.extend(parse(&file, &bytes, problems)),
            Ok(None) => {}
            Err((what, hint)) => problems.push(problem(Severity::Error, &file, 1, what, hint)),
        }
    }
    documents
}

/// The files of resources in a folder, sorted by name; none, if there is no such folder. Nothing is read.
#[must_use]
pub fn resource_files(folder: &Path) -> Vec<PathBuf> {
    files(folder).map(|(files, _)| files).unwrap_or_default()
}

/// The files of resources and the others, each sorted by name, as bytes. What is hidden is nobody's, and plugins may stand
/// beside the resources that name them.
fn files(folder: &Path) -> std::io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut strangers) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is = |known: &str| extension.eq_ignore_ascii_case(known);
        let is_hidden = || path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is("yaml") || is("yml") {
            files.push(path);
        } else if !is("wasm") && !is_hidden() && path.is_file() {
            strangers.push(path);
        }
    }
    files.sort_unstable();
    strangers.sort_unstable();
    Ok((files, strangers))
}

/// The bytes of a regular file that must be there.
///
/// # Errors
/// Why they cannot be had.
pub(crate) fn regular(path: &Path) -> Result<Vec<u8>, String> {
    read(path).map_err(|(what, _)| what)?.ok_or_else(|| format!("{} is no file", path.display()))
}

/// The bytes of a regular file. `None` for anything else, and for a link that leads nowhere, which editors use as locks.
fn read(path: &Path) -> Result<Option<Vec<u8>>, (String, &'static str)> {
    let unreadable = |error: std::io::Error| (format!("cannot be read: {error}"), "");
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err((format!("the file is larger than {MAX_FILE_BYTES} bytes"), "spread it over several files"));
    }
    Ok(Some(bytes))
}

/// The documents of one file. One that is no YAML is noted and passed over, as in Dapr; an empty one is no document.
pub(crate) fn parse(file: &Path, bytes: &[u8], problems: &mut Vec<Problem>) -> Vec<Document> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        problems.push(problem(Severity::Warning, file, 1, "not UTF-8 text, ignored".to_owned(), ""));
        return Vec::new();
    };
    let shared: Arc<Path> = Arc::from(file);
    let mut documents = Vec::new();
    for (line, part) in yaml::documents(text.trim_start_matches('\u{feff}')) {
        match yaml::parse(part, line) {
            Ok(roots) => {
                let roots = roots.into_iter().filter(|root| root.value != Value::Null);
                documents.extend(roots.map(|root| Document { file: Arc::clone(&shared), root }));
            }
            Err(malformed) => {
                let what = format!("not a YAML document, ignored: {}", malformed.what);
                problems.push(problem(Severity::Warning, file, malformed.line, what, ""));
            }
        }
    }
    documents
}

fn problem(severity: Severity, file: &Path, line: usize, what: String, hint: &str) -> Problem {
    let at = Position { file: file.to_path_buf(), line };
    Problem { severity, at, key: String::new(), what, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests;
