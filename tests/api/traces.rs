//! Traces (pubsub-behaviour 13.3): a publish and its deliveries stand in one trace, a collector hears of what is sampled, and
//! none of it is in anybody's way.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};

use super::configuration::plan;
use crate::harness::app::{App, Reply, Seen};
use crate::harness::certificates::Authority;
use crate::harness::collector::{Collector, Span};
use crate::harness::host::{Host, HostPlan};
use crate::harness::http::{self, Answer};
use crate::harness::{Test, plugin, resource, run, until};

const NONE: &str = "00-00000000000000000000000000000000-0000000000000000-00";
const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SENT_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENT_SPAN: &str = "b7ad6b7169203331";

/// What nobody may read anywhere.
const SECRET: &str = "hunter2-of-the-collector";

/// An exporter's settings, as they stand in the configuration.
fn otel(address: SocketAddr, protocol: &str) -> String {
    format!(
        "otel: {{endpointAddress: \"{address}\", isSecure: false, protocol: {protocol}, timeout: 2s, \
         headers: \"x-key={SECRET}\"}}"
    )
}

/// A host that is traced like this, and its app with a subscription to `t` at `/in`.
async fn traced(test: &Test, tracing: &str) -> Result<(App, HostPlan)> {
    let app = App::start().await?;
    let plan = plan(test, &format!("{{tracing: {{{tracing}}}}}"))?.app(&app);
    Ok((app, plan.resource(resource::subscription("bus", "t", "/in", None))?))
}

async fn publish(host: &Host, place: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    let all = [&[("content-type", "application/json")][..], headers].concat();
    http::send(host.http()?, "POST", &format!("/v1.0/publish/{place}"), &all, body.as_bytes()).await
}

/// `traceparent` of the answer to a publish that went well.
async fn published(host: &Host, headers: &[(&str, &str)]) -> Result<String> {
    let answer = publish(host, "bus/t", headers, "1").await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    Ok(answer.header("traceparent").context("no traceparent")?.to_owned())
}

fn context(span: &Span) -> String {
    format!("00-{}-{}-01", span.trace, span.id)
}

fn header<'a>(seen: &'a Seen, name: &str) -> Option<&'a str> {
    seen.headers.get(name).map(String::as_str)
}

fn find<'a>(spans: &'a [Span], name: &str) -> Result<&'a Span> {
    spans.iter().find(|span| span.name == name).with_context(|| format!("no span {name} in {spans:?}"))
}

fn check_attributes(span: &Span, expect: &[(&str, &str)]) -> Result<()> {
    for (name, value) in expect {
        ensure!(span.attributes.get(*name).is_some_and(|found| found == value), "{name}: {span:?}");
    }
    Ok(())
}

