//! `whimbrel publish` and `whimbrel subscribe`, as somebody at a terminal uses them.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::redis::Redis;
use crate::harness::{Test, build_folder, http, resource, run, whimbrel};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(whimbrel()?);
    command.args(arguments).env_clear().env("WHIMBREL_CACHE", build_folder()?.with_file_name("test-cache"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// Publishes to `t` of `bus`, or where the arguments say, with what is on the standard input.
async fn publish(host: &Host, arguments: &[&str], input: &[u8], token: Option<&str>) -> Result<Output> {
    let port = host.http()?.port().to_string();
    let mut command = command(&["publish", "--dapr-http-port", &port, "--topic", "t"])?;
    command.args(arguments).stdin(Stdio::piped());
    if let Some(token) = token {
        command.env("DAPR_API_TOKEN", token);
    }
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("its input")?;
    let written = async {
        // It may have seen enough.
        stdin.write_all(input).await.ok();
        drop(stdin);
    };
    let ended = async { tokio::join!(written, child.wait_with_output()).1 };
    Ok(timeout(PATIENCE, ended).await.context("it does not end")??)
}

async fn check_publish(host: &Host, arguments: &[&str], input: &[u8]) -> Result<()> {
    let output = publish(host, &[&["--pubsub", "bus"][..], arguments].concat(), input, None).await?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(0) && output.stdout.is_empty() && told.is_empty(), "{arguments:?}: {told}");
    Ok(())
}

async fn check_refused(host: &Host, arguments: &[&str], input: &[u8], texts: &[&str]) -> Result<()> {
    let output = publish(host, arguments, input, None).await?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{arguments:?}: {:?} {told}", output.status);
    for text in texts {
        ensure!(told.contains(text), "{arguments:?}: {text:?} is not in {told}");
    }
    Ok(())
}

#[test]
fn one_message_is_published() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::queue("bus"))?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        let file = test.folder("data")?.join("event.json");
        std::fs::write(&file, r#"{"from":"a file"}"#)?;
        check_publish(&host, &["--data", r#"{"a":1}"#], b"").await?;
        check_publish(&host, &["--file", file.to_str().context("text")?], b"").await?;
        check_publish(&host, &[], b"from the input").await?;
        check_publish(&host, &["--data", "7", "--content-type", "text/plain"], b"").await?;
        check_publish(&host, &["--data", "<a/>", "--metadata", "cloudevent.id=mine", "--metadata", "x=a=b&c"], b"")
            .await?;
        let mut came = vec![];
        for seen in app.wait_for(5, "/in").await? {
            let event = seen.event()?;
            came.push((event["datacontenttype"].clone(), event["data"].clone(), event["id"] == "mine"));
        }
        for expected in [
            (json!("application/json"), json!({ "a": 1 }), false),
            (json!("application/json"), json!({ "from": "a file" }), false),
            (json!("text/plain"), json!("from the input"), false),
            (json!("text/plain"), json!("7"), false),
            (json!("text/plain"), json!("<a/>"), true),
        ] {
            ensure!(came.contains(&expected), "{expected:?} is not among {came:?}");
        }
        Ok(())
    })
}

#[test]
fn many_lines_are_published() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::queue("bus"))?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        let lines: String = (0..250).map(|number| format!("{{\"n\":{number}}}\n\n")).collect();
        check_publish(&host, &["--lines"], lines.as_bytes()).await?;
        let mut numbers = vec![];
        for seen in app.wait_for(250, "/in").await? {
            numbers.push(seen.event()?["data"]["n"].as_u64().context("a number")?);
        }
        numbers.sort_unstable();
        ensure!(numbers == (0..250).collect::<Vec<_>>(), "{numbers:?}");
        let arguments = ["--pubsub", "bus", "--lines", "--content-type", "application/json"];
        check_refused(&host, &arguments, b"{}\n\nno json\n", &["line 3 is no application/json"]).await?;
        Ok(())
    })
}

#[test]
fn what_the_host_refuses_is_told() -> Result<()> {
    run(async |test| {
        let scoped = [("allowedTopics", "a"), ("publishingScopes", "me=a")];
        let plan = test.host("me")?.resource(resource::component("bus", "pubsub.in-memory", &scoped))?;
        let mut host = plan.start().await?;
        let unknown = ["--pubsub", "nope", "--data", "x"];
        check_refused(&host, &unknown, b"", &["404 ERR_PUBSUB_NOT_FOUND: pubsub nope is not found"]).await?;
        let denied = "403 ERR_PUBSUB_FORBIDDEN: topic t is not allowed for app id me";
        check_refused(&host, &["--pubsub", "bus", "--data", "x"], b"", &[denied]).await?;
        check_refused(&host, &["--pubsub", "bus", "--lines"], b"x\ny", &[denied, "0 messages were published"]).await?;
        check_refused(&host, &["--pubsub", "bus", "--file", "no/where"], b"", &["--file no/where"]).await?;
        host.start_again(|plan| plan.env("DAPR_API_TOKEN", "hush-hush")).await?;
        check_refused(&host, &unknown, b"", &["401 invalid api token"]).await?;
        let output = publish(&host, &unknown, b"", Some("hush-hush")).await?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(told.contains("404") && !told.contains("hush"), "{told}");
        let address = host.http()?;
        host.stop().await?;
        let gone = command(&["publish", "--pubsub", "bus", "--topic", "t", "--data", "x", "--dapr-http-port"])?
            .arg(address.port().to_string())
            .output()
            .await?;
        let told = String::from_utf8(gone.stderr)?;
        ensure!(gone.status.code() == Some(1) && told.contains(&format!("no host answers at {address}")), "{told}");
        Ok(())
    })
}

/// A tail that runs.
struct Tailing {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    told: Lines<BufReader<ChildStderr>>,
}

