//! The request that an app gets for an event, and how many at once (pubsub-behaviour 6.1, 6.8 and 6.9).
//!
//! | row | where else |
//! |---|---|
//! | 6.1 the body of wrapped and raw events, `traceparent`, `tracestate` | golden, every scene |
//! | 6.1 a redirect is not followed; connection errors | delivery/apps, statuses |
//! | 6.1 connections are kept and opened again | host/api/src/app/tests |
//! | 6.8 what is no protocol is an error at the start | security/resources (`arguments_that_make_no_sense`) |
//! | 6.9 an app that is ill gets nothing, publishing goes on; flags out of bounds | delivery/health |
//! | 6.8 `https`, `h2c`, `grpc`, `grpcs` | not in this version: refused at the start |
//! | 6.1 the answer's headers | a difference that is meant: see `better` |

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::tally::Tally;
use crate::harness::app::{App, Reply, Seen};
use crate::harness::{http, resource, run, until};

/// A route as it is declared, and the path that the app sees.
const ROUTES: [(&str, &str); 15] = [
    ("/plain", "/plain"),
    ("relative", "/relative"),
    ("/", "/"),
    ("//", "/"),
    ("/a/b/c", "/a/b/c"),
    ("/twice//slashed", "/twice/slashed"),
    ("/./dot", "/dot"),
    ("/up/../over", "/over"),
    ("/../above", "/above"),
    ("/trailing/", "/trailing"),
    ("/query?a=1&b=//x/../y/", "/query?a=1&b=//x/../y/"),
    ("relative/query?a=1", "/relative/query?a=1"),
    ("/with blank", "/with%20blank"),
    ("/gr\u{fc}n", "/gr%C3%BCn"),
    ("/escaped%2Fslash", "/escaped%2Fslash"),
];

/// An item of the metadata of what is published, and a header that the app sees for it, or does not see.
const HEADERS: [(&str, &str, Option<&str>); 22] = [
    ("ttlInSeconds=500", "ttlinseconds", Some("500")),
    ("X-Mine=a%20b", "x-mine", Some("a b")),
    ("partitionKey=k", "partitionkey", Some("k")),
    ("grpc-timeout=1S", "dapr-grpc-timeout", Some("1S")),
    ("grpc-timeout=1S", "grpc-timeout", None),
    ("my-bin=eA", "my-bin", None),
    ("content-type=text/plain", "content-type", Some("application/cloudevents+json")),
    ("content-length=1", "content-length", Some("<length>")),
    ("destination-app-id=you", "destination-app-id", None),
    ("connection=close", "connection", None),
    ("keep-alive=5", "keep-alive", None),
    ("transfer-encoding=chunked", "transfer-encoding", None),
    ("te=trailers", "te", None),
    ("trailer=x", "trailer", None),
    ("upgrade=h2c", "upgrade", None),
    ("proxy-authorization=x", "proxy-authorization", None),
    ("host=evil", "host", Some("<app>")),
    ("dapr-api-token=evil", "dapr-api-token", Some("shown")),
    ("pubsubName=evil", "pubsubname", Some("bus")),
    ("tracestate=a%3D1", "tracestate", Some("a=1")),
    ("a%20blank=x", "a blank", None),
    ("line=a%0Ab", "line", None),
];

/// What stands for no trace.
const NO_TRACE: &str = "00-00000000000000000000000000000000-0000000000000000-00";

/// Bytes that are an event, spelled as nobody else would.
const SPELLED: &str =
    "{ \"type\":\"x\",\t\"specversion\" : \"1.0\",\"source\":\"s\", \"id\":\"\\u0031\",\"data\": 1.0e2 }";

#[test]
fn for_one_event() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let mut plan = test.host("me")?.resource(resource::in_memory("bus"))?.env("APP_API_TOKEN", "shown");
        for (number, (route, _)) in ROUTES.iter().enumerate() {
            plan = plan.resource(resource::subscription("bus", &format!("r{number}"), &format!("{route:?}"), None))?;
        }
        for topic in ["headers", "spelled"] {
            plan = plan.resource(resource::subscription("bus", topic, &format!("/{topic}"), None))?;
        }
        let host = plan.app(&app).start().await?;
        let at = host.http()?;
        let mut rows = Tally::default();
        for number in 0..ROUTES.len() {
            http::publish_ok(at, &format!("bus/r{number}"), &number.to_string()).await?;
        }
        until("an event on each route", async || (app.seen().len() >= ROUTES.len()).then_some(())).await?;
        let seen = app.take_seen();
        for ((route, path), number) in ROUTES.iter().zip(0_u64..) {
            let of_route = seen.iter().find(|seen| seen.data().is_ok_and(|data| data == number));
            let of_route = of_route.with_context(|| format!("6.1 nothing came on {route}"))?;
            rows.check(&format!("6.1 the route {route}"), of_route.path.as_str(), path);
        }
        let items: Vec<String> = HEADERS.iter().map(|(item, ..)| format!("metadata.{item}")).collect();
        http::publish_ok(at, &format!("bus/headers?{}", items.join("&")), "{}").await?;
        let seen = app.wait_for(1, "/headers").await?;
        check_headers(&mut rows, &seen[0], &app.address().to_string());
        let raw = "/v1.0/publish/bus/spelled?metadata.rawPayload=true";
        ensure!(http::send(at, "POST", raw, &[], SPELLED.as_bytes()).await?.status == 204);
        let seen = app.wait_for(1, "/spelled").await?;
        rows.check("6.1 the body as it was stored", String::from_utf8_lossy(&seen[0].body).as_ref(), SPELLED);
        rows.end()
    })
}

