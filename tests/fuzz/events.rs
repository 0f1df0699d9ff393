//! The event decoder, the envelope, and what brokers deliver.

use whimbrel_pubsub::fuzz::{delivered, envelope, event};

use super::drive;

const WORDS: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "null",
    "1e400",
    "-0",
    "\"id\":1,",
    "\"data\":",
    "\"data_base64\":\"/w==\",",
    "\u{0}",
    "\u{feff}",
    "\n",
    "\"i\\u0064\":\"x\",",
    "\"traceparent\":\"\",",
    "true",
];

const EVENTS: [&[u8]; 7] = [
    br#"{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"application/json","data":{"a":[1,2]}}"#,
    br#"{"id":"\u00e9\n","id":"2","data":"text","datacontenttype":"text/plain","x":{"y":12345678901234567890123}}"#,
    br#"{"data_base64":"/w==","expiration":"2024-01-01T00:00:00Z","tracestate":"k=v","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#,
    br#" { } "#,
    b"{\"a\":\"\xff\",\"subject\":\"\xc3\xa9\"}",
    br#"[{"id":"1"}]"#,
    br#"{"data":1.50,"pubsubname":null,"topic":false}"#,
];

fn with_byte(bytes: &[u8]) -> Vec<Vec<u8>> {
    let choices = [0, 1, 2, 3, 4, 5, 6, 0x80, 0x85];
    choices.iter().map(|choice| [&[*choice][..], bytes].concat()).collect()
}

#[test]
fn events() {
    drive(21, 40_000, &EVENTS, &WORDS, event);
}

#[test]
fn envelopes() {
    let all: Vec<Vec<u8>> = EVENTS.iter().flat_map(|bytes| with_byte(bytes)).collect();
    let corpus: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    drive(22, 20_000, &corpus, &WORDS, envelope);
}

#[test]
fn deliveries() {
    let all: Vec<Vec<u8>> = EVENTS.iter().flat_map(|bytes| with_byte(bytes)).collect();
    let corpus: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    drive(23, 20_000, &corpus, &WORDS, delivered);
}