impl Tailing {
    /// Starts it, and returns when it is subscribed.
    async fn start(folder: &Path, arguments: &[&str]) -> Result<Self> {
        let folder = folder.to_str().context("text")?;
        let mut command = command(&["subscribe", "--pubsub", "bus", "--topic", "t", "--resources-path", folder])?;
        let mut child = command.args(arguments).spawn()?;
        let out = BufReader::new(child.stdout.take().context("its output")?).lines();
        let told = BufReader::new(child.stderr.take().context("its complaints")?).lines();
        let mut tailing = Self { child, out, told };
        let mut before = String::new();
        while let Some(line) = timeout(PATIENCE, tailing.told.next_line()).await.context("it does not subscribe")?? {
            if line.starts_with("subscribed to t of bus as ") {
                return Ok(tailing);
            }
            before.push_str(&line);
        }
        anyhow::bail!("it ended: {before}")
    }

    async fn next(&mut self) -> Result<Option<String>> {
        Ok(timeout(PATIENCE, self.out.next_line()).await.context("nothing comes")??)
    }

    async fn ended(mut self) -> Result<Option<i32>> {
        Ok(timeout(PATIENCE, self.child.wait()).await.context("it does not end")??.code())
    }
}

fn declared(test: &Test, redis: &Redis) -> Result<std::path::PathBuf> {
    let folder = test.folder("tail")?;
    // With a group of its own, which the tail must not join.
    std::fs::write(folder.join("bus.yaml"), resource::redis("bus", redis.address(), &[("consumerID", "workers")]))?;
    // What others are subscribed to is no business of the tail's.
    std::fs::write(folder.join("other.yaml"), resource::subscription("bus", "t", "/other", None))?;
    Ok(folder)
}

#[test]
fn a_topic_is_tailed_and_nothing_is_taken_from_others() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let app = App::start().await?;
        let bus = resource::redis("bus", redis.address(), &[("consumerID", "workers")]);
        let plan = test.host("me")?.resource(bus)?.resource(resource::subscription("bus", "t", "/in", None))?;
        let host = plan.app(&app).start().await?;
        let mut tailing = Tailing::start(&declared(test, &redis)?, &["--json", "--max", "20"]).await?;
        for number in 0..20 {
            http::publish_ok(host.http()?, "bus/t?metadata.colour=red", &format!("{{\"n\":{number}}}")).await?;
        }
        let mut numbers = vec![];
        while let Some(line) = tailing.next().await? {
            let shown: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            let told = (&shown["topic"], &shown["attempt"], &shown["fate"], &shown["metadata"]["colour"]);
            ensure!(told == (&json!("t"), &json!(1), &json!("acknowledged"), &json!("red")), "{line}");
            ensure!(shown["id"] == shown["body"]["id"] && shown["body"]["source"] == "me", "{line}");
            numbers.push(shown["body"]["data"]["n"].as_u64().context("a number")?);
        }
        ensure!(tailing.ended().await? == Some(0), "it ends by itself");
        numbers.sort_unstable();
        ensure!(numbers == (0..20).collect::<Vec<_>>(), "{numbers:?}");
        app.wait_for(20, "/in").await?;
        Ok(())
    })
}

#[test]
fn a_tail_ends_when_it_is_told_to() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let host = test.host("me")?.resource(resource::redis("bus", redis.address(), &[]))?.start().await?;
        let mut tailing = Tailing::start(&declared(test, &redis)?, &["--metadata", "rawPayload=false"]).await?;
        http::publish_ok(host.http()?, "bus/t", r#"{"a":1}"#).await?;
        let line = tailing.next().await?.context("a line")?;
        ensure!(line.starts_with("t attempt 1 acknowledged {") && line.contains(r#""data":{"a":1}"#), "{line}");
        // What no subscriber gets to see has a fate, too.
        http::publish_ok(host.http()?, "bus/t?metadata.rawPayload=true", "no event").await?;
        let line = tailing.next().await?.context("a line")?;
        ensure!(line.starts_with("t attempt 1 given back") && line.contains("it is no event"), "{line}");
        let id = tailing.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.context("it has ended")?, Signal::INT)?;
        ensure!(tailing.ended().await? == Some(0), "it ends in good order");
        Ok(())
    })
}

async fn check_no_tail(folder: &Path, arguments: &[&str], code: i32, texts: &[&str]) -> Result<()> {
    let folder = folder.to_str().context("text")?;
    let mut command = command(&["subscribe", "--topic", "t", "--resources-path", folder])?;
    let output = timeout(PATIENCE, command.args(arguments).output()).await.context("it does not end")??;
    let told = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(code), "{arguments:?}: {:?} {told}", output.status);
    for text in texts {
        ensure!(told.contains(text), "{arguments:?}: {text:?} is not in {told}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_tailed_is_told() -> Result<()> {
    run(async |test| {
        let folder = test.folder("resources")?;
        let scoped = [("allowedTopics", "a"), ("mode", "queue")];
        std::fs::write(folder.join("bus.yaml"), resource::component("bus", "pubsub.in-memory", &scoped))?;
        check_no_tail(&folder, &["--pubsub", "nope"], 1, &["--pubsub nope", "--app-id", "bus"]).await?;
        check_no_tail(&folder, &["--pubsub", "bus"], 1, &["not subscribed", "lives in this process"]).await?;
        check_no_tail(&folder, &["--pubsub", "bus", "--metadata", "odd"], 64, &["odd is not NAME=VALUE"]).await?;
        std::fs::write(
            folder.join("wrong.yaml"),
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: x}\n",
        )?;
        check_no_tail(&folder, &["--pubsub", "bus"], 78, &["wrong.yaml:1", "spec: is missing"]).await?;
        Ok(())
    })
}
