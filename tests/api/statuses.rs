//! How an app's answers are taken (pubsub-behaviour 6.2 and 6.3): each status and body, to one event and to a batch.
//!
//! | row | where else |
//! |---|---|
//! | 6.2, without a dead-letter topic | the scenes `app answers ...` (golden); delivery/apps, where the broker delivers again |
//! | 6.2, 404 and DROP dead-lettered byte for byte, at Redis | delivery/dead_letter |
//! | 6.2, the metrics of each outcome | host/pubsub/src/metrics/tests |
//! | 6.3, each entry of a batch has its own outcome; only what failed comes again | delivery/batches |
//! | 6.3, a failed dead-letter publish gives back | host/pubsub/src/deliver/batch/tests |
//! | 6.2, a list of statuses for one event is a failure | a difference that is meant: see `better` |

use anyhow::Result;
use futures::future::join_all;

use super::tally::{Fate, Tally, fate};
use crate::harness::app::{App, Reply};
use crate::harness::{resource, run};

/// One retry, so that what failed is told from what was dropped.
const POLICIES: &str = "{retries: {once: {duration: 1ms, maxRetries: 1}}}";

const DONE: Fate = Fate::Done(1);
const DROPPED: Fate = Fate::Dead(1);
const FAILED: Fate = Fate::Dead(2);