fn check_headers(rows: &mut Tally, seen: &Seen, app: &str) {
    let length = seen.body.len().to_string();
    for (item, header, expected) in HEADERS {
        let expected = match expected {
            Some("<length>") => Some(length.as_str()),
            Some("<app>") => Some(app),
            other => other,
        };
        rows.check(
            &format!("6.1 {item}, and the header {header}"),
            seen.headers.get(header).map(String::as_str),
            expected,
        );
    }
    let trace = seen.headers.get("traceparent").map(String::as_str);
    rows.check("6.1 traceparent of an event without a trace", trace, Some(NO_TRACE));
}

/// Single events and batches share the limit; the name of the protocol is read without regard to case.
#[test]
fn so_many_at_once() -> Result<()> {
    const EACH: Duration = Duration::from_millis(200);
    run(async |test| {
        let app = App::start().await?;
        let mut plan = test.host("me")?.resource(resource::queue("bus"))?;
        let batches = "  bulkSubscribe: {enabled: true, maxMessagesCount: 1}\n";
        for (topic, more) in [("a", ""), ("b", ""), ("c", batches)] {
            plan = plan.resource(resource::subscription("bus", topic, &format!("/{topic}"), None) + more)?;
            app.plan(&format!("/{topic}"), [Reply::After(EACH, 200, String::new())]);
        }
        let plan = plan.flag("--app-max-concurrency", "1").flag("--app-protocol", "HTTP").app(&app);
        let host = plan.start().await?;
        for topic in ["a", "a", "b", "b", "c", "c"] {
            http::publish_ok(host.http()?, &format!("bus/{topic}"), "{}").await?;
        }
        until("all to come", async || (app.seen().len() >= 6).then_some(())).await?;
        let seen = app.seen();
        let together = seen.windows(2).filter(|pair| pair[1].at - pair[0].at < EACH).count();
        ensure!(together == 0, "6.8 --app-max-concurrency: {together} were begun while another was under way");
        Ok(())
    })
}

/// With the defaults of all its flags but one: the path, any 2xx, no token, three failures; values that are not positive mean
/// the defaults; the host's own health is not the app's.
#[test]
fn for_the_apps_health() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/healthz", [Reply::status(299)]);
        let plan = test.host("me")?.resource(resource::queue("bus"))?.env("APP_API_TOKEN", "shown");
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
        // A switch takes no word behind it.
        let plan = plan.flag("--enable-app-health-check", "--app-health-probe-interval=1");
        let plan = plan.flag("--app-health-probe-timeout=-1", "--app-health-threshold=0").app(&app);
        let host = plan.start().await?;
        let at = host.http()?;
        http::publish_ok(at, "bus/t", "1").await?;
        app.wait_for(1, "/in").await?;
        let asked = app.wait_for(1, "/healthz").await?;
        let mut rows = Tally::default();
        rows.check("6.9 the question has no token", asked[0].headers.get("dapr-api-token"), None);
        app.take_seen();
        app.plan("/healthz", [Reply::status(302)]);
        until("the app to be ill", async || {
            let metadata = http::get(at, "/v1.0/metadata").await.ok()?.json().ok()?;
            (metadata["extended"]["appHealth"] == "unhealthy").then_some(())
        })
        .await?;
        rows.check("6.9 three failures make it ill", app.seen_on("/healthz").len() >= 3, true);
        rows.check("6.9 /v1.0/healthz while it is ill", http::get(at, "/v1.0/healthz").await?.status, 204);
        rows.check("6.9 publishing while it is ill", http::publish(at, "bus/t", "2").await?.status, 204);
        app.plan("/healthz", [Reply::status(200)]);
        rows.check("6.9 what waited comes", app.wait_for(1, "/in").await?[0].data()?, Value::from(2));
        rows.end()
    })
}
