//! What Dapr counts besides messages (pubsub-behaviour, section 13.2): requests over HTTP, what policies do, how components start.
//! Names and labels, after real traffic.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::breakers::resiliency;
use super::metrics::{count, page, value};
use crate::harness::app::{App, Reply};
use crate::harness::host::Host;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::redis::Redis;
use crate::harness::{Test, http, resource, run, until, until_within};

/// Longer than a component waits before it tries again to open, on a loaded machine.
const OPEN_WAIT: Duration = Duration::from_secs(90);

/// A host with this as `spec.metrics` whose app fails once at `/in/1`, two messages published and delivered.
async fn delivered(test: &Test, metrics: &str) -> Result<(App, Host)> {
    let app = App::start().await?;
    app.plan("/in/1", [Reply::status(500), Reply::ok()]);
    let plan = super::configuration::plan(test, &format!("{{metrics: {metrics}}}"))?.app(&app);
    let plan = plan.resource(resource::subscription("bus", "t", "/in/1", None))?;
    let once = resource::inbound("bus", "{retries: {once: {duration: 1ms, maxRetries: 1}}}", "{retry: once}");
    let host = plan.resource(once)?.start().await?;
    for number in ["1", "2"] {
        http::publish_ok(host.http()?, "bus/t", number).await?;
    }
    app.wait_for(3, "/in/1").await?;
    ensure!(http::publish(host.http()?, "nobody/t", "{}").await?.status == 404);
    ensure!(http::get(host.http()?, "/v1.0/metadata").await?.status == 200);
    Ok((app, host))
}

/// Waits for each of these metrics of requests, whose app is `me`.
async fn requests(host: &Host, expected: &[(&str, &str, f64)]) -> Result<()> {
    let named =
        |(name, labels, count): &(&str, &str, f64)| (format!("dapr_http_{name}{{app_id=\"me\"{labels}}}"), *count);
    let named: Vec<(String, f64)> = expected.iter().map(named).collect();
    let expected: Vec<(&str, f64)> = named.iter().map(|(metric, count)| (metric.as_str(), *count)).collect();
    count(host, &expected).await
}