/// Publisher, publish, delivery and app: each in its place.
fn check_connected(protocol: &'static str, sent: Option<&str>) -> Result<()> {
    run(async |test| {
        let collector = Collector::start().await?;
        let (app, plan) =
            traced(test, &format!("samplingRate: \"1\", {}", otel(collector.address(), protocol))).await?;
        let mut host = plan.start().await?;
        let mut headers = vec![("dapr-color", "blue"), ("tracestate", "a=b")];
        headers.extend(sent.map(|sent| ("traceparent", sent)));
        let answered = published(&host, &headers).await?;
        let seen = app.wait_for(1, "/in").await?.remove(0);
        let spans = collector.wait_for(2).await?;
        ensure!(spans.len() == 2, "{spans:?}");
        let (publish, delivery) = (find(&spans, "/v1.0/publish/bus/t")?, find(&spans, "pubsub/t")?);

        match sent {
            Some(_) => {
                ensure!(publish.trace == SENT_TRACE && publish.parent == SENT_SPAN && publish.state == "a=b");
                ensure!(seen.event()?["tracestate"] == "a=b" && delivery.state == "a=b", "{delivery:?}");
            }
            None => ensure!(publish.parent.is_empty() && publish.state.is_empty(), "{publish:?}"),
        }
        ensure!(answered == context(publish), "{answered}: {publish:?}");
        let event = seen.event()?;
        ensure!(event["traceparent"] == context(publish) && event["traceid"] == context(publish), "{event}");
        ensure!(delivery.trace == publish.trace && delivery.parent == publish.id, "{delivery:?}");
        ensure!(header(&seen, "traceparent") == Some(context(delivery).as_str()), "{:?}", seen.headers);

        let at = host.http()?;
        ensure!(publish.kind == SpanKind::Client && delivery.kind == SpanKind::Client);
        ensure!(publish.service == "me" && publish.error.is_none() && delivery.error.is_none(), "{spans:?}");
        let both = [("messaging.system", "pubsub"), ("messaging.destination.name", "t")];
        check_attributes(publish, &both)?;
        check_attributes(delivery, &both)?;
        check_attributes(
            publish,
            &[
                ("dapr.api", "POST /v1.0/publish/bus/t"),
                ("dapr.protocol", "http"),
                ("dapr.status_code", "204"),
                ("dapr-color", "blue"),
                ("http.request.method", "POST"),
                ("url.full", &format!("http://{at}/v1.0/publish/bus/t")),
                ("server.address", "127.0.0.1"),
                ("server.port", &at.port().to_string()),
            ],
        )?;
        check_attributes(delivery, &[("whimbrel.attempt", "1")])?;

        for received in collector.received() {
            ensure!(received.is_grpc == (protocol == "grpc"));
            ensure!(received.headers.get("x-key").is_some_and(|key| key == SECRET), "{:?}", received.headers);
        }
        let ended = host.stop().await?;
        ensure!(ended.code == Some(0) && !ended.log.contains(SECRET), "{ended:?}");
        ensure!(!ended.log.contains("not exported"), "{}", ended.log);
        Ok(())
    })
}

#[test]
fn over_http_a_publish_and_its_delivery_are_one_trace() -> Result<()> {
    check_connected("http", None)
}

#[test]
fn over_grpc_a_publish_and_its_delivery_are_one_trace() -> Result<()> {
    check_connected("grpc", None)
}

#[test]
fn over_http_they_belong_to_the_publishers_trace() -> Result<()> {
    check_connected("http", Some(SENT))
}

#[test]
fn over_grpc_they_belong_to_the_publishers_trace() -> Result<()> {
    check_connected("grpc", Some(SENT))
}

#[test]
fn each_entry_of_a_bulk_publish_has_a_span_of_its_own() -> Result<()> {
    run(async |test| {
        let collector = Collector::start().await?;
        let (app, plan) = traced(test, &format!("samplingRate: 1, {}", otel(collector.address(), "http"))).await?;
        let host = plan.start().await?;
        let entry = |id: &str| json!({"entryId": id, "event": id, "contentType": "text/plain"});
        let answer = publish(&host, "bulk/bus/t", &[], &json!([entry("a"), entry("b")]).to_string()).await?;
        ensure!(answer.status == 204, "{}", answer.text());
        let seen = app.wait_for(2, "/in").await?;
        let spans = collector.wait_for(5).await?;
        let call = find(&spans, "/v1.0/publish/bulk/bus/t")?;
        ensure!(answer.header("traceparent") == Some(context(call).as_str()), "{spans:?}");
        let entries: Vec<_> = spans.iter().filter(|span| span.name == "publish t").collect();
        ensure!(entries.len() == 2 && entries[0].id != entries[1].id, "{spans:?}");
        for entry in entries {
            ensure!(entry.kind == SpanKind::Producer && entry.trace == call.trace && entry.parent == call.id);
            let delivery = spans.iter().find(|span| span.name == "pubsub/t" && span.parent == entry.id);
            let told = context(delivery.context("a delivery under it")?);
            let seen = seen
                .iter()
                .find(|seen| header(seen, "traceparent") == Some(told.as_str()))
                .context("an app told so")?;
            ensure!(seen.event()?["traceparent"] == context(entry));
        }
        Ok(())
    })
}

