//! From the start to the end of a host: health, `--wait`, the shutdown API, signals, blocking, exit codes (pubsub-behaviour,
//! sections 12.2 to 12.5).

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::process::Command;

use crate::harness::app::{App, Reply};
use crate::harness::host::{Ended, Host, HostPlan};
use crate::harness::{Test, build_folder, http, resource, run, until, whimbrel};

/// What the host says when it was asked to stop.
const STOPPING: &str = "stopping: no more is fetched";

fn plan(test: &Test) -> Result<HostPlan> {
    test.host("me")?.resource(resource::queue("bus"))?.resource(resource::subscription("bus", "t", "/in", None))
}

async fn says(host: &Host, text: &str) -> Result<()> {
    until(text, async || host.log().ok()?.contains(text).then_some(())).await
}

/// The line is the last one.
fn ends_gracefully(ended: &Ended) -> Result<()> {
    let last = ended.log.lines().last().unwrap_or_default();
    ensure!(ended.code == Some(0) && last.ends_with("Daprd shutdown gracefully"), "{ended:?}");
    Ok(())
}

/// An app that never answers, and one message on its way to it.
async fn busy(test: &Test, change: impl FnOnce(HostPlan) -> HostPlan) -> Result<(App, Host)> {
    let app = App::start().await?;
    app.plan("/in", [Reply::Never]);
    let host = change(plan(test)?.app(&app)).start().await?;
    http::publish_ok(host.http()?, "bus/t", "{}").await?;
    app.wait_for(1, "/in").await?;
    Ok((app, host))
}

/// Section 12.2: an app that does not listen yet keeps the host from being ready, and nobody from publishing.
#[test]
fn health_before_and_after_the_app_is_there() -> Result<()> {
    run(async |test| {
        let mut app = App::start().await?;
        app.crash().await;
        let mut host = plan(test)?.app(&app).launch()?;
        let at = host.listening().await?;
        let outbound = async || (http::get(at, "/v1.0/healthz/outbound").await.ok()?.status == 204).then_some(());
        until("publishing to work", outbound).await?;
        let answer = http::get(at, "/v1.0/healthz").await?;
        let body = answer.json()?;
        ensure!(answer.status == 500 && body["errorCode"] == "ERR_HEALTH_NOT_READY", "{}", answer.text());
        let message = body["message"].as_str().unwrap_or_default();
        ensure!(message.starts_with("dapr is not ready: [") && message.ends_with(']'), "{message}");
        // The queue keeps what nobody has ever subscribed to for nobody.
        http::publish_ok(at, "bus/t", "early").await?;
        app.start_again().await?;
        host.ready().await?;
        http::publish_ok(at, "bus/t", "{}").await?;
        app.wait_for(1, "/in").await?;
        for (path, status) in [("/v1.0/healthz?appid=me", 204), ("/v1.0/healthz?appid=you", 500)] {
            let answer = http::get(at, path).await?;
            ensure!(answer.status == status, "{path}: {}", answer.status);
        }
        Ok(())
    })
}

/// Section 12.2, `--wait`.
#[test]
fn a_program_that_waits_ends_when_the_host_can_publish() -> Result<()> {
    run(async |test| {
        let mut host = plan(test)?.launch()?;
        let port = host.listening().await?.port().to_string();
        let mut waits = Command::new(whimbrel()?);
        waits.args(["run", "--wait", "--dapr-http-port", &port]).stdin(Stdio::null()).stdout(Stdio::piped());
        let output = waits.kill_on_drop(true).output().await?;
        let log = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.code() == Some(0) && log.contains("can publish"), "{:?} {log}", output.status);
        Ok(())
    })
}

/// Section 12.3.
#[test]
fn it_is_stopped_over_the_api() -> Result<()> {
    run(async |test| {
        for force in [None, Some("false"), Some("yes")] {
            let mut host = plan(test)?.start().await?;
            let headers: Vec<_> = force.map(|force| ("dapr-force-shutdown", force)).into_iter().collect();
            let answer = http::send(host.http()?, "POST", "/v1.0/shutdown", &headers, b"").await?;
            ensure!((answer.status, answer.body.len()) == (204, 0), "{}", answer.status);
            let ended = host.ended().await?;
            ends_gracefully(&ended)?;
            ensure!(ended.log.contains("Shutdown requested via API"), "{ended:?}");
        }
        Ok(())
    })
}

