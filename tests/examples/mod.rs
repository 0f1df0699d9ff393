//! Every example is run as its reader would run it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::harness::app::App;
use crate::harness::{http, resource, run, run_within};

/// How long an example may take: it may have to build first.
const EXAMPLE_MAX: Duration = Duration::from_secs(15 * 60);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a command in the checkout to its end, and gives what it printed.
async fn printed(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(root().join(program).canonicalize().unwrap_or_else(|_| program.into()));
    command.args(arguments).current_dir(root()).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("starting {program}"))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{program} {arguments:?} ended with {}:\n{text}", output.status);
    Ok(text)
}

fn check_quickstart(arguments: &[&str]) -> Result<()> {
    run_within(EXAMPLE_MAX, async |_| {
        let text = printed("examples/quickstart/run", arguments).await?;
        for number in 1..=5 {
            let arrived = format!("<- shipping got   {{\"id\": \"order-{number}\"");
            ensure!(text.contains(&arrived), "order {number} is missing:\n{text}");
        }
        ensure!(text.contains("\"total\"") && text.contains("(from enricher)"), "not by way of the handler:\n{text}");
        ensure!(text.trim_end().ends_with("through two sandboxes and back."), "{text}");
        Ok(())
    })
}

#[test]
fn the_quickstart_shows_every_order_arriving() -> Result<()> {
    check_quickstart(&[])
}

#[test]
fn the_quickstart_does_the_same_on_a_real_redis() -> Result<()> {
    check_quickstart(&["redis"])
}

/// What the README starts with.
#[test]
fn the_first_resources_serve_a_publish() -> Result<()> {
    run(async |test| {
        let resources = root().join("examples/first/resources");
        let plan =
            test.host("shipping")?.flag("--resources-path", resources.to_str().context("a path that is no text")?);
        let host = plan.start().await?;
        http::publish_ok(host.http()?, "bus/orders", r#"{"id":"order-1"}"#).await
    })
}

/// An adapter that was built outside the workspace from `wit/` and the sdk alone is found in a folder, and serves.
#[test]
fn an_adapter_from_elsewhere_is_dropped_in() -> Result<()> {
    run_within(EXAMPLE_MAX, async |test| {
        let plugins = test.folder("plugins")?;
        let file = plugins.join("pubsub.outside.wasm");
        let words = ["run", "--quiet", "-p", "whimbrel-artifacts", "--example", "build-component", "--"];
        let out = file.to_str().context("a path that is no text")?;
        printed("cargo", &[&words[..], &["examples/adapters/outside", out]].concat()).await?;
        let app = App::start().await?;
        let resources = root().join("examples/adapters/outside/resources");
        let plan = test.host("me")?.flag("--resources-path", resources.to_str().context("a path that is no text")?);
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
        let folder = plugins.to_str().context("a path that is no text")?;
        let host = plan.flag("--plugins", folder).app(&app).start().await?;
        for number in 0..20 {
            http::publish_ok(host.http()?, "bus/t", &number.to_string()).await?;
        }
        let seen = app.wait_for(20, "/in").await?;
        assert_eq!(seen.len(), 20);
        Ok(())
    })
}