#[test]
fn events_of_a_batch_are_each_in_their_own_trace() -> Result<()> {
    run(async |test| {
        let collector = Collector::start().await?;
        let app = App::start().await?;
        let tracing = format!("{{tracing: {{samplingRate: 1, {}}}}}", otel(collector.address(), "http"));
        let bulk = "  bulkSubscribe: {enabled: true, maxMessagesCount: 2, maxAwaitDurationMs: 60000}\n";
        let subscription = resource::subscription("bus", "t", "/in", None) + bulk;
        let plan = plan(test, &tracing)?.resource_instead(0, &resource::queue("bus"))?.resource(subscription)?;
        app.plan("/in", [Reply::AsAsked]);
        let host = plan.app(&app).start().await?;
        for word in ["SUCCESS", "DROP"] {
            publish(&host, "bus/t", &[], &json!(word).to_string()).await?;
        }
        let seen = app.wait_for(1, "/in").await?;
        ensure!(seen[0].batch()?.len() == 2 && header(&seen[0], "traceparent") == Some(NONE), "{seen:?}");
        let spans = collector.wait_for(4).await?;
        let deliveries: Vec<_> = spans.iter().filter(|span| span.name == "pubsub/t").collect();
        ensure!(deliveries.len() == 2 && deliveries[0].trace != deliveries[1].trace, "{spans:?}");
        for delivery in deliveries {
            let publish = spans.iter().find(|span| span.id == delivery.parent).context("its publish")?;
            ensure!(publish.trace == delivery.trace && delivery.error.is_none(), "{spans:?}");
        }
        Ok(())
    })
}

#[test]
fn what_a_handler_publishes_goes_on_in_the_trace() -> Result<()> {
    run(async |test| {
        let collector = Collector::start().await?;
        let (app, plan) = traced(test, &format!("samplingRate: 1, {}", otel(collector.address(), "http"))).await?;
        let handler = resource::handler("worker", plugin::misbehaving_handler(), &[("bus", "work", None)], "{}");
        let host = plan.resource(handler)?.start().await?;
        let work = json!({"do": "publish", "pubsub": "bus", "topic": "t"}).to_string();
        let answer = publish(&host, "bus/work", &[("traceparent", SENT)], &work).await?;
        ensure!(answer.status == 204, "{}", answer.text());
        let seen = app.wait_for(1, "/in").await?.remove(0);
        let spans = collector.wait_for(4).await?;
        let chain = ["/v1.0/publish/bus/work", "pubsub/work", "whimbrel:pubsub/publisher.publish", "pubsub/t"];
        let mut parent = SENT_SPAN.to_owned();
        for name in chain {
            let span = find(&spans, name)?;
            ensure!(span.trace == SENT_TRACE && span.parent == parent, "{name}: {spans:?}");
            parent.clone_from(&span.id);
        }
        ensure!(header(&seen, "traceparent") == Some(format!("00-{SENT_TRACE}-{parent}-01").as_str()));
        Ok(())
    })
}

#[test]
fn what_fails_is_told_as_failed() -> Result<()> {
    run(async |test| {
        let collector = Collector::start().await?;
        let (app, plan) = traced(test, &format!("samplingRate: 1, {}", otel(collector.address(), "http"))).await?;
        app.plan("/in", [Reply::status(500), Reply::word("RETRY"), Reply::ok()]);
        let policies = "{retries: {again: {policy: constant, duration: 20ms, maxRetries: 5}}}";
        let host = plan.resource(resource::inbound("bus", policies, "{retry: again}"))?.start().await?;
        published(&host, &[]).await?;
        ensure!(publish(&host, "nowhere/t", &[], "1").await?.status == 404);
        app.wait_for(3, "/in").await?;
        let spans = collector.wait_for(5).await?;
        let refused = find(&spans, "/v1.0/publish/nowhere/t")?;
        ensure!(refused.error.as_deref() == Some("Code(404): Not Found"), "{refused:?}");
        check_attributes(refused, &[("dapr.status_code", "404")])?;
        let expect = [Some("the app answered 500"), Some("the subscriber asked for another attempt"), None];
        for (attempt, expect) in (1..).zip(expect) {
            let attempt = format!("{attempt}");
            let of_attempt = |span: &&Span| span.attributes.get("whimbrel.attempt") == Some(&attempt);
            let span = spans.iter().find(of_attempt).with_context(|| format!("attempt {attempt}: {spans:?}"))?;
            ensure!(span.error.as_deref() == expect, "{span:?}");
        }
        Ok(())
    })
}

