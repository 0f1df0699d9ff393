//! Requests drawn from the document: values of its schemas, and what is wrong on purpose.

use std::fmt;

use serde_json::{Map, Value, json};

use super::document::{Document, Operation, Parameter};

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Soundness {
    /// It succeeds.
    Sound,
    /// It does not.
    Refused,
    /// It belongs to its operation, and may succeed or not.
    Odd,
    /// It may belong to any operation, or to none.
    Elsewhere,
}

/// A request as it is sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) bytes: Vec<u8>,
    pub(super) soundness: Soundness,
    method: String,
}

impl Request {
    pub(super) fn has_no_body(&self) -> bool {
        self.method == "HEAD"
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(2_000)];
        write!(f, "{:?} {:?}", self.soundness, String::from_utf8_lossy(shown))
    }
}

/// What a request consists of while it is drawn.
struct Parts {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    soundness: Soundness,
}

/// The drawer.
#[derive(Debug)]
pub(super) struct Draw {
    random: fastrand::Rng,
}

/// Names that hosts have stumbled over.
const NAMES: [&str; 18] = [
    "",
    ".",
    "..",
    "bulk",
    "%2F",
    "a%2Fb",
    "a/b",
    "//",
    "%00",
    "%FF",
    "%zz",
    "%",
    "+",
    "a%20b",
    "%2e%2e",
    "\u{fc}",
    "allowed",
    "a;b?c=d&e#f",
];

const METHODS: [&str; 9] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "post", "ODD"];

