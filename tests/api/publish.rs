//! Publishing one message: sections 0 and 1 of pubsub-behaviour.
//!
//! | rows | proved by |
//! |---|---|
//! | 1.1 methods; other paths and methods | scene `methods` |
//! | 1.1 slashes, `%2F`, `+`, cleaning, no topic, names in another case | scene `paths, seen through a scope error`; `security::requests` |
//! | 1.2 values of `rawPayload`, unknown and odd parameters | scene `publish metadata` |
//! | 1.2 `cloudevent.*`, and without effect on an event | scene `cloud event overrides by query` |
//! | 1.2 `ttl`, `ttlInSeconds` | `delivery::expiry` |
//! | 1.3 content types | scenes `content types, ...` |
//! | 1.3 traces | scene `traces` |
//! | 1.3 `dapr-api-token` | `security::files`, unit tests of `api::server` |
//! | 1.5 not found, `rawPayload`, event, scopes, entries of bulk publishes | scenes `no component at all`, `publish metadata`, `cloud events`, `scopes`, `bulk publish` |
//! | 1.5 timeouts and the like | `delivery::policies` |
//! | 1.6 4 MiB | scene `body limit` |
//! | 1.6 slow heads | `security::crowds`, unit tests of `api::server` with paused time: the 10 s |
//!
//! Not to be told apart over HTTP: an empty name or topic (the path has none), an envelope that cannot be serialised, a
//! component that vanishes within a request, the outbox.

use anyhow::{Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::better::differs;
use super::rows::{ANY, JSON, Row, check, post, publish};
use crate::harness::app::{App, Reply};
use crate::harness::host::Host;
use crate::harness::{Test, http, resource, run};

const NO_ROUTE: &str = "ERR_DIRECT_INVOKE";
const NOT_FOUND: &str = "ERR_PUBSUB_NOT_FOUND";
const METADATA: &str = "ERR_PUBSUB_REQUEST_METADATA";
const NO_EVENT: &str = "ERR_PUBSUB_CLOUD_EVENTS_SER";
const FORBIDDEN: &str = "ERR_PUBSUB_FORBIDDEN";
const FAILED: &str = "ERR_PUBSUB_PUBLISH_MESSAGE";

const NO_TRACE: &str = "00-00000000000000000000000000000000-0000000000000000-00";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Almost anything is a name.
const ODD: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: "a b+c'é#?"}
spec: {type: pubsub.in-memory, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: odd}
spec: {pubsubname: "a b+c'é#?", topic: t, route: /odd}
"#;

/// `bus` and `bulk` are Dapr's in-memory broker, `box` carries metadata, `small` takes little, `closed` allows one topic.
async fn shop(test: &Test) -> Result<(App, Host)> {
    let app = App::start().await?;
    let mut plan = test.host("me")?.resource(ODD)?;
    for name in ["bus", "bulk"] {
        plan = plan.resource(resource::in_memory(name) + &resource::subscription(name, "*", "/in", None))?;
    }
    let plan = plan.resource(resource::queue("box") + &resource::subscription("box", "t", "/box", None))?;
    let small = [("mode", "queue"), ("maxQueueBytes", "1000")];
    let small = resource::component("small", "pubsub.in-memory", &small);
    let plan = plan.resource(small + &resource::subscription("small", "t", "/small", None))?;
    let plan = plan.resource(resource::component("closed", "pubsub.in-memory", &[("allowedTopics", "open")]))?;
    let host = plan.app(&app).start().await?;
    Ok((app, host))
}

fn check_all(rows: &[Row]) -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test).await?;
        check(&host, &app, rows).await
    })
}

/// What is wrong in more than one way is told by the first of: component, body, `rawPayload`, event, scope, broker.
#[test]
fn the_order_of_the_checks() -> Result<()> {
    let raw = "?metadata.rawPayload=maybe";
    let large = vec![b'x'; 4 * 1024 * 1024 + 1];
    let to = |place: &str| post("0", format!("/v1.0/publish/{place}"));
    check_all(&[
        to(&format!("none/t{raw}")).event("no event").refused(404, NOT_FOUND),
        to("none/t").sends("text/plain", &large).refused(404, NOT_FOUND),
        to(&format!("closed/t{raw}")).sends("text/plain", &large).refused(500, FAILED),
        to(&format!("closed/t{raw}")).event("no event").refused(400, METADATA),
        to("closed/t").event("no event").refused(500, NO_EVENT),
        to("closed/t").json("{}").refused(403, FORBIDDEN),
        to("small/t").event(&"x".repeat(2000)).refused(500, NO_EVENT),
        to("small/t").sends("text/plain", "x".repeat(2000)).refused(500, FAILED),
        to("closed/open").json("{}"),
    ])
}