/// A trace that is not sampled goes on, as not sampled; nobody is told of it.
#[test]
fn what_is_not_sampled_is_not_exported() -> Result<()> {
    run(async |test| {
        let collector = Collector::start().await?;
        let (app, plan) =
            traced(test, &format!("samplingRate: 0.000000001, {}", otel(collector.address(), "http"))).await?;
        let mut host = plan.start().await?;
        let unsampled = SENT.replace("-01", "-00");
        let answered = [published(&host, &[]).await?, published(&host, &[("traceparent", &unsampled)]).await?];
        let seen = app.wait_for(2, "/in").await?;
        for (answered, seen) in answered.iter().zip(&seen) {
            ensure!(answered.ends_with("-00") && answered != NONE, "{answered}");
            ensure!(seen.event()?["traceparent"] == answered.as_str());
            let told = header(seen, "traceparent").context("no traceparent")?;
            ensure!(told[..35] == answered[..35] && told != answered && told.ends_with("-00"), "{told}");
        }
        ensure!(answered[1][3..35] == *SENT_TRACE, "{answered:?}");
        // Who is sampled takes what follows along.
        published(&host, &[("traceparent", SENT)]).await?;
        app.wait_for(3, "/in").await?;
        host.stop().await?;
        let spans = collector.spans()?;
        ensure!(spans.len() == 2 && spans.iter().all(|span| span.trace == SENT_TRACE), "{spans:?}");
        Ok(())
    })
}

#[test]
fn at_a_rate_of_zero_there_are_no_traces() -> Result<()> {
    run(async |test| {
        let collector = Collector::start().await?;
        let (app, plan) = traced(test, &format!("samplingRate: \"0\", {}", otel(collector.address(), "http"))).await?;
        let mut host = plan.start().await?;
        let answer = publish(&host, "bus/t", &[("traceparent", SENT), ("tracestate", "a=b")], "1").await?;
        ensure!(answer.status == 204 && answer.header("traceparent").is_none(), "{answer:?}");
        let seen = app.wait_for(1, "/in").await?.remove(0);
        let event = seen.event()?;
        ensure!(["traceparent", "traceid", "tracestate"].iter().all(|name| event[name] == ""), "{event}");
        ensure!(header(&seen, "traceparent").is_none(), "{:?}", seen.headers);
        host.stop().await?;
        ensure!(collector.received().is_empty());
        Ok(())
    })
}

#[test]
fn the_last_spans_are_exported_before_the_end() -> Result<()> {
    run(async |test| {
        let collector = Collector::start().await?;
        let (app, plan) = traced(test, &format!("samplingRate: 1, {}", otel(collector.address(), "grpc"))).await?;
        let mut host = plan.start().await?;
        let count = 700;
        for _ in 0..count {
            published(&host, &[]).await?;
        }
        app.wait_for(count, "/in").await?;
        let ended = host.stop().await?;
        ensure!(ended.code == Some(0), "{ended:?}");
        ensure!(collector.spans()?.len() == 2 * count, "{}", collector.spans()?.len());
        Ok(())
    })
}

/// The counter of what was lost, by reason.
async fn lost(host: &Host, reason: &str) -> Result<Option<u64>> {
    let log = host.log()?;
    let (_, at) = log.split_once("listening metrics=").context("no metrics")?;
    let page = http::get(at.split_whitespace().next().context("an address")?.parse()?, "/metrics").await?.text();
    let name = format!("whimbrel_spans_dropped_total{{reason=\"{reason}\"}} ");
    Ok(page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()))
}

/// Nothing listens where the traces go to: all is published and delivered, what is lost is counted, and the host ends.
fn check_away(protocol: &'static str) -> Result<()> {
    run(async |test| {
        // Bound, so that it is nobody else's, and not listening.
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse()?)?;
        let tracing = format!("samplingRate: 1, {}", otel(socket.local_addr()?, protocol));
        let (app, plan) = traced(test, &tracing).await?;
        let mut host = plan.start().await?;
        for _ in 0..20 {
            published(&host, &[]).await?;
        }
        app.wait_for(20, "/in").await?;
        until("a loss to be counted", async || lost(&host, "export").await.ok().flatten().filter(|lost| *lost > 0))
            .await?;
        let ended = host.stop().await?;
        ensure!(ended.code == Some(0) && !ended.log.contains(SECRET), "{ended:?}");
        ensure!(ended.log.matches("traces are not exported, and these are lost").count() == 1, "{}", ended.log);
        Ok(())
    })
}

