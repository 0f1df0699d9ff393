//! The repository checks itself: dependency edges, names, sizes, headers. A new edge or exception is a reviewed change
//! to the tables here.

#![allow(clippy::unwrap_used, reason = "what cannot be read cannot be checked")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a file, tests not counted.
const FILE_LINES_MAX: usize = 600;

/// Which package of ours may name which. Nothing else.
const EDGES: &[(&str, &[&str])] = &[
    (
        "whimbrel",
        &[
            "whimbrel-api",
            "whimbrel-artifacts",
            "whimbrel-conform",
            "whimbrel-pubsub",
            "whimbrel-resources",
            "whimbrel-wasm",
        ],
    ),
    // It judges adapters in the host that runs them.
    ("whimbrel-conform", &["whimbrel-pubsub", "whimbrel-resources", "whimbrel-wasm"]),
    ("whimbrel-api", &["whimbrel-pubsub", "whimbrel-resources"]),
    ("whimbrel-wasm", &["whimbrel-pubsub", "whimbrel-resources"]),
    ("whimbrel-pubsub", &["whimbrel-resources"]),
    ("whimbrel-resources", &[]),
    ("whimbrel-artifacts", &[]),
    ("whimbrel-sdk", &[]),
    ("whimbrel-in-memory", &["whimbrel-sdk"]),
    ("whimbrel-redis", &["whimbrel-sdk"]),
    ("whimbrel-jetstream", &["whimbrel-sdk"]),
    ("whimbrel-rabbitmq", &["whimbrel-sdk"]),
    ("whimbrel-kafka", &["whimbrel-sdk"]),
    ("whimbrel-rust", &["whimbrel-sdk"]),
    // They wrap an adapter of ours, so that what lies or misbehaves is a whole one.
    ("whimbrel-liar", &["whimbrel-redis", "whimbrel-sdk"]),
    ("whimbrel-misbehaving-adapter", &["whimbrel-in-memory", "whimbrel-sdk"]),
    ("whimbrel-misbehaving-handler", &["whimbrel-sdk"]),
    // The kit's proxy; the targets for fuzzers; adapters and the sdk natively: the baseline of the benchmark.
    (
        "whimbrel-tests",
        &[
            "whimbrel",
            "whimbrel-artifacts",
            "whimbrel-conform",
            "whimbrel-jetstream",
            "whimbrel-kafka",
            "whimbrel-pubsub",
            "whimbrel-rabbitmq",
            "whimbrel-redis",
            "whimbrel-resources",
            "whimbrel-sdk",
        ],
    ),
];

