//! Rows of pubsub-behaviour as cases of one line: what is sent, what is answered, what is delivered. Called by the files by
//! subject; each says at its top which rows the recorded scenes (`golden`) prove already.
//!
//! All cases of a table share a host, one after the other. Where its broker is in-memory as Dapr's, a publish is answered
//! when the message before it has been settled by every subscriber of its topic; so a second publish to the same topic, the
//! fence, tells that a case is over, and nobody waits for nothing to happen. What comes too much and too late is found by
//! the next case, and by a last fence.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::better::differs;
use crate::harness::app::{App, Seen};
use crate::harness::host::Host;
use crate::harness::http::{self, Answer};
use crate::harness::until_within;

/// What every fence holds and nothing else does.
const FENCE: &str = "fence-of-a-row";

/// How long what is expected may take to come.
const WAIT: Duration = Duration::from_secs(20);

/// The same once something is wrong: the rest is only told.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// JSON's content type.
pub(super) const JSON: &str = "application/json";

/// The content type of events.
pub(super) const EVENT: &str = "application/cloudevents+json";

/// A value that stands for any that is there.
pub(super) const ANY: &str = "<any>";

/// A value that stands for `null`; `null` itself stands for a member that is not there.
pub(super) const NULL: &str = "<null>";

/// One case.
#[derive(Debug, Clone)]
pub(super) struct Row {
    section: &'static str,
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    status: u16,
    /// JSON pointers into the answer, or the names of its headers, and what is there.
    answered: Vec<(&'static str, Value)>,
    /// Texts of the answer's body.
    told: Vec<&'static str>,
    arrivals: Vec<Arrival>,
    fence: Option<String>,
}

/// One event, or whatever else the app is sent.
#[derive(Debug, Clone)]
struct Arrival {
    path: &'static str,
    /// Members and their values.
    members: Value,
    /// Texts of the body as it came.
    texts: Vec<String>,
    headers: Vec<(&'static str, Option<&'static str>)>,
}

/// A `POST` without a body and without a content type that is answered with 204.
pub(super) fn post(section: &'static str, path: impl Into<String>) -> Row {
    let (path, method) = (path.into(), "POST");
    let (headers, body, answered, told, arrivals) = (vec![], vec![], vec![], vec![], vec![]);
    Row { section, method, path, headers, body, status: 204, answered, told, arrivals, fence: None }
}

/// The same to the topic `t` of `bus`, with a query.
pub(super) fn publish(section: &'static str, query: &str) -> Row {
    post(section, format!("/v1.0/publish/bus/t{query}"))
}

/// The same to the route of several.
pub(super) fn bulk(section: &'static str, query: &str, entries: &str) -> Row {
    post(section, format!("/v1.0/publish/bulk/bus/t{query}")).sends(JSON, entries)
}

impl Row {
    pub(super) fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub(super) fn with(mut self, header: &str, value: &str) -> Self {
        self.headers.push((header.to_owned(), value.to_owned()));
        self
    }

    /// A body and its content type.
    pub(super) fn sends(mut self, kind: &str, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self.with("content-type", kind)
    }

    pub(super) fn json(self, body: &str) -> Self {
        self.sends(JSON, body)
    }

    pub(super) fn event(self, body: &str) -> Self {
        self.sends(EVENT, body)
    }

    /// Answered with this status, and nothing is delivered unless it is said.
    pub(super) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Answered with this status and this error code.
    pub(super) fn refused(self, status: u16, code: &'static str) -> Self {
        self.status(status).answers("/errorCode", code)
    }

    /// The answer has this at a JSON pointer, or in a header if it begins with no slash (`null`: no such header).
    pub(super) fn answers(mut self, place: &'static str, value: impl Into<Value>) -> Self {
        self.answered.push((place, value.into()));
        self
    }

    /// The answer's body holds this.
    pub(super) fn tells(mut self, text: &'static str) -> Self {
        self.told.push(text);
        self
    }

    /// The app is sent this: a path, and members that the body has among others.
    pub(super) fn comes(mut self, path: &'static str, members: Value) -> Self {
        self.arrivals.push(Arrival { path, members, texts: vec![], headers: vec![] });
        self
    }

    /// The last arrival's body holds this text as it stands.
    pub(super) fn holding(mut self, text: &str) -> Self {
        self.arrivals.last_mut().into_iter().for_each(|arrival| arrival.texts.push(text.to_owned()));
        self
    }

    /// The last arrival has a header, or has it not.
    pub(super) fn under(mut self, header: &'static str, value: Option<&'static str>) -> Self {
        self.arrivals.last_mut().into_iter().for_each(|arrival| arrival.headers.push((header, value)));
        self
    }

    /// Where its fence is published, if that does not follow from its path.
    pub(super) fn fenced_by(mut self, path: &str) -> Self {
        self.fence = Some(path.to_owned());
        self
    }

    /// What it does differs on purpose: it must be listed.
    pub(super) fn differs(self, name: &str) -> Self {
        differs(name);
        self
    }