impl Draw {
    pub(super) fn new(random: fastrand::Rng) -> Self {
        Self { random }
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.random.usize(..of.len())]
    }

    fn chance(&mut self, of: usize) -> bool {
        self.random.usize(..of) == 0
    }

    /// A request to an operation: half of them sound, the others with one thing wrong.
    pub(super) fn request(&mut self, document: &Document, operation: &Operation) -> Request {
        let mut parts = self.sound(document, operation);
        if self.random.bool() {
            match self.random.u8(..8) {
                0 => self.bend_path(operation, &mut parts),
                1 => self.bend_query(operation, &mut parts),
                2 => self.bend_headers(&mut parts),
                3 => self.bend_method(&mut parts),
                4 | 5 => self.bend_place(operation, &mut parts),
                _ => self.bend_body(operation, &mut parts),
            }
        }
        parts.written()
    }

    fn sound(&mut self, document: &Document, operation: &Operation) -> Parts {
        let mut parts = Parts {
            method: operation.method.clone(),
            path: operation.path.clone(),
            query: vec![],
            headers: vec![],
            body: vec![],
            soundness: Soundness::Sound,
        };
        for parameter in &operation.parameters {
            let value = self.parameter(document, parameter);
            match parameter.place.as_str() {
                "path" => parts.path = parts.path.replace(&format!("{{{}}}", parameter.name), &escaped(&value)),
                "query" if self.random.bool() => parts.query.push((parameter.name.clone(), escaped(&value))),
                "header" if self.random.bool() => parts.headers.push((parameter.name.clone(), value.into_bytes())),
                _ => {}
            }
        }
        if !operation.bodies.is_empty() {
            let (content_type, schema) = &operation.bodies[self.random.usize(..operation.bodies.len())];
            let bulk = operation.id.starts_with("bulkPublish");
            let body = if bulk { self.entries() } else { self.body(document, content_type, schema) };
            let named = if content_type == "*/*" { "application/x-odd; q=1" } else { content_type.as_str() };
            parts.headers.push(("content-type".to_owned(), named.as_bytes().to_vec()));
            parts.body = body;
        }
        parts
    }

    /// A value of a parameter. What names something names what is there.
    fn parameter(&mut self, document: &Document, parameter: &Parameter) -> String {
        match parameter.name.as_str() {
            "pubsubname" => "bus".to_owned(),
            "topic" => self.one(&["t", "orders", "a/b", "\u{fc}ber", "with blank", ".."]).to_owned(),
            "key" => format!("k{}", self.random.u8(..10)),
            "appid" => "me".to_owned(),
            _ => match self.value(document, &parameter.schema, 0) {
                Value::String(text) => text.replace(|c: char| !c.is_ascii_graphic(), "_"),
                other => other.to_string(),
            },
        }
    }

    fn body(&mut self, document: &Document, content_type: &str, schema: &Value) -> Vec<u8> {
        if !content_type.contains("json") {
            let length = self.random.usize(..200);
            let text = content_type == "text/plain";
            return (0..length).map(|_| if text { self.random.u8(b' '..b'~') } else { self.random.u8(..) }).collect();
        }
        self.value(document, schema, 0).to_string().into_bytes()
    }

    /// Entries whose events are what their content types say.
    fn entries(&mut self) -> Vec<u8> {
        let count = self.random.usize(1..8);
        let entries: Vec<Value> = (0..count).map(|id| self.entry(id)).collect();
        Value::from(entries).to_string().into_bytes()
    }

    fn entry(&mut self, id: usize) -> Value {
        let (content_type, event) = match self.random.u8(..4) {
            0 => ("application/json", self.any(0)),
            1 => ("text/plain; charset=utf-8", json!(self.text())),
            2 => ("application/octet-stream", json!("/w==")),
            _ => ("application/cloudevents+json", json!({ "id": "1", "source": "s", "type": "t", "data": 1 })),
        };
        let mut entry = json!({ "entryId": id.to_string(), "contentType": content_type, "event": event });
        if self.random.bool() {
            entry["metadata"] = json!({ "x": self.text() });
        }
        entry
    }

    /// A value of a schema.
    fn value(&mut self, document: &Document, schema: &Value, depth: usize) -> Value {
        let schema = document.resolved(schema);
        if let Some(fixed) = schema.get("const") {
            return fixed.clone();
        }
        for list in ["enum", "examples"] {
            if let Some(values) = schema[list].as_array().filter(|values| !values.is_empty()) {
                return values[self.random.usize(..values.len())].clone();
            }
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default();
        match kind {
            "string" => json!(self.text()),
            "integer" => json!(self.random.u32(1..100_000)),
            "boolean" => json!(self.random.bool()),
            "array" => {
                let count = self.random.usize(..4);
                (0..count).map(|_| self.value(document, &schema["items"], depth + 1)).collect()
            }
            "object" => {
                let mut members = Map::new();
                for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                    members.insert(name.clone(), self.value(document, schema, depth + 1));
                }
                Value::Object(members)
            }
            _ => self.any(depth),
        }
    }

    fn any(&mut self, depth: usize) -> Value {
        match self.random.u8(..if depth > 3 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(self.random.bool()),
            2 => json!(self.random.i64(..)),
            3 => json!(self.random.f64()),
            4 => json!(self.text()),
            5 => (0..self.random.usize(..4)).map(|_| self.any(depth + 1)).collect(),
            _ => {
                let count = self.random.usize(..4);
                Value::Object((0..count).map(|_| (self.text(), self.any(depth + 1))).collect())
            }
        }
    }

    fn text(&mut self) -> String {
        let length = self.random.usize(1..12);
        (0..length)
            .map(|_| if self.chance(8) { self.random.char('\u{20}'..'\u{2fff}') } else { self.random.alphanumeric() })
            .collect()
    }

    /// Names that are escaped oddly or not at all, another path altogether.
    fn bend_path(&mut self, operation: &Operation, parts: &mut Parts) {
        parts.soundness = Soundness::Elsewhere;
        let mut path = operation.path.clone();
        for parameter in operation.parameters.iter().filter(|parameter| parameter.place == "path") {
            let name = if self.random.bool() { "bus" } else { self.one(&NAMES) };
            path = path.replace(&format!("{{{}}}", parameter.name), &name.replace('\u{fc}', "%C3%BC"));
        }
        if self.chance(3) {
            let at = self.random.usize(1..path.len());
            let odd = self.one(&["/", "/../", "%", "%2f", "x", "V1.0", "?", ";", "/./"]);
            if path.is_char_boundary(at) {
                path.insert_str(at, odd);
            }
        }
        parts.path = if path.ends_with("shutdown") { "/v1.0/shutdow".to_owned() } else { path };
    }

    fn bend_query(&mut self, operation: &Operation, parts: &mut Parts) {
        parts.soundness = Soundness::Odd;
        if operation.id.to_lowercase().contains("publish") && self.random.bool() {
            parts.soundness = Soundness::Refused;
            parts.query.retain(|(name, _)| name != "metadata.rawPayload");
            parts
                .query
                .insert(0, ("metadata.rawPayload".to_owned(), self.one(&["maybe", "2", "yes%20", "tRue"]).to_owned()));
            return;
        }
        for _ in 0..self.random.usize(1..6) {
            let name =
                self.one(&["metadata.", "metadata.ttlInSeconds", "metadata.%zz", "a;b", "", "appid", "metadata.x"]);
            let value = self.one(&["", "-1", "1e9", "%", "%FF%FE", "x;y", "\u{fc}", "9999999999999999999999"]);
            parts.query.push((name.to_owned(), value.replace('\u{fc}', "%C3%BC")));
        }
    }

    fn bend_headers(&mut self, parts: &mut Parts) {
        parts.soundness = Soundness::Odd;
        let names = [
            "content-type",
            "traceparent",
            "tracestate",
            "baggage",
            "dapr-api-token",
            "dapr-app-id",
            "accept",
            "x-a",
            "origin",
        ];
        for _ in 0..self.random.usize(1..4) {
            let name = self.one(&names);
            let value = match self.random.u8(..5) {
                0 => Vec::new(),
                1 => vec![0xff, 0xfe, b'a'],
                2 => vec![b'x'; self.random.usize(1..12_000)],
                3 => b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec(),
                _ => self
                    .one(&["application/json;charset=\"", "application/cloudevents+json", "text/", "/", "a=b;c"])
                    .as_bytes()
                    .to_vec(),
            };
            parts.headers.retain(|(known, _)| known != name);
            parts.headers.push((name.to_owned(), value));
        }
    }

    fn bend_method(&mut self, parts: &mut Parts) {
        self.one(&METHODS).clone_into(&mut parts.method);
        parts.soundness = Soundness::Elsewhere;
    }

    /// A component that is not there, a topic or a key that may not be.
    fn bend_place(&mut self, operation: &Operation, parts: &mut Parts) {
        if !operation.path.contains("{pubsubname}") {
            parts.soundness = Soundness::Odd;
            if operation.id == "health" {
                parts.query = vec![("appid".to_owned(), "another".to_owned())];
            }
            return;
        }
        let place = self.one(&["scoped/denied", "nope/t", "nope%2F/t", "BUS/t"]);
        parts.path = operation.path.replace("{pubsubname}/{topic}", place);
        parts.query.clear();
        parts.soundness = Soundness::Refused;
        // What is wrong with the event itself goes before what the app may do.
        if place.starts_with("scoped") && !operation.id.starts_with("bulk") {
            parts.body = b"{}".to_vec();
        }
    }

    fn bend_body(&mut self, operation: &Operation, parts: &mut Parts) {
        parts.soundness = Soundness::Odd;
        let is_bulk = operation.id.starts_with("bulkPublish");
        let twice = br#"[{"entryId":"1","contentType":"text/plain","event":"a"},{"entryId":"1","contentType":"text/plain","event":"b"}]"#;
        parts.body = match self.random.u8(..9) {
            0 => Vec::new(),
            1 => vec![b'x'; 100_000],
            2 => (0..self.random.usize(..300)).map(|_| self.random.u8(..)).collect(),
            3 => "[".repeat(self.random.usize(1..30_000)).into_bytes(),
            4 => self.any(0).to_string().into_bytes(),
            5 => twice.to_vec(),
            6 => br#"{"data":1e999,"id":{"a":[null]},"specversion":7,"data_base64":"*"}"#.to_vec(),
            _ => {
                let mut body = std::mem::take(&mut parts.body);
                body.truncate(self.random.usize(..=body.len()));
                if !body.is_empty() {
                    let at = self.random.usize(..body.len());
                    body[at] = self.random.u8(..);
                }
                body
            }
        };
        if is_bulk && parts.body == twice {
            parts.soundness = Soundness::Refused;
        }
        if operation.id.starts_with("publish") && self.random.bool() {
            parts.headers.retain(|(name, _)| name != "content-type");
            parts.headers.push(("content-type".to_owned(), b"application/cloudevents+json".to_vec()));
        }
    }
}

impl Parts {
    fn written(self) -> Request {
        let Self { method, path, query, headers, body, soundness } = self;
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let separator = if query.is_empty() { "" } else { "?" };
        let target = format!("{path}{separator}{}", query.join("&"));
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n").into_bytes();
        for (name, value) in &headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(&body);
        Request { bytes, soundness, method }
    }
}

/// A value in a path or a query: letters and digits stay.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(escape).collect()
}
