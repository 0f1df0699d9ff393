//! What the program answers in a terminal.

mod check;
mod documents;
mod terminal;

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result};

use crate::harness::{plugin, run, whimbrel};

fn ask(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(whimbrel()?);
    command.args(arguments).env_remove("WHIMBREL_PLUGINS");
    command.output().context("starting whimbrel")
}

/// What it prints, with success; or, with a failure, what it complains.
fn check(arguments: &[&str], succeeds: bool, texts: &[&str]) -> Result<String> {
    let output = ask(arguments)?;
    let printed = String::from_utf8(if succeeds { output.stdout } else { output.stderr })?;
    assert_eq!(output.status.code(), Some(i32::from(!succeeds)), "{arguments:?}: {printed}");
    for text in texts {
        assert!(printed.contains(text), "{arguments:?}: {text:?} is not in\n{printed}");
    }
    Ok(printed)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

#[test]
fn plugins_are_listed_as_they_are_found() -> Result<()> {
    run(async |test| {
        let folder = test.folder("plugins")?;
        std::fs::copy(plugin::misbehaving_adapter(), folder.join("pubsub.redis.wasm"))?;
        std::fs::write(folder.join("pubsub.odd.wasm"), "no component")?;
        std::fs::write(folder.join("notes.txt"), "no plugin")?;
        let printed = check(&["plugins", "list", "--plugins", text(&folder)?], true, &[])?;
        let of = |kind: &str| printed.lines().filter(|line| line.starts_with(kind)).collect::<Vec<_>>();
        assert!(matches!(of("pubsub.odd")[..], [line] if line.contains("BROKEN")), "{printed}");
        let [first, second] = of("pubsub.redis")[..] else { panic!("{printed}") };
        assert!(first.contains("pubsub.redis.wasm") && !first.contains("hidden"), "{printed}");
        assert!(second.contains("built in (hidden by the one above)"), "{printed}");
        assert_eq!(of("pubsub.in-memory").len(), 1, "{printed}");
        assert!(!printed.contains("notes"), "{printed}");
        Ok(())
    })
}

#[test]
fn an_adapter_tells_what_it_takes_and_could_reach() -> Result<()> {
    let texts = [
        "whimbrel:pubsub/broker@",
        "(an adapter)",
        "the network: the addresses that its settings name",
        "pubsub.redis/v1: Redis Streams",
        "durable, groups",
        "redisHost (string, required, names what it may connect to)",
        "redisPassword (string, secret)",
    ];
    check(&["plugins", "inspect", "pubsub.redis"], true, &texts)?;
    // This one needs no network, and so could not reach it.
    let printed = check(&["plugins", "inspect", "pubsub.in-memory"], true, &["(an adapter)"])?;
    assert!(!printed.contains("the network"), "{printed}");
    Ok(())
}

#[test]
fn a_handler_tells_what_it_could_reach() -> Result<()> {
    let texts = ["(a handler)", "publishing: as its own app, within its scopes", "there is no plugin.yaml"];
    check(&["plugins", "inspect", text(plugin::misbehaving_handler())?], true, &texts)?;
    Ok(())
}

#[test]
fn what_is_no_plugin_is_named() -> Result<()> {
    run(async |test| {
        let file = test.folder("plugins")?.join("odd.wasm");
        std::fs::write(&file, "no component")?;
        check(&["plugins", "inspect", text(&file)?], false, &["odd.wasm", "not a valid WebAssembly component"])?;
        check(&["plugins", "inspect", "nowhere.wasm"], false, &["nowhere.wasm"])?;
        check(&["plugins", "inspect", "pubsub.nothing"], false, &["pubsub.nothing.wasm", "pubsub.redis"])?;
        Ok(())
    })
}

/// Every folder of `plugins` with a description has its reference page, and it is what the tool prints.
#[test]
fn the_reference_pages_are_what_the_tool_prints() -> Result<()> {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let mut pages = 0;
    for entry in std::fs::read_dir(&plugins)? {
        let folder = entry?.path();
        let description = folder.join("plugin.yaml");
        if !description.exists() {
            continue;
        }
        let printed = check(&["plugins", "page", text(&description)?], true, &[])?;
        let committed = std::fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        let (name, at) = (folder.display(), folder.join("README.md").display().to_string());
        assert!(
            printed == committed,
            "{at} is not what plugin.yaml says; run\n\n    cd {name} && whimbrel plugins page plugin.yaml > README.md\n"
        );
        for heading in ["## What it guarantees", "## Limits", "## Features", "## Settings", "## What it may reach"] {
            assert!(
                printed.contains(heading),
                "{at} has no {heading:?}: write `guarantees` and `limits` in plugin.yaml"
            );
        }
        pages += 1;
    }
    assert!(pages >= 2, "only {pages} pages were found");
    Ok(())
}

/// The page of the type is that of the file, wherever it comes from.
#[test]
fn a_reference_page_explains_an_adapter() -> Result<()> {
    let texts = [
        "# pubsub.redis: Redis Streams",
        "  - name: redisHost\n    value: \"redis:6379\"",
        "| `durable` | yes |",
        "| `ordering` | no | No order is promised. |",
        "| `redisPassword` | string, secret |",
        "| `redisHost` | string, **required** |",
        "| `redisType` | node\\|cluster | `node` |",
        "- `redisHost`; the port in `redisPort` where it gives none",
    ];
    let of_type = check(&["plugins", "page", "pubsub.redis"], true, &texts)?;
    let of_file = check(&["plugins", "page", text(plugin::redis())?], true, &[])?;
    assert_eq!(of_type, of_file);
    check(&["plugins", "page", "pubsub.in-memory"], true, &["it reaches no network"])?;
    check(&["plugins", "page", text(plugin::misbehaving_handler())?], false, &["there is no plugin.yaml"])?;
    check(
        &["plugins", "inspect", "pubsub.redis"],
        true,
        &["keeps     A publish has succeeded when", "limits    How durable"],
    )?;
    Ok(())
}