#[test]
fn requests_are_counted_by_what_is_called() -> Result<()> {
    run(async |test| {
        let (app, host) = delivered(test, "{}").await?;
        let answered = 2.0 + app.asked().len() as f64;
        let expected = [
            ("server_request_count", r#",method="PublishEvent",status="204""#, 2.0),
            ("server_request_count", r#",method="PublishEvent",status="404""#, 1.0),
            ("server_request_count", r#",method="GetMetadata",status="200""#, 1.0),
            ("server_latency_count", r#",method="PublishEvent",status="204""#, 2.0),
            ("client_completed_count", r#",status="200""#, answered),
            ("client_completed_count", r#",status="500""#, 1.0),
            ("client_roundtrip_latency_count", r#",status="500""#, 1.0),
            ("client_sent_bytes_count", r#",status="""#, answered + 1.0),
            ("client_received_bytes_count", "", answered + 1.0),
        ];
        requests(&host, &expected).await?;
        let page = page(&host).await?;
        let sum = |name: &str| value(&page, &format!("dapr_http_{name}_sum{{app_id=\"me\"}}")).unwrap_or_default();
        ensure!(sum("server_request_bytes") == 4.0, "the bodies of three publishes: {page}");
        ensure!(sum("server_response_bytes") > 100.0, "{page}");
        ensure!(!page.lines().any(|line| line.starts_with("dapr_http_") && line.contains("path=")), "{page}");
        for (metric, kind) in [
            ("server_request_count", "counter"),
            ("server_latency", "histogram"),
            ("server_request_bytes", "histogram"),
            ("server_response_bytes", "histogram"),
            ("client_completed_count", "counter"),
            ("client_roundtrip_latency", "histogram"),
        ] {
            ensure!(page.contains(&format!("# TYPE dapr_http_{metric} {kind}\n")), "{metric}: {page}");
        }
        Ok(())
    })
}

#[test]
fn requests_are_counted_by_path_where_it_is_wanted() -> Result<()> {
    run(async |test| {
        let (_app, host) = delivered(test, "{http: {increasedCardinality: true, pathMatching: ['/in/{id}']}}").await?;
        let expected = [
            ("server_request_count", r#",method="POST",path="/v1.0/publish/bus/t",status="204""#, 2.0),
            ("server_latency_count", r#",method="POST",path="/v1.0/publish/nobody/t",status="404""#, 1.0),
            ("client_completed_count", r#",method="POST",path="/in/{id}",status="200""#, 2.0),
            ("client_roundtrip_latency_count", r#",method="POST",path="/in/{id}",status="500""#, 1.0),
            ("client_completed_count", r#",method="GET",path="/dapr/subscribe",status="200""#, 1.0),
        ];
        requests(&host, &expected).await
    })
}

#[test]
fn paths_that_nobody_named_are_counted_together() -> Result<()> {
    run(async |test| {
        let (_app, host) = delivered(test, "{http: {pathMatching: [/v1.0/publish/], excludeVerbs: true}}").await?;
        let expected = [
            ("server_request_count", r#",method="",path="/v1.0/publish/",status="204""#, 2.0),
            ("server_request_count", r#",method="",path="/v1.0/publish/",status="404""#, 1.0),
            ("server_request_count", r#",method="",path="_",status="200""#, 1.0),
            ("client_completed_count", r#",method="",path="_",status="500""#, 1.0),
        ];
        requests(&host, &expected).await
    })
}

#[test]
fn probes_of_the_apps_health() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        // One that is cut on a connection that was idle is sent again on another.
        let ill = || Reply::status(503);
        app.plan("/healthz", [ill(), ill(), Reply::Cut, Reply::Cut, Reply::ok()]);
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.app(&app);
        let plan = plan.flag("--enable-app-health-check=true", "--app-health-probe-interval=1");
        let mut host = plan.flag("--app-health-probe-timeout", "1000").launch()?;
        host.listening().await?;
        let probes =
            |status: u16| format!(r#"dapr_http_healthprobes_completed_count{{app_id="me",status="{status}"}}"#);
        let latency = r#"dapr_http_healthprobes_roundtrip_latency_count{app_id="me",status="503"}"#.to_owned();
        for metric in [probes(503), latency, probes(500), probes(200)] {
            until(&metric, async || (value(&page(&host).await.ok()?, &metric)? >= 1.0).then_some(())).await?;
        }
        Ok(())
    })
}

/// A retry that helps, then two failures that open the breaker; a timeout at another component; and publishes.
#[test]
fn what_policies_do() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let failed = || Reply::status(500);
        app.plan("/in", [failed(), Reply::ok(), failed()]);
        app.plan("/slow", [Reply::Never]);
        let policies = "{timeouts: {quick: 300ms}, retries: {again: {duration: 10ms, maxRetries: 1}}, \
                        circuitBreakers: {cb: {timeout: 10m, trip: consecutiveFailures > 1}}}";
        let targets = "{bus: {inbound: {retry: again, circuitBreaker: cb}, outbound: {retry: again}}, slow: {inbound: {timeout: quick}}}";
        let resources = [
            resource::queue("bus"),
            resource::queue("slow"),
            resource::subscription("bus", "t", "/in", None),
            resource::subscription("slow", "t", "/slow", None),
            resiliency(policies, targets),
        ];
        let mut plan = test.host("me")?.app(&app);
        for resource in &resources {
            plan = plan.resource(resource)?;
        }
        let host = plan.clone().start().await?;
        let policy = |name: &str, flow: &str, policy: &str, status: &str, bus: &str| {
            format!(
                r#"dapr_resiliency_{name}{{app_id="me",flow_direction="{flow}",name="r",namespace="",policy="{policy}",status="{status}",target="Pubsub_{bus}"}}"#
            )
        };
        let bus = |name: &str, kind: &str, status: &str| policy(name, "inbound", kind, status, "bus");
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        app.wait_for(2, "/in").await?;
        let [closed, half_open, open, unknown] =
            ["closed", "half-open", "open", "unknown"].map(|state| bus("cb_state", "circuitbreaker", state));
        let (retried, applied) = (bus("activations_total", "retry", ""), bus("count", "retry", ""));
        let (passed, opened) =
            (bus("count", "circuitbreaker", "closed"), bus("activations_total", "circuitbreaker", "open"));
        let first = [(&*retried, 1.0), (&*applied, 1.0), (&*passed, 1.0), (&*closed, 1.0), (&*open, 0.0)];
        count(&host, &first).await?;
        http::publish_ok(host.http()?, "bus/t", "2").await?;
        let published = policy("count", "outbound", "retry", "", "bus");
        let second = [(&*retried, 2.0), (&*opened, 1.0), (&*open, 1.0), (&*closed, 0.0), (&*half_open, 0.0)];
        count(&host, &[&second[..], &[(&*unknown, 0.0), (&*passed, 2.0), (&*published, 2.0)]].concat()).await?;
        http::publish_ok(host.http()?, "slow/t", "1").await?;
        let more = async |metric: &str| {
            until(metric, async || (value(&page(&host).await.ok()?, metric)? >= 1.0).then_some(())).await
        };
        more(&policy("activations_total", "inbound", "timeout", "", "slow")).await?;
        more(&policy("count", "inbound", "timeout", "", "slow")).await?;
        // What the breaker keeps off comes again, and is kept off again.
        more(&bus("count", "circuitbreaker", "open")).await?;
        let loaded = r#"dapr_resiliency_loaded{app_id="me",name="r",namespace=""}"#;
        count(&host, &[(loaded, 1.0)]).await?;
        plan.resource_instead(4, &resiliency("{timeouts: {quick: 10s}}", "{slow: {inbound: {timeout: quick}}}"))?;
        count(&host, &[(loaded, 2.0)]).await?;
        let page = page(&host).await?;
        for (metric, kind) in [("count", "counter"), ("activations_total", "counter"), ("cb_state", "gauge")] {
            ensure!(page.contains(&format!("# TYPE dapr_resiliency_{metric} {kind}\n")), "{metric}: {page}");
        }
        Ok(())
    })
}

/// Those that open, at the start, later, and with a reload; and those that do not.
#[test]
fn how_components_start() -> Result<()> {
    run(async |test| {
        let ignoring = |yaml: String| yaml.replacen("spec:\n", "spec:\n  ignoreErrors: true\n  initTimeout: 1s\n", 1);
        let redis = Redis::start(test).await?;
        let proxy = Proxy::start(redis.address()).await?;
        proxy.set(Mode::BlackHole);
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let plan = plan.resource(ignoring(resource::component("nothing", "pubsub.nothing", &[])))?;
        let plan = plan.resource(ignoring(resource::redis("late", proxy.address(), &[])))?;
        let host = plan.clone().start().await?;
        let loaded = r#"dapr_runtime_component_loaded{app_id="me"}"#;
        let opened = |kind: &str| format!(r#"dapr_runtime_component_init_total{{app_id="me",component="{kind}"}}"#);
        let failed = |kind: &str, name: &str, reason: &str| {
            format!(
                r#"dapr_runtime_component_init_fail_total{{app_id="me",component="{kind}",component_name="{name}",reason="{reason}"}}"#
            )
        };
        let (nothing, late) = (failed("pubsub.nothing", "nothing", "creation"), failed("pubsub.redis", "late", "init"));
        let (in_memory, of_redis) = (opened("pubsub.in-memory"), opened("pubsub.redis"));
        count(&host, &[(loaded, 1.0), (&in_memory, 1.0), (&nothing, 1.0), (&late, 1.0)]).await?;
        ensure!(value(&page(&host).await?, &of_redis).is_none(), "it is not open");
        proxy.set(Mode::Pass);
        let is_open = async || (value(&page(&host).await.ok()?, &of_redis)? == 1.0).then_some(());
        until_within(OPEN_WAIT, "the late one to open", is_open).await?;
        plan.file("09.yaml", resource::in_memory("another"))?;
        count(&host, &[(loaded, 3.0), (&in_memory, 2.0), (&of_redis, 1.0)]).await?;
        let page = page(&host).await?;
        for metric in ["loaded", "init_total", "init_fail_total"] {
            ensure!(page.contains(&format!("# TYPE dapr_runtime_component_{metric} counter\n")), "{metric}: {page}");
        }
        Ok(())
    })
}