/// Section 12.3: nothing is waited for, though the app never answers and there is no limit.
#[test]
fn it_is_stopped_by_force_over_the_api() -> Result<()> {
    run(async |test| {
        for word in ["true", "TRUE"] {
            let (_app, mut host) = busy(test, |plan| plan.flag("--dapr-graceful-shutdown-seconds", "0")).await?;
            let headers = [("dapr-force-shutdown", word)];
            ensure!(http::send(host.http()?, "POST", "/v1.0/shutdown", &headers, b"").await?.status == 204);
            let ended = host.ended().await?;
            ensure!(ended.code == Some(1), "{ended:?}");
            ensure!(ended.log.contains("Force shutdown requested, exiting immediately without graceful shutdown"));
        }
        Ok(())
    })
}

#[test]
fn only_a_post_stops_it() -> Result<()> {
    run(async |test| {
        let host = plan(test)?.start().await?;
        for method in ["GET", "PUT", "DELETE"] {
            let answer = http::send(host.http()?, method, "/v1.0/shutdown", &[], b"").await?;
            ensure!(answer.status == 404, "{method}: {}", answer.status);
        }
        http::publish_ok(host.http()?, "bus/other", "{}").await
    })
}

/// Section 12.4.
#[test]
fn both_signals_stop_it() -> Result<()> {
    run(async |test| {
        for signal in [Signal::TERM, Signal::INT] {
            let mut host = plan(test)?.start().await?;
            host.signal(signal)?;
            ends_gracefully(&host.ended().await?)?;
        }
        Ok(())
    })
}

/// Section 12.4: who asks twice does not want to wait, though there is no limit.
#[test]
fn a_second_signal_stops_it_at_once() -> Result<()> {
    run(async |test| {
        for second in [Signal::TERM, Signal::INT] {
            let (_app, mut host) = busy(test, |plan| plan.flag("--dapr-graceful-shutdown-seconds", "0")).await?;
            host.signal(Signal::TERM)?;
            says(&host, STOPPING).await?;
            host.signal(second)?;
            let ended = host.ended().await?;
            ensure!(ended.code == Some(1) && !ended.log.contains("Daprd shutdown gracefully"), "{ended:?}");
        }
        Ok(())
    })
}

/// Section 12.4, `--dapr-graceful-shutdown-seconds`: negative is the default, which is five.
#[test]
fn stopping_has_a_limit() -> Result<()> {
    run(async |test| {
        for (seconds, at_least) in [("1", 1), ("-1", 5)] {
            let (_app, mut host) = busy(test, |plan| plan.flag("--dapr-graceful-shutdown-seconds", seconds)).await?;
            let asked = Instant::now();
            let ended = host.stop().await?;
            ensure!(ended.code == Some(1), "{ended:?}");
            ensure!(ended.log.contains("Graceful shutdown timeout exceeded, forcing shutdown"), "{ended:?}");
            ensure!(asked.elapsed() >= Duration::from_secs(at_least), "{seconds}: {:?}", asked.elapsed());
        }
        Ok(())
    })
}

/// Section 12.5: nothing new is delivered from then on, what is in flight is, and everything else goes on.
#[test]
fn blocking_keeps_the_api_and_ends_the_subscriptions() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::After(Duration::from_secs(2), 200, String::new())]);
        let plan = plan(test)?.app(&app).flag("--dapr-block-shutdown-duration", "1h");
        let mut host = plan.start().await?;
        let at = host.http()?;
        http::publish_ok(at, "bus/t", "1").await?;
        app.wait_for(1, "/in").await?;
        host.signal(Signal::TERM)?;
        says(&host, "Blocking graceful shutdown for").await?;
        let page = || super::metrics::page(&host);
        let done = r#"process_status="success",status="success",topic="t"} 1"#;
        until("what was in flight to be counted", async || page().await.ok()?.contains(done).then_some(())).await?;
        for number in 2..5 {
            http::publish_ok(at, "bus/t", &number.to_string()).await?;
        }
        for path in ["/v1.0/healthz", "/v1.0/healthz/outbound", "/v1.0/metadata"] {
            let answer = http::get(at, path).await?;
            ensure!(answer.status < 300, "{path}: {}", answer.status);
        }
        let set = http::send(at, "PUT", "/v1.0/metadata/key", &[], b"value").await?;
        ensure!(set.status == 204, "{}", set.status);
        ensure!(http::get(at, "/v1.0/metadata").await?.json()?["subscriptions"][0]["topic"] == "t");
        ensure!(app.seen_on("/in").len() == 1, "something was delivered after the subscriptions had ended");
        // A second signal is an end to the patience here, too.
        host.signal(Signal::TERM)?;
        ensure!(host.ended().await?.code == Some(1));
        Ok(())
    })
}

