//! What is counted, as Prometheus reads it (pubsub-behaviour, sections 13.1 and 13.2): names, types, labels, and that each
//! value moves with what happens.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::ports::listens;
use crate::harness::app::{App, Reply};
use crate::harness::brokers::{Kind, Server, topic};
use crate::harness::host::{Host, HostPlan};
use crate::harness::redis::Redis;
use crate::harness::{Test, http, plugin, resource, run, until, until_within};

/// Longer than an adapter waits before it tells how far it is behind, on a loaded machine.
const LAG_WAIT: Duration = Duration::from_secs(60);

/// Upper bounds of Dapr's buckets, milliseconds, and ours before them.
const BUCKETS: [&str; 37] = [
    "0.1", "0.25", "0.5", "1", "2", "3", "4", "5", "6", "8", "10", "13", "16", "20", "25", "30", "40", "50", "65",
    "80", "100", "130", "160", "200", "250", "300", "400", "500", "650", "800", "1000", "2000", "5000", "10000",
    "20000", "50000", "100000",
];

/// All that a host has counted so far.
pub(super) async fn page(host: &Host) -> Result<String> {
    let answer = http::get(listens(host, "metrics")?, "/metrics").await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let kind = answer.header("content-type").unwrap_or_default();
    ensure!(kind == "text/plain; version=0.0.4; charset=utf-8", "{kind}");
    Ok(answer.text())
}