#[test]
fn routes_and_names() -> Result<()> {
    let to = |path: &str| post("1.1", path);
    let odd = "/v1.0/publish/a+b%2Bc'%C3%A9%23%3F/t";
    let from = |topic: &str, pubsub: &str| json!({"topic": topic, "pubsubname": pubsub});
    check_all(&[
        to("/v1.0/publish/bus/A/B/C").method("PUT").json("{}").comes("/in", from("A/B/C", "bus")),
        to("/v1.0/publish/bus/%2F").json("{}").comes("/in", from("/", "bus")),
        to("/v1.0/publish/bus/a+b%2Bc").json("{}").comes("/in", from("a b+c", "bus")),
        to("/v1.0/./publish//x/../bus/a/./b/").json("{}").comes("/in", from("a/b", "bus")),
        to("/v1.0/publish/bus/%FF")
            .differs("1.1 names that are no text")
            .status(400)
            .tells("failed to unescape request parameter"),
        to("/v1.0/publish/%FF/t").json("{}").status(400).tells("request parameter \"pubsubname\". Error: "),
        to("/v1.0/publish/bus/%FF").status(400).answers("content-type", "text/plain; charset=utf-8"),
        // A component that is named `bulk`.
        to("/v1.0/publish/bulk/a").json("{}").fenced_by("/v1.0/publish/bulk/a").comes("/in", from("a", "bulk")),
        to("/v1.0/publish/bulk/a/b").json("[]").refused(404, NOT_FOUND).answers("/message", "pubsub a is not found"),
        to("/v1.0/publish/bulk/bulk/a")
            .json(r#"[{"entryId":"1","event":"x","contentType":"text/plain"}]"#)
            .fenced_by("/v1.0/publish/bulk/a")
            .comes("/in", from("a", "bulk")),
        to("/v1.0-alpha1/publish/bulk/bus").json("[]").refused(404, NO_ROUTE),
        // Names compare exactly, and may be nearly anything.
        to("/v1.0/publish/box/T").json("{}"),
        to("/v1.0/publish/Box/t").json("{}").refused(404, NOT_FOUND),
        to(odd).json("{}").comes("/odd", from("t", "a b+c'é#?")).under("pubsubname", Some("a b+c'é#?")),
        // Any bytes, and none.
        publish("1.1", "").sends("application/octet-stream", [0, 0xff]).comes("/in", json!({"data_base64": "AP8="})),
        publish("1.1", "").comes("/in", json!({"data": "", "datacontenttype": "text/plain"})),
        publish("1.1", "").sends("application/octet-stream", "").comes("/in", json!({"data_base64": "", "data": null})),
    ])
}

#[test]
fn query_metadata() -> Result<()> {
    let row = |query: &str| publish("1.2", query).json("{}");
    let raw = |query: &str| row(query).comes("/in", json!({"id": null}));
    let wrapped = |query: &str| row(query).comes("/in", json!({"id": ANY, "type": "com.dapr.event.sent"}));
    let boxed = |query: &str| post("1.2", format!("/v1.0/publish/box/t{query}")).json("{}").comes("/box", json!({}));
    check_all(&[
        // Values of rawPayload.
        raw("?metadata.rawPayload=t"),
        raw("?metadata.rawPayload=T"),
        raw("?metadata.rawPayload=True"),
        wrapped("?metadata.rawPayload=0"),
        wrapped("?metadata.rawPayload=f"),
        wrapped("?metadata.rawPayload=F"),
        wrapped("?metadata.rawPayload=FALSE"),
        wrapped("?metadata.rawPayload=False"),
        wrapped("?metadata.rawPayload="),
        row("?metadata.rawPayload=yes").refused(400, METADATA).answers("/details/1/metadata/rawPayload", "yes"),
        row("?metadata.rawPayload=tRUE").refused(400, METADATA),
        // The prefix is exact, the first of a name counts.
        wrapped("?Metadata.rawPayload=true"),
        wrapped("?metadata.rawPayload=false&metadata.rawPayload=true"),
        raw("?metadata.rawPayload=1&metadata.rawPayload=0"),
        row("?metadata.cloudevent.id=a&metadata.cloudevent.id=b").comes("/in", json!({"id": "a"})),
        row("?metadata.cloudevent.id=a+b%2Bc").comes("/in", json!({"id": "a b+c"})),
        // Traces: `traceparent` before `traceid`, and each for both.
        row("?metadata.cloudevent.traceid=i").comes("/in", json!({"traceid": "i", "traceparent": "i"})),
        row("?metadata.cloudevent.traceid=i&metadata.cloudevent.traceparent=p")
            .comes("/in", json!({"traceid": "p", "traceparent": "p"})),
        row("?metadata.cloudevent.tracestate=a=b").comes("/in", json!({"tracestate": "a=b", "traceid": ""})),
        row("?metadata.cloudevent.data=x&metadata.cloudevent.pubsubname=y").comes("/in", json!({"data": {}})),
        row("?metadata.CLOUDEVENT.Subject=s").comes("/in", json!({"subject": "s"})),
        row("?metadata.rawPayload=true&metadata.cloudevent.id=a").comes("/in", json!({"id": null})).holding("{}"),
        // All of it goes with the message, where the broker carries it, and becomes headers (6.1).
        boxed("?metadata.X-Own=v&metadata.partitionKey=k").under("x-own", Some("v")).under("partitionkey", Some("k")),
        boxed("?metadata.x-own=1&metadata.x-own=2").under("x-own", Some("1")),
        boxed("?metadata.cloudevent.topic=no&metadata.cloudevent.id=i").under("cloudevent.topic", Some("no")),
        boxed("?x-own=v&Metadata.x-other=v").under("x-own", None).under("x-other", None),
        boxed("?metadata.rawPayload=true").under("rawpayload", Some("true")),
    ])
}

#[test]
fn request_headers() -> Result<()> {
    let row = || publish("1.3", "").json("{}").comes("/in", json!({"id": ANY}));
    let boxed = || post("1.3", "/v1.0/publish/box/t").json("{}").comes("/box", json!({}));
    let refused = |baggage: &str| {
        let row = publish("1.3", "").json("{}").with("baggage", baggage).status(400).tells("invalid baggage header: ");
        row.answers("content-type", "text/plain; charset=utf-8")
    };
    check_all(&[
        row().with("baggage", "a=1").answers("baggage", "a=1"),
        row().with("baggage", "a=1;p=2;q , b = %20").answers("baggage", "a=1;p=2;q , b = %20"),
        row().answers("baggage", Value::Null),
        boxed().with("baggage", "a=1").under("baggage", None),
        refused("a"),
        refused("a=1,"),
        refused("=1"),
        refused("a b=1"),
        refused("a=\"1\""),
        refused("a=%zz"),
        refused("a=1;=2"),
        refused(&format!("a={}", "x".repeat(4100))),
        row().with("dapr-app-id", "other"),
        post("1.3", "/v1.0/nothing").with("dapr-app-id", "other").refused(404, NO_ROUTE),
        boxed().with("dapr-own", "v").with("x-own", "v").under("dapr-own", None).under("x-own", None),
        boxed().with("ttlInSeconds", "0").with("rawPayload", "true").under("rawpayload", None),
    ])
}

#[test]
fn success_and_failure() -> Result<()> {
    let failed = || post("1.5", "/v1.0/publish/small/t").sends("text/plain", "x".repeat(2000)).refused(500, FAILED);
    let resource = "type.googleapis.com/google.rpc.ResourceInfo";
    let info = "type.googleapis.com/google.rpc.ErrorInfo";
    let unknown = || post("1.5", "/v1.0/publish/none/t?metadata.a=1&b=2").json("{}").refused(404, NOT_FOUND);
    check_all(&[
        post("1.4", "/v1.0/publish/closed/open").json("{}").answers("traceparent", NO_TRACE),
        publish("1.4", "").with("traceparent", TRACE).answers("traceparent", TRACE).comes("/in", json!({})),
        publish("1.4", "").with("traceparent", "garbage").answers("traceparent", NO_TRACE).comes("/in", json!({})),
        publish("1.4", "").answers("content-type", Value::Null).comes("/in", json!({})),
        unknown().answers("content-type", JSON).answers("/message", "pubsub none is not found"),
        unknown().answers("/details/0/@type", info).answers("/details/0/reason", "DAPR_PUBSUB_NOT_FOUND"),
        unknown().answers("/details/0/metadata", json!({"a": "1"})).answers("/details/1", Value::Null),
        failed().tells("error when publishing to topic t in pubsub small: "),
        failed().answers("/details/0/@type", resource).answers("/details/0/resource_type", "pubsub"),
        failed().answers("/details/0/resource_name", "small").answers("/details/0/owner", ""),
        failed().answers("/details/0/description", ANY).answers("/details/1/@type", info),
        failed().answers("/details/1/reason", "DAPR_PUBSUB_PUBLISH_MESSAGE").answers("/details/1/domain", "dapr.io"),
        failed().answers("/details/1/metadata/topic", "t").answers("/details/1/metadata/error", ANY),
        failed().answers("/details/2", Value::Null),
    ])
}

/// A queue with room for one message, which nobody takes out.
#[test]
fn a_broker_that_is_full() -> Result<()> {
    run(async |test| {
        differs("1.5 a broker that asks to wait");
        let app = App::start().await?;
        app.plan("/in", [Reply::Never]);
        let full = [("mode", "queue"), ("maxQueueMessages", "1")];
        let plan = test.host("me")?.resource(resource::component("full", "pubsub.in-memory", &full))?;
        let host = plan.resource(resource::subscription("full", "t", "/in", None))?.app(&app).start().await?;
        http::publish_ok(host.http()?, "full/t", "1").await?;
        app.wait_for(1, "/in").await?;
        let bulk = r#"[{"entryId":"one","event":1,"contentType":"application/json"}]"#;
        for (place, body, pointer) in
            [("full/t", "2", "/details/1/reason"), ("bulk/full/t", bulk, "/failedEntries/0/error")]
        {
            let answer = http::publish(host.http()?, place, body).await?;
            ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "row 1.5: {answer:?}");
            let body = answer.json()?;
            ensure!(body["errorCode"] == FAILED && body.pointer(pointer).is_some(), "row 1.5: {body}");
        }
        ensure!(app.seen().len() == 1, "row 1.5: {:?}", app.seen());
        Ok(())
    })
}