/// Section 12.5: the block ends by itself, and so does the host.
#[test]
fn blocking_ends() -> Result<()> {
    run(async |test| {
        for duration in ["1ms", "1s"] {
            let mut host = plan(test)?.flag("--dapr-block-shutdown-duration", duration).start().await?;
            let ended = host.stop().await?;
            ends_gracefully(&ended)?;
            let (begun, over) =
                (format!("Blocking graceful shutdown for {duration} or"), "Block shutdown period expired");
            ensure!(ended.log.contains(&begun) && ended.log.contains(over), "{ended:?}");
        }
        Ok(())
    })
}

/// Section 12.5: an app that is ill already keeps nobody.
#[test]
fn blocking_does_not_wait_for_an_app_that_is_ill() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/healthz", [Reply::status(503)]);
        let plan = plan(test)?.app(&app).flag("--dapr-block-shutdown-duration", "1h");
        let mut host = plan.flag("--enable-app-health-check=true", "--app-health-threshold=1").start().await?;
        let ended = host.stop().await?;
        ends_gracefully(&ended)?;
        ensure!(ended.log.contains("App reported unhealthy, entering shutdown..."), "{ended:?}");
        Ok(())
    })
}

/// Section 12.3: the shutdown API blocks as a signal does.
#[test]
fn blocking_is_the_same_however_it_is_asked_for() -> Result<()> {
    run(async |test| {
        let mut host = plan(test)?.flag("--dapr-block-shutdown-duration", "1h").start().await?;
        ensure!(http::send(host.http()?, "POST", "/v1.0/shutdown", &[], b"").await?.status == 204);
        says(&host, "Blocking graceful shutdown for").await?;
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        let headers = [("dapr-force-shutdown", "true")];
        ensure!(http::send(host.http()?, "POST", "/v1.0/shutdown", &headers, b"").await?.status == 204);
        ensure!(host.ended().await?.code == Some(1));
        Ok(())
    })
}

/// A broker that cannot be had ends the start with 1, as daprd's does.
#[test]
fn a_component_that_does_not_open_is_fatal() -> Result<()> {
    run(async |test| {
        for (kind, settings) in [("pubsub.nobody", &[][..]), ("pubsub.redis", &[("redisHost", "127.0.0.1:1")])] {
            let component = resource::component("bus", kind, settings);
            let component = component.replacen("  type:", "  initTimeout: 2s\n  type:", 1);
            let ended = test.host("me")?.resource(component)?.run_to_the_end().await?;
            let said = format!("initialization error occurred for bus ({kind}/v1)");
            ensure!(ended.code == Some(1) && ended.log.contains(&said), "{ended:?}");
        }
        Ok(())
    })
}

/// Section 12.8: a link or a copy named `daprd` is `whimbrel run`, with flags as Go writes them.
#[test]
fn a_link_named_daprd_runs_a_host() -> Result<()> {
    run(async |test| {
        let folder = test.folder("bin")?;
        let link = folder.join("daprd");
        std::os::unix::fs::symlink(whimbrel()?, &link)?;
        let log = folder.join("log");
        let flags = "-app-id me -dapr-http-port 0 -dapr-listen-addresses 127.0.0.1 -metrics-port=0 -log-level info";
        let mut child = Command::new(&link)
            .args(flags.split(' '))
            .env_clear()
            .env("WHIMBREL_CACHE", build_folder()?.with_file_name("test-cache"))
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        let says = |text: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
        until("it to be ready", async || says(" ready").then_some(())).await?;
        let id = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        rustix::process::kill_process(id.context("it has ended")?, Signal::INT)?;
        let code = until("it to end", async || child.try_wait().ok().flatten()).await?.code();
        ensure!(code == Some(0) && says("Daprd shutdown gracefully"), "{code:?}");
        let version = Command::new(&link).arg("--version").output().await?;
        let told = String::from_utf8_lossy(&version.stdout);
        ensure!(version.status.success() && told.contains(env!("CARGO_PKG_VERSION")), "{told}");
        Ok(())
    })
}