type Case = (&'static str, Reply, Fate);

fn says(body: &str) -> Reply {
    Reply::With(200, body.into())
}

fn with(status: u16, body: &str) -> Reply {
    Reply::With(status, body.into())
}

fn to_one_event() -> Vec<Case> {
    vec![
        ("6.2 200, empty", says(""), DONE),
        ("6.2 200, SUCCESS", says(r#"{"status":"SUCCESS"}"#), DONE),
        ("6.2 200, RETRY", says(r#"{"status":"RETRY"}"#), FAILED),
        ("6.2 200, DROP", says(r#"{"status":"DROP"}"#), DROPPED),
        ("6.2 200, success", says(r#"{"status":"success"}"#), FAILED),
        ("6.2 200, drop", says(r#"{"status":"drop"}"#), FAILED),
        ("6.2 200, an unknown status", says(r#"{"status":"PERHAPS"}"#), FAILED),
        ("6.2 200, a status with a blank", says(r#"{"status":"SUCCESS "}"#), FAILED),
        ("6.2 200, a text", says("ok"), DONE),
        ("6.2 200, a JSON text", says(r#""RETRY""#), DONE),
        ("6.2 200, a list", says(r#"[{"status":"RETRY"}]"#), DONE),
        ("6.2 200, a number", says("5"), DONE),
        ("6.2 200, null", says("null"), DONE),
        ("6.2 200, no status", says(r#"{"state":"RETRY"}"#), DONE),
        ("6.2 200, an empty status", says(r#"{"status":""}"#), DONE),
        ("6.2 200, a status that is null", says(r#"{"status":null}"#), DONE),
        ("6.2 200, a status that is a number", says(r#"{"status":5}"#), DONE),
        ("6.2 200, a status that is a list", says(r#"{"status":["RETRY"]}"#), DONE),
        ("6.2 200, JSON cut short", says(r#"{"status":"RETRY""#), DONE),
        ("6.2 the key in another case", says(r#"{"STATUS":"DROP"}"#), DROPPED),
        ("6.2 the first JSON value counts", says(r#"{"status":"DROP"} {"status":"RETRY"}"#), DROPPED),
        ("6.2 the first JSON value, and a text", says(r#"{"status":"DROP"} and more"#), DROPPED),
        ("6.2 blanks before it", says(" \n{\"status\":\"RETRY\"}"), FAILED),
        ("6.2 other members", says(r#"{"a":{"status":"RETRY"},"status":"DROP","b":[]}"#), DROPPED),
        ("6.2 201", with(201, ""), DONE),
        ("6.2 202, DROP", with(202, r#"{"status":"DROP"}"#), DROPPED),
        ("6.2 203, RETRY", with(203, r#"{"status":"RETRY"}"#), FAILED),
        ("6.2 204", with(204, ""), DONE),
        ("6.2 206", with(206, "part"), DONE),
        ("6.2 299", with(299, ""), DONE),
        ("6.2 404", with(404, ""), DROPPED),
        ("6.2 404, SUCCESS", with(404, r#"{"status":"SUCCESS"}"#), DROPPED),
        ("6.2 404, RETRY", with(404, r#"{"status":"RETRY"}"#), DROPPED),
        ("6.2 300", with(300, ""), FAILED),
        ("6.1 302 is not followed", with(302, ""), FAILED),
        ("6.2 304", with(304, ""), FAILED),
        ("6.2 400", with(400, ""), FAILED),
        ("6.2 400, SUCCESS", with(400, r#"{"status":"SUCCESS"}"#), FAILED),
        ("6.2 401", with(401, ""), FAILED),
        ("6.2 403", with(403, ""), FAILED),
        ("6.2 405", with(405, ""), FAILED),
        ("6.2 408", with(408, ""), FAILED),
        ("6.2 409", with(409, ""), FAILED),
        ("6.2 410", with(410, ""), FAILED),
        ("6.2 413", with(413, ""), FAILED),
        ("6.2 422", with(422, ""), FAILED),
        ("6.2 429", with(429, ""), FAILED),
        ("6.2 500, DROP", with(500, r#"{"status":"DROP"}"#), FAILED),
        ("6.2 501", with(501, ""), FAILED),
        ("6.2 502", with(502, ""), FAILED),
        ("6.2 503", with(503, ""), FAILED),
        ("6.2 504", with(504, ""), FAILED),
        ("6.2 599", with(599, ""), FAILED),
        ("6.2 a list of statuses", says(r#"{"statuses":[{"entryId":"1","status":"SUCCESS"}]}"#), FAILED),
    ]
}

fn to_a_batch() -> Vec<Case> {
    let each = |word: &str| Reply::Each(word.into());
    vec![
        ("6.3 SUCCESS", each("SUCCESS"), DONE),
        ("6.3 RETRY", each("RETRY"), FAILED),
        ("6.3 DROP", each("DROP"), DROPPED),
        ("6.3 an empty status", each(""), FAILED),
        ("6.3 an unknown status", each("PERHAPS"), FAILED),
        ("6.3 success", each("success"), FAILED),
        ("6.3 an entry that is not in the list", says(r#"{"statuses":[]}"#), FAILED),
        ("6.3 only an unknown entry", says(r#"{"statuses":[{"entryId":"x","status":"SUCCESS"}]}"#), FAILED),
        ("6.3 a list that is null", says(r#"{"statuses":null}"#), FAILED),
        ("6.3 no list", says("{}"), FAILED),
        ("6.3 the answer to one event", says(r#"{"status":"SUCCESS"}"#), FAILED),
        ("6.3 empty", says(""), FAILED),
        ("6.3 a text", says("ok"), FAILED),
        ("6.3 a JSON list", says("[]"), FAILED),
        ("6.3 JSON cut short", says(r#"{"statuses":["#), FAILED),
        ("6.3 204", with(204, ""), FAILED),
        ("6.3 404 drops all, and nothing is dead-lettered", with(404, ""), DONE),
        ("6.3 302", with(302, ""), FAILED),
        ("6.3 400", with(400, r#"{"statuses":[]}"#), FAILED),
        ("6.3 500", with(500, ""), FAILED),
        ("6.3 503", with(503, ""), FAILED),
    ]
}

/// Each case on a topic of its own, all in one host.
fn check(cases: Vec<Case>, more: &'static str) -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let policies = resource::inbound("bus", POLICIES, "{retry: once}");
        let mut plan = test.host("me")?.resource(resource::in_memory("bus"))?.resource(policies)?;
        let topics: Vec<String> = (0..cases.len()).map(|number| format!("t{number}")).collect();
        for (topic, (_, reply, _)) in topics.iter().zip(&cases) {
            let dead = format!("dead-{topic}");
            let subscription = resource::subscription("bus", topic, &format!("/{topic}"), Some(&dead)) + more;
            plan = plan.resource(subscription + &resource::subscription("bus", &dead, &format!("/{dead}"), None))?;
            app.plan(&format!("/{topic}"), [reply.clone()]);
        }
        let host = plan.app(&app).start().await?;
        let at = host.http()?;
        let found = join_all(topics.iter().map(|topic| fate(&app, at, "bus", topic))).await;
        let mut rows = Tally::default();
        rows.check_all(cases.into_iter().zip(found).map(|((row, _, expected), found)| (row, found, expected)));
        rows.end()
    })
}

#[test]
fn of_one_event() -> Result<()> {
    check(to_one_event(), "")
}

#[test]
fn of_a_batch() -> Result<()> {
    check(to_a_batch(), "  bulkSubscribe: {enabled: true, maxAwaitDurationMs: 1}\n")
}