#[test]
fn a_collector_that_is_away_is_in_nobodys_way_over_http() -> Result<()> {
    check_away("http")
}

#[test]
fn a_collector_that_is_away_is_in_nobodys_way_over_grpc() -> Result<()> {
    check_away("grpc")
}

/// A collector behind TLS is told nothing unless the system trusts who has signed its certificate (`SSL_CERT_FILE`).
fn check_tls(protocol: &'static str) -> Result<()> {
    run(async |test| {
        let (authority, stranger) = (Authority::new(test)?, Authority::new(test)?);
        let collector = Collector::start_with_tls(&authority.sign("127.0.0.1")?).await?;
        let secure = otel(collector.address(), protocol).replace("isSecure: false", "isSecure: true");
        let start = async |trusted: &Authority| {
            let (app, plan) = traced(test, &format!("samplingRate: 1, {secure}")).await?;
            let host = plan.env("SSL_CERT_FILE", &trusted.file().to_string_lossy()).start().await?;
            anyhow::Ok((app, host))
        };

        let (app, mut host) = start(&stranger).await?;
        for count in 1..=3 {
            published(&host, &[]).await?;
            app.wait_for(count, "/in").await?;
        }
        until("a loss to be counted", async || lost(&host, "export").await.ok().flatten().filter(|lost| *lost > 0))
            .await?;
        let ended = host.stop().await?;
        ensure!(ended.code == Some(0) && collector.received().is_empty(), "{ended:?}");
        let told: Vec<_> = ended.log.lines().filter(|line| line.contains("and these are lost")).collect();
        let [told] = told[..] else { anyhow::bail!("{}", ended.log) };
        ensure!(told.contains(&collector.address().to_string()) && told.contains("invalid peer certificate"), "{told}");
        ensure!(!ended.log.contains(SECRET), "{}", ended.log);

        let (app, mut host) = start(&authority).await?;
        published(&host, &[]).await?;
        app.wait_for(1, "/in").await?;
        ensure!(collector.wait_for(2).await?.len() == 2);
        ensure!(collector.received().iter().all(|received| received.is_grpc == (protocol == "grpc")));
        let ended = host.stop().await?;
        ensure!(ended.code == Some(0) && !ended.log.contains("not exported"), "{}", ended.log);
        Ok(())
    })
}

#[test]
fn a_collector_behind_tls_must_be_trusted_over_http() -> Result<()> {
    check_tls("http")
}

#[test]
fn a_collector_behind_tls_must_be_trusted_over_grpc() -> Result<()> {
    check_tls("grpc")
}

/// It takes connections and never answers: the end of the host has its bound, too.
#[test]
fn a_collector_that_says_nothing_keeps_nobody() -> Result<()> {
    run(async |test| {
        let silent = TcpListener::bind("127.0.0.1:0").await?;
        let zipkin = format!("samplingRate: 1, zipkin: {{endpointAddress: \"http://{}\"}}", silent.local_addr()?);
        let (app, plan) = traced(test, &zipkin).await?;
        let mut host = plan.start().await?;
        published(&host, &[]).await?;
        app.wait_for(1, "/in").await?;
        let begun = tokio::time::Instant::now();
        let ended = host.stop().await?;
        ensure!(ended.code == Some(0) && begun.elapsed() < Duration::from_secs(20), "{:?} {ended:?}", begun.elapsed());
        ensure!(ended.log.contains("the last traces were not exported in time"), "{}", ended.log);
        Ok(())
    })
}