/// Heavy libraries, and the only package that may name each.
const OWNED: &[(&str, &[&str])] = &[
    ("wasmtime", &["whimbrel-wasm"]),
    ("wasmtime-wasi", &["whimbrel-wasm"]),
    ("axum", &["whimbrel-api", "whimbrel-tests"]),
    ("saphyr-parser", &["whimbrel-resources"]),
    ("cel", &["whimbrel-resources"]),
    ("clap", &["whimbrel"]),
    ("notify", &["whimbrel"]),
    ("opentelemetry", &["whimbrel"]),
    ("opentelemetry-otlp", &["whimbrel"]),
    ("opentelemetry_sdk", &["whimbrel"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn tracked(suffix: &str) -> Vec<PathBuf> {
    let output =
        Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let files: Vec<PathBuf> = String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect();
    assert!(files.len() > 50, "git lists only {} files", files.len());
    files.into_iter().filter(|file| file.to_string_lossy().ends_with(suffix) && root().join(file).exists()).collect()
}

/// Package name to its dependencies of any kind, from cargo's own account.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| (text(package), package["dependencies"].as_array().unwrap().iter().map(text).collect()))
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let dependencies = dependencies();
    for (package, names) in &dependencies {
        let ours: Vec<&String> = names.iter().filter(|name| dependencies.contains_key(*name)).collect();
        let (_, allowed) =
            EDGES.iter().find(|(name, _)| name == package).unwrap_or_else(|| panic!("{package} is not in the table"));
        for name in ours {
            assert!(allowed.contains(&name.as_str()), "{package} must not depend on {name}");
        }
        for name in names {
            let owners = OWNED.iter().find(|(library, _)| library == name).map(|(_, owners)| *owners);
            assert!(owners.is_none_or(|owners| owners.contains(&package.as_str())), "{package} must not name {name}");
        }
    }
}

#[test]
fn a_package_is_named_after_its_folder() {
    // What stands in for somebody else's adapter has a name of its own.
    let ours = |manifest: &PathBuf| !manifest.starts_with("examples/adapters");
    for manifest in tracked("Cargo.toml").into_iter().filter(ours) {
        let text = fs::read_to_string(root().join(&manifest)).unwrap();
        let Some(name) = text.lines().find_map(|line| line.strip_prefix("name = ")) else { continue };
        let folder = manifest.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let expected = if folder == "whimbrel" { folder.clone() } else { format!("whimbrel-{folder}") };
        assert_eq!(name.trim_matches('"'), expected, "{}", manifest.display());
    }
}

#[test]
fn files_say_what_they_are_and_stay_small() {
    let mut problems = Vec::new();
    for file in tracked(".rs") {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let is_test =
            file.starts_with("tests") || file.ends_with("tests.rs") || file.iter().any(|part| part == "tests");
        if !is_test && !text.starts_with("//!") {
            problems.push(format!("{} does not open with `//!`", file.display()));
        }
        if !is_test && text.lines().count() > FILE_LINES_MAX {
            problems.push(format!("{} has {} lines", file.display(), text.lines().count()));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn the_top_level_is_as_designed() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
        "LICENSE",
        "README.md",
        "host",
        "wit",
        "plugins",
        "examples",
        "tests",
    ];
    for file in tracked("") {
        let top = file.iter().next().unwrap().to_string_lossy().into_owned();
        assert!(top.starts_with('.') || allowed.contains(&top.as_str()), "{} is outside the layout", file.display());
        let binary = file.extension().is_some_and(|extension| extension == "wasm" || extension == "cwasm");
        assert!(!binary, "{}: components are built, never committed", file.display());
    }
}

#[test]
fn no_module_is_a_drawer() {
    let drawers = ["common", "util", "utils", "helpers", "manager", "processor", "misc"];
    for file in tracked(".rs") {
        for part in file.iter().map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned()) {
            assert!(!drawers.contains(&part.as_str()), "{}: say what is in it", file.display());
        }
    }
}

/// Leaves of the data plane never call each other (design, section 2).
#[test]
fn a_leaf_never_names_a_sibling_leaf() {
    let leaves = ["envelope", "scope", "route", "policy", "group"];
    for leaf in leaves {
        let text = fs::read_to_string(root().join(format!("host/pubsub/src/{leaf}.rs"))).unwrap();
        for other in leaves.iter().filter(|other| **other != leaf) {
            let named = text.contains(&format!("crate::{other}"));
            assert!(!named, "host/pubsub/src/{leaf}.rs names its sibling {other}");
        }
    }
}

/// Only `settle` acts on a delivery.
#[test]
fn only_settle_finishes_a_delivery() {
    for file in
        tracked(".rs").into_iter().filter(|file| file.starts_with("host/pubsub/src") && !file.ends_with("tests.rs"))
    {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let acts = text.contains("delivery.finish(") || text.contains("delivery.hold(");
        assert!(!acts || file.ends_with("settle.rs"), "{} settles a delivery", file.display());
    }
}

/// The loss run that kills the host knows every step there is.
#[test]
fn the_host_is_killed_at_every_step() {
    let run = fs::read_to_string(root().join("tests/delivery/loss/host.rs")).unwrap();
    let mut steps = 0;
    for file in tracked(".rs").into_iter().filter(|file| file.starts_with("host/pubsub/src")) {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        for call in text.split("step(\"").skip(1) {
            let (step, _) = call.split_once('"').unwrap();
            steps += 1;
            assert!(run.contains(&format!("(\"{step}\"")), "{}: no run kills the host at {step}", file.display());
        }
    }
    assert!(steps > 5, "only {steps} steps were found");
}
