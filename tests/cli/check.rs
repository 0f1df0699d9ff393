//! `whimbrel check`: what it finds, in which words, and how it ends.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{ask, text};
use crate::harness::{Test, plugin, resource, run};

/// A folder with these files.
fn folder(test: &Test, files: &[&str]) -> Result<PathBuf> {
    let folder = test.folder("resources")?;
    for (number, yaml) in files.iter().enumerate() {
        std::fs::write(folder.join(format!("{number:02}.yaml")), yaml)?;
    }
    Ok(folder)
}

/// What it prints of a folder, once it has ended with this code.
fn check(folder: &Path, options: &[&str], code: i32) -> Result<String> {
    let output = ask(&[&["check", text(folder)?], options].concat())?;
    let printed = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(code), "{options:?}: {:?}\n{printed}", output.status);
    Ok(printed)
}

/// The same, for these files and what must stand there.
fn says(files: &[&str], options: &[&str], code: i32, texts: &[&str]) -> Result<()> {
    run(async |test| {
        let printed = check(&folder(test, files)?, options, code)?;
        for text in texts {
            ensure!(printed.contains(text), "{text:?} is not in\n{printed}");
        }
        Ok(())
    })
}

fn scoped(yaml: &str, app: &str) -> String {
    format!("{yaml}\nscopes: [{app}]\n")
}

#[test]
fn sound_resources_are_counted() -> Result<()> {
    let handler = resource::handler("h", plugin::misbehaving_handler(), &[("bus", "a", None)], "{}");
    let policies = resource::inbound("bus", "{retries: {r: {policy: constant}}}", "{retry: r}");
    let files = [&resource::in_memory("bus"), &resource::subscription("bus", "b", "/b", None), &handler, &policies];
    says(
        &files.map(String::as_str),
        &[],
        0,
        &["1 component, 2 subscriptions, 1 handler, 1 resiliency, 0 errors, 0 warnings\n"],
    )
}

#[test]
fn warnings_alone_are_no_failure() -> Result<()> {
    let odd = resource::redis("bus", "127.0.0.1:1", &[("redisPasswort", "x")]);
    says(&[&odd], &[], 0, &["warning: ", "00.yaml:", "did you mean redisPassword?", "0 errors, 1 warning\n"])
}

/// From every file and every reader: the resources', the plugins', the handlers'.
#[test]
fn all_problems_come_at_once() -> Result<()> {
    let handler = resource::handler("h", "nowhere.wasm".as_ref(), &[("bus", "a", None)], "{}");
    let files = [
        resource::component("bus", "pubsub.redis", &[]),
        resource::component("other", "pubsub.in-memory", &[("mode", "sideways")]),
        resource::component("third", "pubsub.nothing", &[]),
        resource::subscription("bus", "b", "/b", None).replace("  topic: \"b\"\n", ""),
        handler,
    ];
    let texts = [
        "error: ",
        "00.yaml:1: spec.metadata.redisHost: ",
        "01.yaml:9: spec.metadata.mode: ",
        "02.yaml:1: spec.type: process component third error: [INIT_COMPONENT_FAILURE]",
        "warning: ",
        "03.yaml:6: spec: without pubsubname and topic it receives nothing",
        "04.yaml:2: handler h: ",
        "3 components, 2 subscriptions, 1 handler, 0 resiliency, 4 errors, 1 warning\n",
    ];
    says(&files.each_ref().map(String::as_str), &[], 1, &texts)
}

/// In the words of the host at its start.
#[test]
fn it_says_what_the_host_says() -> Result<()> {
    run(async |test| {
        let yaml = resource::component("bus", "pubsub.in-memory", &[("mode", "sideways")]);
        let printed = check(&folder(test, &[&yaml])?, &["--app-id", "me"], 1)?;
        let (_, problem) = printed.lines().next().context("a line")?.split_once("00.yaml").context("the file")?;
        let ended = test.host("me")?.resource(&yaml)?.run_to_the_end().await?;
        ensure!(ended.log.contains(problem), "{problem:?} is not in\n{}", ended.log);
        Ok(())
    })
}

#[test]
fn what_is_for_one_app_is_found_for_every_app_or_for_this_one() -> Result<()> {
    let wrong = scoped(&resource::component("bus", "pubsub.in-memory", &[("mode", "sideways")]), "one");
    let sound = scoped(&resource::in_memory("bus"), "two");
    let files = [wrong.as_str(), sound.as_str()];
    says(&files, &[], 1, &["mode", "2 components, ", "1 error, "])?;
    says(&files, &["--app-id", "one"], 1, &["mode", "1 component, "])?;
    says(&files, &["--app-id", "two"], 0, &["1 component, ", "0 errors, "])
}

#[test]
fn namespaces_are_told_apart() -> Result<()> {
    let wrong = resource::component("bus", "pubsub.in-memory", &[("mode", "sideways")]);
    let wrong = wrong.replacen("  name: bus\n", "  name: bus\n  namespace: there\n", 1);
    says(&[&wrong], &["--namespace", "here"], 0, &["0 components, "])?;
    says(&[&wrong], &["--namespace", "there"], 1, &["mode"])
}

#[test]
fn machines_read_json_and_no_secret() -> Result<()> {
    run(async |test| {
        let secrets = test.folder("secrets")?.join("secrets.json");
        std::fs::write(&secrets, r#"{"depth": "hunter2"}"#)?;
        let store = resource::component("vault", "secretstores.local.file", &[("secretsFile", text(&secrets)?)]);
        let broker = resource::redis("bus", "127.0.0.1:1", &[("redisPasswort", "hunter2")]);
        let secret = "  - name: redisPassword\n    secretKeyRef: {name: depth}\nauth: {secretStore: vault}\n";
        let printed = check(&folder(test, &[&store, &(broker + secret)])?, &["--json"], 0)?;
        let answer: serde_json::Value = serde_json::from_str(&printed)?;
        ensure!(answer["found"]["components"] == 1 && answer["errors"] == 0 && answer["warnings"] == 1, "{printed}");
        let problem = &answer["problems"][0];
        ensure!(problem["severity"] == "warning" && problem["key"] == "spec.metadata.redisPasswort", "{printed}");
        ensure!(problem["line"].as_u64().is_some_and(|line| line > 1) && problem["hint"] != "", "{printed}");
        ensure!(!printed.contains("hunter2"), "{printed}");
        Ok(())
    })
}

#[test]
fn a_folder_is_asked_for_and_must_be_there() -> Result<()> {
    ensure!(ask(&["check"])?.status.code() == Some(64));
    let output = ask(&["check", "nowhere"])?;
    let printed = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(1) && printed.contains("nowhere:1: the folder of resources cannot be read"));
    Ok(())
}

/// Nothing runs: a broker that is not there is no problem, and nobody connects to one that is.
#[test]
fn nothing_is_run() -> Result<()> {
    run(async |test| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let broker = resource::redis("bus", listener.local_addr()?, &[]);
        check(&folder(test, &[&broker])?, &[], 0)?;
        ensure!(listener.accept().is_err(), "somebody connected");
        Ok(())
    })
}