#[test]
fn zipkin_is_told_in_its_own_format() -> Result<()> {
    run(async |test| {
        let collector = Collector::start().await?;
        let zipkin =
            format!("samplingRate: 1, zipkin: {{endpointAddress: \"http://{}/api/v2/spans\"}}", collector.address());
        let (app, plan) = traced(test, &zipkin).await?;
        let mut host = plan.start().await?;
        let answered = published(&host, &[("traceparent", SENT)]).await?;
        app.wait_for(1, "/in").await?;
        host.stop().await?;
        let mut spans = Vec::new();
        for received in collector.received() {
            ensure!(received.path == "/api/v2/spans" && received.headers["content-type"] == "application/json");
            spans.extend(serde_json::from_slice::<Vec<Value>>(&received.body)?);
        }
        let named = |name: &str| spans.iter().find(|span| span["name"] == name).context("a span");
        let (publish, delivery) = (named("/v1.0/publish/bus/t")?, named("pubsub/t")?);
        ensure!(publish["traceId"] == SENT_TRACE && publish["parentId"] == SENT_SPAN, "{publish}");
        ensure!(answered[36..52] == *publish["id"].as_str().unwrap_or_default(), "{publish}");
        ensure!(delivery["traceId"] == SENT_TRACE && delivery["parentId"] == publish["id"], "{delivery}");
        ensure!(publish["localEndpoint"]["serviceName"] == "me" && publish["kind"] == "CLIENT", "{publish}");
        ensure!(publish["tags"]["dapr.status_code"] == "204", "{publish}");
        ensure!(publish["timestamp"].is_u64() && publish["duration"].is_u64(), "{publish}");
        Ok(())
    })
}

#[test]
fn the_standard_output_has_a_line_for_each() -> Result<()> {
    run(async |test| {
        let (app, plan) = traced(test, "samplingRate: 1, stdout: true").await?;
        let mut host = plan.start().await?;
        published(&host, &[("traceparent", SENT)]).await?;
        app.wait_for(1, "/in").await?;
        let log = host.stop().await?.log;
        let spans: Vec<Value> = log
            .lines()
            .filter(|line| line.starts_with("{\"span\""))
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let names: Vec<_> = spans.iter().map(|span| span["span"]["name"].as_str().unwrap_or_default()).collect();
        ensure!(spans.len() == 2 && names.contains(&"pubsub/t") && names.contains(&"/v1.0/publish/bus/t"), "{log}");
        ensure!(spans.iter().all(|span| span["span"]["trace_id"] == SENT_TRACE), "{log}");
        Ok(())
    })
}

#[test]
fn the_environment_names_a_collector() -> Result<()> {
    run(async |test| {
        let (collector, app) = (Collector::start().await?, App::start().await?);
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.app(&app);
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
        let plan = plan.env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.address()));
        let plan = plan.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf").env("OTEL_SERVICE_NAME", "shop");
        let plan = plan.env("OTEL_EXPORTER_OTLP_TRACES_HEADERS", &format!("x-key={SECRET}"));
        let mut host = plan.start().await?;
        published(&host, &[]).await?;
        app.wait_for(1, "/in").await?;
        let log = host.stop().await?.log;
        let spans = collector.spans()?;
        ensure!(spans.len() == 2 && spans.iter().all(|span| span.service == "shop"), "{spans:?}");
        let has_key = |headers: &hyper::HeaderMap| headers.get("x-key").is_some_and(|key| key == SECRET);
        ensure!(collector.received().iter().all(|received| has_key(&received.headers)));
        ensure!(!log.contains(SECRET), "{log}");
        Ok(())
    })
}

#[test]
fn what_is_wrong_with_an_exporter_is_said_without_its_secrets() -> Result<()> {
    run(async |test| {
        let otel = format!("otel: {{endpointAddress: \"http://me:{SECRET}@c:1\", headers: \"{SECRET}\"}}");
        let ended = plan(test, &format!("{{tracing: {{{otel}}}}}"))?.run_to_the_end().await?;
        ensure!(ended.code == Some(78) && !ended.log.contains(SECRET), "{ended:?}");
        for key in ["endpointAddress", "headers"] {
            ensure!(ended.log.contains(&format!("configuration:4: spec.tracing.otel.{key}: must be")), "{ended:?}");
        }
        Ok(())
    })
}