/// A host that was started otherwise, and requests to it.
fn check_limits(flags: &[(&str, &str)], rows: &[Row]) -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app);
        let host = flags.iter().fold(plan, |plan, (flag, value)| plan.flag(flag, value)).start().await?;
        check(&host, &app, rows).await
    })
}

fn of_bytes(count: usize) -> Row {
    publish("1.6", "").sends("text/plain", "x".repeat(count))
}

fn with_head(bytes: usize) -> Row {
    publish("1.6", "").with("x-pad", &"x".repeat(bytes))
}

#[test]
fn small_limits() -> Result<()> {
    let entry = format!(r#"[{{"entryId":"1","event":"{}","contentType":"text/plain"}}]"#, "x".repeat(1024));
    let too_large = "error when publishing to topic t in pubsub bus: stream too large";
    let bulk_too_large = "error when unmarshaling the request for topic t pubsub bus: stream too large";
    let rows = [
        of_bytes(1024).comes("/in", json!({"data": "x".repeat(1024)})),
        of_bytes(1025).refused(500, FAILED).answers("/message", too_large),
        super::rows::bulk("1.6", "", &entry).refused(400, "ERR_PUBSUB_EVENTS_SER").answers("/message", bulk_too_large),
        with_head(3000).comes("/in", json!({})),
        with_head(16_000).status(431),
    ];
    check_limits(&[("--max-body-size", "1Ki")], &rows)
}

#[test]
fn large_limits() -> Result<()> {
    let rows = [
        of_bytes(5 << 20).comes("/in", json!({"id": ANY})),
        with_head(16_000).comes("/in", json!({})),
        with_head(60_000).status(431),
    ];
    check_limits(&[("--max-body-size", "0"), ("--read-buffer-size", "32Ki")], &rows)
}

#[test]
fn limits_in_the_old_units() -> Result<()> {
    let rows = [
        of_bytes(5 << 20).comes("/in", json!({"id": ANY})),
        of_bytes((6 << 20) + 1).refused(500, FAILED),
        with_head(16_000).comes("/in", json!({})),
    ];
    check_limits(&[("--dapr-http-max-request-size", "6"), ("--dapr-http-read-buffer-size", "32")], &rows)
}

/// The status that a publish by HTTP/2 with prior knowledge is answered with.
async fn http2(host: &Host) -> Result<u16> {
    let stream = TcpStream::connect(host.http()?).await?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await?;
    // It ends with the sender.
    let connection = tokio::spawn(connection);
    let uri = format!("http://{}/v1.0/publish/bus/t", host.http()?);
    let request = hyper::Request::post(uri).body(Full::<bytes::Bytes>::from("two"))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    ensure!(answer.into_body().collect().await?.to_bytes().is_empty(), "{status} with a body");
    drop(sender);
    connection.await??;
    Ok(status)
}

#[test]
fn both_versions_of_http_on_one_port() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app);
        let mut host = plan.start().await?;
        ensure!(http2(&host).await? == 204, "row 1.1: HTTP/2 with prior knowledge");
        ensure!(app.wait_for(1, "/in").await?[0].data()? == "two");
        differs("1.1 upgrade to HTTP/2");
        let upgrade = [("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")];
        let answer = http::send(host.http()?, "POST", "/v1.0/publish/bus/t", &upgrade, b"up").await?;
        ensure!(answer.status == 204 && app.wait_for(2, "/in").await?[1].data()? == "up", "row 1.1: {answer:?}");
        host.kill().await?;
        host.start_again(|plan| plan.env("DAPR_HTTP_DISABLE_H2C", "true")).await?;
        ensure!(http2(&host).await.is_err(), "row 1.1: HTTP/2 is switched off");
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        app.wait_for(3, "/in").await.map(drop)
    })
}
