//! Which files count, in which order, and what becomes of those that cannot be read.

use std::fs;
use std::path::Path;

use super::{MAX_FILE_BYTES, documents, parse};
use crate::yaml::Node;

fn shown(folder: &Path) -> (String, String) {
    let mut problems = Vec::new();
    let found = documents(folder, &mut problems);
    let found: Vec<String> = found.iter().map(|document| Node::json(&document.root)).collect();
    let prefix = folder.display().to_string();
    let problems: Vec<String> = problems.iter().map(|problem| problem.to_string().replace(&prefix, "F")).collect();
    (found.join(" "), problems.join("\n"))
}

#[test]
fn files_and_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("b.yml", "b1\n---\nb2\n");
    write("a.YAML", "\u{feff}a");
    write("c.json", "c");
    write("d.yaml.bak", "d");
    write("yaml", "e");
    write("z.yaml", "");
    fs::create_dir(folder.path().join("sub.yaml")).expect("made");
    fs::write(folder.path().join("sub.yaml/x.yaml"), "x").expect("written");
    for unseen in [".hidden", "plugin.wasm"] {
        write(unseen, "u");
    }
    let (found, problems) = shown(folder.path());
    assert_eq!(found, r#""a" "b1" "b2""#);
    let why = "not a resource by its name, ignored (resources end in .yaml or .yml)";
    let said = ["c.json", "d.yaml.bak", "yaml"].map(|file| format!("F/{file}:1: {why}"));
    assert_eq!(problems, said.join("\n"));
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_dangling_ones_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("target"), "t").expect("written");
    std::os::unix::fs::symlink("target", folder.path().join("a.yaml")).expect("linked");
    std::os::unix::fs::symlink("nobody", folder.path().join(".#a.yaml")).expect("linked");
    assert_eq!(shown(folder.path()).0, r#""t""#);
}

#[test]
fn what_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), b"\xff\xfe").expect("written");
    fs::write(folder.path().join("b.yaml"), "a: [\n---\ngood").expect("written");
    fs::write(folder.path().join("c.yaml"), "#".repeat(MAX_FILE_BYTES as usize + 1)).expect("written");
    fs::write(folder.path().join("d.yaml"), "#".repeat(MAX_FILE_BYTES as usize)).expect("written");
    let (found, problems) = shown(folder.path());
    assert_eq!(found, r#""good""#);
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(lines.len(), 3, "{problems}");
    assert_eq!(lines[0], "F/a.yaml:1: not UTF-8 text, ignored");
    assert!(lines[1].starts_with("F/b.yaml:") && lines[1].contains("not a YAML document, ignored: "), "{problems}");
    assert_eq!(lines[2], "F/c.yaml:1: the file is larger than 1048576 bytes (spread it over several files)");

    let (found, problems) = shown(&folder.path().join("gone"));
    assert_eq!(found, "");
    assert!(problems.starts_with("F:1: the folder of resources cannot be read"), "{problems}");
    assert_eq!(shown(&folder.path().join("a.yaml")).0, "");
}

#[test]
fn one_bad_document_hurts_no_other() {
    let text = "one\n---\na: b: c\n---\n{x\n---\ntwo: [\n---\nthree";
    let mut problems = Vec::new();
    let found = parse(Path::new("f"), text.as_bytes(), &mut problems);
    assert_eq!(found.iter().map(|document| Node::json(&document.root)).collect::<Vec<_>>(), [r#""one""#, r#""three""#]);
    assert_eq!(problems.len(), 3);
}