    fn fence(&self) -> String {
        let (path, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let single = path.replace("/v1.0-alpha1/publish/bulk/", "/v1.0/publish/");
        self.fence.clone().unwrap_or_else(|| single.replace("/v1.0/publish/bulk/", "/v1.0/publish/"))
    }

    /// What is wrong with the answer.
    fn check_answer(&self, answer: &Answer) -> Vec<String> {
        if answer.status != self.status {
            return vec![format!("answered {}, not {}: {}", answer.status, self.status, answer.text())];
        }
        let mut wrong = vec![];
        if answer.status == 204 && !answer.body.is_empty() {
            wrong.push(format!("204 with a body: {}", answer.text()));
        }
        let json = answer.json().unwrap_or_default();
        for (place, expected) in &self.answered {
            let found = match place.strip_prefix('/') {
                Some(_) => json.pointer(place).cloned(),
                None => answer.header(place).map(Value::from),
            };
            if !is(expected, found.as_ref()) {
                wrong.push(format!("{place} of the answer is {found:?}, not {expected}: {}", answer.text()));
            }
        }
        let text = answer.text();
        wrong.extend(
            self.told.iter().filter(|told| !text.contains(**told)).map(|told| format!("no {told:?} in {text}")),
        );
        wrong
    }

    /// What is wrong with what came.
    fn check_arrivals(&self, mut seen: Vec<Seen>) -> Vec<String> {
        let mut wrong = vec![];
        for arrival in &self.arrivals {
            let faults = seen.iter().map(|seen| arrival.faults(seen)).collect::<Vec<_>>();
            match faults.iter().position(Vec::is_empty) {
                Some(place) => drop(seen.remove(place)),
                None => wrong.push(format!("nothing came to {} with {}: {faults:?}", arrival.path, arrival.members)),
            }
        }
        if wrong.is_empty() {
            let more = |seen: &Seen| format!("unexpected to {}: {}", seen.path, String::from_utf8_lossy(&seen.body));
            wrong.extend(seen.iter().map(more));
        }
        wrong
    }
}

impl Arrival {
    fn faults(&self, seen: &Seen) -> Vec<String> {
        if seen.path != self.path {
            return vec![format!("came to {}", seen.path)];
        }
        let body = String::from_utf8_lossy(&seen.body);
        let event = seen.event().unwrap_or_default();
        let members = self.members.as_object().into_iter().flatten();
        let mut faults: Vec<_> = members
            .filter(|(name, expected)| !is(expected, event.get(name.as_str())))
            .map(|(name, expected)| format!("{name} is not {expected}: {body}"))
            .collect();
        faults.extend(
            self.texts.iter().filter(|text| !body.contains(text.as_str())).map(|text| format!("no {text:?}: {body}")),
        );
        for (name, expected) in &self.headers {
            let found = seen.headers.get(*name).map(String::as_str);
            if found != *expected {
                faults.push(format!("the header {name} is {found:?}, not {expected:?}"));
            }
        }
        faults
    }
}

/// Whether a value is the expected one.
fn is(expected: &Value, found: Option<&Value>) -> bool {
    match expected.as_str() {
        Some(ANY) => found.is_some(),
        Some(NULL) => found == Some(&Value::Null),
        _ if expected.is_null() => found.is_none(),
        _ => found == Some(expected),
    }
}

/// Carries out all cases and tells everything that is wrong.
pub(super) async fn check(host: &Host, app: &App, rows: &[Row]) -> Result<()> {
    let (mut wrong, mut count) = (String::new(), 0);
    for row in rows {
        let wait = if count == 0 { WAIT } else { SHORT_WAIT };
        for fault in carry_out(host, app, row, wait).await? {
            count += 1;
            let body = String::from_utf8_lossy(&row.body).chars().take(80).collect::<String>();
            let Row { section, method, path, .. } = row;
            writeln!(wrong, "row {section}, {method} {path} {:?} {body}: {fault}", row.headers).ok();
        }
    }
    let late: Vec<_> = app.take_seen().into_iter().filter(|seen| !is_fence(seen)).collect();
    if !late.is_empty() {
        writeln!(wrong, "after the last row: {late:?}").ok();
    }
    if !wrong.is_empty() {
        bail!("{count} faults in {} rows\n{wrong}", rows.len());
    }
    Ok(())
}

async fn carry_out(host: &Host, app: &App, row: &Row, wait: Duration) -> Result<Vec<String>> {
    let headers: Vec<_> = row.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = http::send(host.http()?, row.method, &row.path, &headers, &row.body).await?;
    let mut wrong = row.check_answer(&answer);
    if row.status == 204 {
        let path = format!("{}?metadata.cloudevent.type={FENCE}", row.fence());
        let fence = http::send(host.http()?, "POST", &path, &[("content-type", JSON)], b"{}").await?;
        if fence.status != 204 {
            wrong.push(format!("its fence was answered {}: {}", fence.status, fence.text()));
        }
    }
    let all = async || {
        let seen = app.seen().into_iter().filter(|seen| !is_fence(seen)).count();
        (seen >= row.arrivals.len()).then_some(())
    };
    if wrong.is_empty() && until_within(wait, "the deliveries", all).await.is_err() {
        wrong.push("not everything came".to_owned());
    }
    let seen = app.take_seen().into_iter().filter(|seen| !is_fence(seen)).collect();
    wrong.extend(row.check_arrivals(seen));
    Ok(wrong)
}

/// Whether a fence is in it, as it is or in base64.
fn is_fence(seen: &Seen) -> bool {
    let holds = |bytes: &[u8]| bytes.windows(FENCE.len()).any(|window| window == FENCE.as_bytes());
    let event = seen.event().unwrap_or_default();
    let entries = event["entries"].as_array().into_iter().flatten().map(|entry| &entry["event"]);
    let encoded = entries.chain([&event["data_base64"]]).filter_map(Value::as_str);
    holds(&seen.body) || encoded.filter_map(|text| STANDARD.decode(text).ok()).any(|bytes| holds(&bytes))
}

#[cfg(test)]
mod tests;