/// The value of a metric with its labels, as they stand in the text: in the order of the alphabet.
pub(super) fn value(page: &str, metric: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until each of these metrics has its value, and shows all of them if one never has.
pub(super) async fn count(host: &Host, expected: &[(&str, f64)]) -> Result<()> {
    let missing = async || {
        let page = page(host).await.ok()?;
        let missing: Vec<_> = expected.iter().filter(|(metric, count)| value(&page, metric) != Some(*count)).collect();
        Some((format!("{missing:?} in\n{page}"), missing.is_empty()))
    };
    let all = until("the counts", async || missing().await.filter(|(_, all)| *all)).await;
    match all {
        Ok(_) => Ok(()),
        Err(late) => anyhow::bail!("{late}: {}", missing().await.map(|(missing, _)| missing).unwrap_or_default()),
    }
}

async fn app_and(test: &Test, resources: &[String]) -> Result<(App, HostPlan)> {
    let app = App::start().await?;
    let mut plan = test.host("me")?;
    for resource in resources {
        plan = plan.resource(resource)?;
    }
    Ok((app, plan))
}

/// Section 13.1: each request is counted once, by whether it succeeded; the namespace is that of the environment, as it is.
#[test]
fn publishes() -> Result<()> {
    run(async |test| {
        let scoped = resource::component("bus", "pubsub.in-memory", &[("publishingScopes", "me=t")]);
        let host = test.host("me")?.resource(scoped)?.env("NAMESPACE", "prod").start().await?;
        ensure!(!page(&host).await?.contains("egress"), "nothing was published yet");
        let at = host.http()?;
        let labels = |success: &str, topic: &str| {
            format!(r#"{{app_id="me",component="bus",namespace="prod",success="{success}",topic="{topic}"}}"#)
        };
        let (good, bad) = (labels("true", "t"), labels("false", "other"));
        let entry = |id: &str, event: &str| json!({"entryId": id, "event": event, "contentType": "text/plain"});
        let name = "dapr_component_pubsub_egress";
        for round in [1.0, 2.0] {
            http::publish_ok(at, "bus/t", "{}").await?;
            ensure!(http::publish(at, "bus/other", "{}").await?.status == 403);
            ensure!(http::publish(at, "nobody/t", "{}").await?.status == 404, "of no component: not counted");
            let entries = json!([entry("1", "a"), entry("2", "b")]).to_string();
            let headers = [("content-type", "application/json")];
            for path in ["/v1.0-alpha1/publish/bulk/bus/t", "/v1.0/publish/bulk/bus/t"] {
                ensure!(http::send(at, "POST", path, &headers, entries.as_bytes()).await?.status == 204, "{path}");
            }
            let expected = [
                (format!("{name}_count{good}"), round),
                (format!("{name}_count{bad}"), round),
                (format!("{name}_latencies_count{good}"), round),
                (format!("{name}_latencies_count{bad}"), round),
                (format!("{name}_bulk_count{good}"), 2.0 * round),
                (format!("{name}_bulk_latencies_count{good}"), 2.0 * round),
            ];
            let expected: Vec<(&str, f64)> = expected.iter().map(|(metric, count)| (metric.as_str(), *count)).collect();
            count(&host, &expected).await?;
        }
        let page = page(&host).await?;
        for (metric, kind) in [
            ("egress_count", "counter"),
            ("egress_latencies", "histogram"),
            ("egress_bulk_count", "counter"),
            ("egress_bulk_latencies", "histogram"),
        ] {
            ensure!(page.contains(&format!("# TYPE dapr_component_pubsub_{metric} {kind}\n")), "{metric}: {page}");
        }
        let bucket = format!("{name}_latencies_bucket{}", good.replace('}', ",le=\""));
        let bounds: Vec<&str> =
            page.lines().filter_map(|line| Some(line.strip_prefix(&bucket)?.split_once('"')?.0)).collect();
        ensure!(bounds.split_last() == Some((&"+Inf", &BUCKETS)), "{bounds:?}");
        ensure!(!page.contains("nobody"), "{page}");
        Ok(())
    })
}

/// Section 13.1: an app without a namespace has the label all the same, and it is empty.
#[test]
fn the_labels_of_what_is_delivered() -> Result<()> {
    let labels = |process: &str, status: &str| {
        format!(
            r#"{{app_id="me",component="bus",namespace="",process_status="{process}",status="{status}",topic="t"}}"#
        )
    };
    let (success, retry, drop, dead) =
        (labels("success", "success"), labels("retry", "retry"), labels("drop", "success"), labels("drop", "drop"));
    let mine = r#"{app_id="me",component="bus",topic="t"}"#;
    let reason = |reason: &str| format!(r#"{{app_id="me",component="bus",reason="{reason}",topic="t"}}"#);
    run(async |test| {
        let retries = "{retries: {again: {policy: constant, duration: 20ms, maxRetries: 2}}}";
        let resources = [
            resource::queue("bus"),
            resource::subscription("bus", "t", "/in", Some("dead")),
            resource::subscription("bus", "dead", "/dead", None),
            resource::inbound("bus", retries, "{retry: again}"),
        ];
        let (app, plan) = app_and(test, &resources).await?;
        // Success; success at the second attempt; none at all; one that the app does not want.
        let replies = [200, 500, 200, 500, 500, 500].map(Reply::status);
        app.plan("/in", replies.into_iter().chain([Reply::word("DROP"), Reply::ok()]));
        let host = plan.app(&app).start().await?;
        for (number, seen) in [(1, 1), (2, 3), (3, 6), (4, 7)] {
            http::publish_ok(host.http()?, "bus/t", &number.to_string()).await?;
            app.wait_for(seen, "/in").await?;
        }
        // The broker knows nothing of this one's age.
        let late =
            r#"{"id": "5", "source": "a", "type": "b", "specversion": "1.0", "expiration": "2020-01-01T00:00:00Z"}"#;
        let headers = [("content-type", "application/cloudevents+json")];
        let answer = http::send(host.http()?, "POST", "/v1.0/publish/bus/t", &headers, late.as_bytes()).await?;
        ensure!(answer.status == 204, "{}", answer.text());
        // It is too late for whoever reads dead letters, too.
        app.wait_for(2, "/dead").await?;
        let metric = |name: &str, labels: &str| format!("{name}{labels}");
        let expected = [
            (metric("dapr_component_pubsub_ingress_count", &success), 2.0),
            (metric("dapr_component_pubsub_ingress_count", &retry), 4.0),
            (metric("dapr_component_pubsub_ingress_count", &drop), 1.0),
            (metric("dapr_component_pubsub_ingress_count", &dead), 3.0),
            (metric("dapr_component_pubsub_ingress_latencies_count", &success), 2.0),
            (metric("dapr_component_pubsub_ingress_latencies_count", &retry), 4.0),
            // No app was called for the dead letter itself.
            (metric("dapr_component_pubsub_ingress_latencies_count", &dead), 0.0),
            (metric("whimbrel_delivery_attempts_total", mine), 7.0),
            (metric("whimbrel_delivery_further_attempts_total", mine), 3.0),
            (metric("whimbrel_dead_letters_total", &reason("exhausted")), 1.0),
            (metric("whimbrel_dead_letters_total", &reason("dropped")), 1.0),
            (metric("whimbrel_dead_letters_total", &reason("expired")), 1.0),
            (metric("whimbrel_deliveries_in_flight", mine), 0.0),
        ];
        let expected: Vec<(&str, f64)> = expected.iter().map(|(metric, count)| (metric.as_str(), *count)).collect();
        count(&host, &expected).await?;
        let page = page(&host).await?;
        for (metric, kind) in [
            ("dapr_component_pubsub_ingress_count", "counter"),
            ("dapr_component_pubsub_ingress_latencies", "histogram"),
            ("whimbrel_delivery_attempts_total", "counter"),
            ("whimbrel_dead_letters_total", "counter"),
            ("whimbrel_deliveries_in_flight", "gauge"),
        ] {
            ensure!(page.contains(&format!("# TYPE {metric} {kind}\n")), "{metric}: {page}");
        }
        Ok(())
    })
}

/// Section 13.1, and why: what no rule takes, what the app does not want, what comes again without an end.
#[test]
fn why_messages_are_dropped_and_given_back() -> Result<()> {
    run(async |test| {
        let unrouted = "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: u}\nspec:\n  pubsubname: bus\n  topic: u\n  \
                        routes:\n    rules:\n    - match: event.type == \"nothing\"\n      path: /in\n";
        let resources = [resource::queue("bus"), resource::subscription("bus", "t", "/in", None), unrouted.to_owned()];
        let (app, plan) = app_and(test, &resources).await?;
        app.plan("/in", [Reply::word("DROP"), Reply::status(500), Reply::ok()]);
        let host = plan.app(&app).start().await?;
        for topic in ["u", "t", "t"] {
            http::publish_ok(host.http()?, &format!("bus/{topic}"), "{}").await?;
        }
        app.wait_for(3, "/in").await?;
        let dropped = |reason: &str, topic: &str| {
            format!(r#"whimbrel_dropped_total{{app_id="me",component="bus",reason="{reason}",topic="{topic}"}}"#)
        };
        let (unwanted, unrouted) = (dropped("dropped", "t"), dropped("unrouted", "u"));
        let ingress = r#"dapr_component_pubsub_ingress_count{app_id="me",component="bus",namespace="","#;
        let counted = format!(r#"{ingress}process_status="drop",status="success",topic="u"}}"#);
        let back = r#"whimbrel_given_back_total{app_id="me",component="bus",reason="exhausted",topic="t"}"#;
        count(&host, &[(&unwanted, 1.0), (&unrouted, 1.0), (&counted, 1.0), (back, 1.0)]).await
    })
}

/// Ours: what a circuit breaker keeps from the app is given back, and that is why.
#[test]
fn what_a_breaker_keeps_away() -> Result<()> {
    run(async |test| {
        let breaker = "{circuitBreakers: {one: {maxRequests: 1, timeout: 10m, trip: consecutiveFailures > 0}}}";
        let resources = [
            resource::queue("bus"),
            resource::subscription("bus", "t", "/in", None),
            resource::inbound("bus", breaker, "{circuitBreaker: one}"),
        ];
        let (app, plan) = app_and(test, &resources).await?;
        app.plan("/in", [Reply::status(500)]);
        let host = plan.app(&app).start().await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        let given_back = r#"whimbrel_given_back_total{app_id="me",component="bus",reason="breaker_open",topic="t"}"#;
        let is_counted = async || (value(&page(&host).await.ok()?, given_back)? >= 1.0).then_some(());
        until("the breaker to keep it from the app", is_counted).await?;
        let attempts = r#"whimbrel_delivery_attempts_total{app_id="me",component="bus",topic="t"}"#;
        count(&host, &[(attempts, 1.0)]).await
    })
}

/// Section 13.2: error codes, only where the configuration wants them.
#[test]
fn error_codes() -> Result<()> {
    run(async |test| {
        for (spec, is_counted) in [("{metrics: {recordErrorCodes: true}}", true), ("{}", false)] {
            let host = super::configuration::plan(test, spec)?.start().await?;
            for _ in 0..2 {
                ensure!(http::publish(host.http()?, "nobody/t", "{}").await?.status == 404);
            }
            ensure!(http::get(host.http()?, "/nothing/of/ours").await?.status == 404);
            http::publish_ok(host.http()?, "bus/t", "{}").await?;
            let page = page(&host).await?;
            let counted = |category: &str, code: &str| {
                let labels = format!(r#"app_id="me",category="{category}",error_code="{code}""#);
                value(&page, &format!("dapr_error_code_total{{{labels}}}"))
            };
            let counts =
                (counted("pubsub", "ERR_PUBSUB_NOT_FOUND"), counted("service-invocation", "ERR_DIRECT_INVOKE"));
            ensure!(counts == if is_counted { (Some(2.0), Some(1.0)) } else { (None, None) }, "{page}");
        }
        Ok(())
    })
}

/// Section 13.1, bulk ingress: requests, and the events in them.
#[test]
fn batches() -> Result<()> {
    run(async |test| {
        let bulk = "  bulkSubscribe: {enabled: true, maxMessagesCount: 3, maxAwaitDurationMs: 60000}\n";
        let resources = [resource::queue("bus"), resource::subscription("bus", "t", "/in", None) + bulk];
        let (app, plan) = app_and(test, &resources).await?;
        app.plan("/in", [Reply::AsAsked]);
        let host = plan.app(&app).start().await?;
        let entry = |id: &str, event: &str| json!({"entryId": id, "event": event, "contentType": "text/plain"});
        let entries = json!([entry("1", "SUCCESS"), entry("2", "DROP"), entry("3", "SUCCESS")]).to_string();
        let headers = [("content-type", "application/json")];
        let path = "/v1.0/publish/bulk/bus/t";
        ensure!(http::send(host.http()?, "POST", path, &headers, entries.as_bytes()).await?.status == 204);
        app.wait_for(1, "/in").await?;
        let labels = |process: &str| {
            format!(r#"{{app_id="me",component="bus",namespace="",process_status="{process}",topic="t"}}"#)
        };
        let name = "dapr_component_pubsub_ingress_bulk";
        let requests = (format!("{name}_count{}", labels("")), format!("{name}_latencies_count{}", labels("")));
        let events = ["success", "drop"].map(|process| format!("{name}_event_count{}", labels(process)));
        let expected = [(&*requests.0, 1.0), (&*requests.1, 1.0), (&*events[0], 2.0), (&*events[1], 1.0)];
        count(&host, &expected).await
    })
}

/// Ours: what is under way, while it is.
#[test]
fn what_is_in_flight() -> Result<()> {
    run(async |test| {
        let resources = [resource::queue("bus"), resource::subscription("bus", "t", "/in", None)];
        let (mut app, plan) = app_and(test, &resources).await?;
        app.plan("/in", [Reply::Never, Reply::Never, Reply::Never, Reply::ok()]);
        let host = plan.app(&app).start().await?;
        for number in 0..3 {
            http::publish_ok(host.http()?, "bus/t", &number.to_string()).await?;
        }
        let gauge = r#"whimbrel_deliveries_in_flight{app_id="me",component="bus",topic="t"}"#;
        count(&host, &[(gauge, 3.0)]).await?;
        // One that is on its way still would be the app's after its crash, and get the answer that never comes.
        app.wait_for(3, "/in").await?;
        // Their connections break, they are given back, and succeed at last.
        app.crash().await;
        app.start_again().await?;
        app.wait_for(6, "/in").await?;
        count(&host, &[(gauge, 0.0)]).await
    })
}

/// Ours: what each plugin takes up. Processor time grows with what it does, memory is that of its instances.
#[test]
fn what_plugins_take_up() -> Result<()> {
    run(async |test| {
        let handler = resource::handler("worker", plugin::misbehaving_handler(), &[("bus", "t", None)], "{}");
        let host = test.host("me")?.resource(resource::queue("bus"))?.resource(handler)?.start().await?;
        let of = |name: &str, component: &str, kind: &str| {
            format!(r#"whimbrel_plugin_{name}{{component="{component}",kind="{kind}"}}"#)
        };
        let metrics = [
            of("cpu_seconds_total", "bus", "broker"),
            of("memory_bytes", "bus", "broker"),
            of("cpu_seconds_total", "worker", "handler"),
            of("memory_bytes", "worker", "handler"),
        ];
        let read = async || {
            let page = page(&host).await?;
            let found: Vec<f64> = metrics.iter().filter_map(|metric| value(&page, metric)).collect();
            found.try_into().map_err(|_| anyhow::anyhow!("not all of {metrics:?} in\n{page}"))
        };
        let before: [f64; 4] = read().await?;
        ensure!(before[0] > 0.0 && before[1] > 64.0 * 1024.0, "the adapter has opened: {before:?}");
        ensure!(before[3] == 0.0, "no event, no instance: {before:?}");
        for _ in 0..50 {
            http::publish_ok(host.http()?, "bus/t", "{}").await?;
        }
        let attempts = r#"whimbrel_delivery_attempts_total{app_id="worker",component="bus",topic="t"}"#;
        until("the events to be handled", async || (value(&page(&host).await.ok()?, attempts)? >= 50.0).then_some(()))
            .await?;
        let after: [f64; 4] = read().await?;
        ensure!(after[0] > before[0] && after[2] > before[2], "processor time: {before:?} {after:?}");
        ensure!(after[3] > 64.0 * 1024.0, "memory: {before:?} {after:?}");
        // Seconds, and not some smaller unit; the whole test takes less than its bound on every core.
        ensure!(after[0] < 1000.0 && after[2] < 1000.0, "{after:?}");
        let page = page(&host).await?;
        ensure!(page.contains("# TYPE whimbrel_plugin_cpu_seconds_total counter\n"), "{page}");
        ensure!(page.contains("# TYPE whimbrel_plugin_memory_bytes gauge\n"), "{page}");
        Ok(())
    })
}

/// An app that holds two messages of twelve, and then takes them all: how far its group is behind meanwhile, as the broker
/// tells. The host takes no more than two messages at a time.
async fn check_lag(plan: HostPlan, group: &str, topic: &str) -> Result<(Host, String)> {
    let mut app = App::start().await?;
    app.plan("/in", [Reply::Never, Reply::Never, Reply::ok()]);
    let host = plan.app(&app).start().await?;
    for number in 0..12 {
        http::publish_ok(host.http()?, &format!("bus/{topic}"), &number.to_string()).await?;
    }
    let gauge = format!(r#"whimbrel_lag_messages{{component="bus",group="{group}",topic="{topic}"}}"#);
    let told = async |wanted: f64| {
        let is_told = async || (value(&page(&host).await.ok()?, &gauge)? == wanted).then_some(());
        until_within(LAG_WAIT, &format!("{gauge} to be {wanted}"), is_told).await
    };
    // Two are in flight, and the app has both.
    told(10.0).await?;
    app.wait_for(2, "/in").await?;
    app.crash().await;
    app.start_again().await?;
    told(0.0).await?;
    ensure!(page(&host).await?.contains("# TYPE whimbrel_lag_messages gauge\n"));
    Ok((host, gauge))
}

/// Ours: how far a group is behind, as the broker tells; and nothing once nobody subscribes any more.
#[test]
fn how_far_a_group_is_behind() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let broker = resource::redis("bus", redis.address(), &[("concurrency", "2"), ("queueDepth", "2")]);
        let plan = test.host("me")?.resource(broker)?.resource(resource::subscription("bus", "t", "/in", None))?;
        let (host, gauge) = check_lag(plan.clone(), "me", "t").await?;
        let subscription = resource::subscription("bus", "other", "/in", None);
        plan.file("01.yaml", subscription)?;
        until("the subscription to be gone", async || (!page(&host).await.ok()?.contains(&gauge)).then_some(())).await
    })
}

/// The same at a broker that all tests share.
fn check_lag_at(kind: Kind) -> Result<()> {
    run(async |test| {
        let (broker, group, topic) = (Server::shared(kind).await?, topic("shop"), topic("orders"));
        broker.prepare(&topic).await?;
        let two = resource::subscription("bus", &topic, "/in", None) + "  metadata:\n    maxUnsettled: \"2\"\n";
        let plan = test.host(&group)?.resource(broker.component("bus", &[]))?.resource(two)?;
        check_lag(plan, &group, &topic).await.map(drop)
    })
}

#[test]
fn how_far_a_group_is_behind_at_jetstream() -> Result<()> {
    check_lag_at(Kind::Nats)
}

#[test]
fn how_far_a_group_is_behind_at_rabbitmq() -> Result<()> {
    check_lag_at(Kind::RabbitMq)
}

#[test]
fn how_far_a_group_is_behind_at_kafka() -> Result<()> {
    check_lag_at(Kind::Kafka)
}

/// Section 13.1: `spec.metrics.rules`.
#[test]
fn rules_put_values_together() -> Result<()> {
    run(async |test| {
        let rules = r#"{metrics: {rules: [{name: dapr_component_pubsub_egress_count, labels: [{name: topic, regex: {"orders/": "^orders/.+"}}]}]}}"#;
        let host = super::configuration::plan(test, rules)?.start().await?;
        for topic in ["orders%2F1", "orders%2F2", "others"] {
            http::publish_ok(host.http()?, &format!("bus/{topic}"), "{}").await?;
        }
        let egress = |name: &str, topic: &str| {
            let labels = format!(r#"app_id="me",component="bus",namespace="",success="true",topic="{topic}""#);
            format!("dapr_component_pubsub_egress_{name}{{{labels}}}")
        };
        let expected = [egress("count", "orders/"), egress("count", "others"), egress("latencies_count", "orders/1")];
        count(&host, &[(&expected[0], 2.0), (&expected[1], 1.0), (&expected[2], 1.0)]).await
    })
}

/// Only this is asked for, by whoever can reach the port, with or without a token.
#[test]
fn the_port_of_the_metrics_has_nothing_else() -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.env("DAPR_API_TOKEN", "secret");
        let host = plan.start().await?;
        page(&host).await?;
        let at = listens(&host, "metrics")?;
        for (method, path) in [("GET", "/"), ("POST", "/metrics"), ("GET", "/v1.0/metadata"), ("GET", "/v1.0/healthz")]
        {
            let answer = http::send(at, method, path, &[], b"").await?;
            ensure!(answer.status == 404, "{method} {path}: {}", answer.status);
        }
        Ok(())
    })
}

/// Section 12.8, `--enable-metrics`, `--metrics-port`, `--metrics-listen-address`.
#[test]
fn metrics_are_served_where_they_are_asked_for() -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.flag("--metrics-listen-address", "127.0.0.2");
        let host = plan.start().await?;
        let at = listens(&host, "metrics")?;
        ensure!(at.ip().to_string() == "127.0.0.2", "{at}");
        page(&host).await?;
        let taken = at.port().to_string();
        let other = test.host("other")?.resource(resource::in_memory("bus"))?;
        let other = other.flag("--metrics-listen-address", "127.0.0.2").flag("--metrics-port", &taken);
        let ended = other.run_to_the_end().await?;
        ensure!(ended.code == Some(1) && ended.log.contains("--metrics-port"), "{ended:?}");
        let none = test.host("none")?.resource(resource::in_memory("bus"))?;
        let host = none.flag("--enable-metrics=false", "--log-level=info").start().await?;
        ensure!(listens(&host, "metrics").is_err());
        host.log()?.lines().find(|line| line.ends_with("ready")).context("it runs")?;
        Ok(())
    })
}
