//! Where we differ from the recorded sidecar, each with its reason.
//!
//! The one place for this: `golden` fails on any other difference, and on an entry that names nothing.

mod departures;

/// A difference that is meant.
#[derive(Debug)]
pub(crate) struct Better {
    /// The scene it belongs to.
    pub(crate) scene: &'static str,
    /// The request: method, a blank, and the path as it was sent. With a `#` and a number: only the step of that number,
    /// counted from 0, for scenes that send one path again and again.
    pub(crate) request: &'static str,
    /// What ours does.
    pub(crate) ours: Ours,
    /// Why that is better.
    pub(crate) reason: &'static str,
}

/// What ours does instead.
#[derive(Debug)]
pub(crate) enum Ours {
    /// Answers with this status, and delivers nothing.
    Refuses(u16),
    /// Answers 204, and delivers an event whose text holds this.
    Delivers(&'static str),
    /// The same but for the reasons inside the error's details, which are the texts of Go's JSON parser there.
    OwnReason,
    /// The same but for the body.
    OwnBody,
}

/// Every difference that is meant.
pub(crate) static BETTER: &[Better] = &[
    Better {
        scene: "json bodies",
        request: "POST /v1.0/publish/bus/t #7",
        ours: Ours::Delivers("1e400"),
        reason: "a number beyond a double is answered 204 there and never delivered; what we acknowledge is delivered, \
                 digit for digit",
    },
    Better {
        scene: "publish metadata",
        request: "POST /v1.0/publish/bus/t?metadata.=x",
        ours: Ours::Delivers(r#""a":1"#),
        reason: "metadata without a name is answered 204 there and the event is never delivered; ours comes without it",
    },
    Better {
        scene: "body limit",
        request: "POST /v1.0/publish/bus/t #1",
        ours: Ours::Refuses(500),
        reason: "one byte over the limit is cut off there in silence, and the rest is acknowledged",
    },
    Better {
        scene: "cloud events",
        request: "POST /v1.0/publish/bus/t",
        ours: Ours::OwnReason,
        reason: "the reason is the text of Go's JSON parser there",
    },
    Better {
        scene: "paths, seen through a scope error",
        request: "POST /v1.0/publish/bus/%zz",
        ours: Ours::OwnBody,
        reason: "the text is that of Go's HTTP server there",
    },
    Better {
        scene: "paths, seen through a scope error",
        request: "POST /v1.0/publish/bus/t#x",
        ours: Ours::OwnBody,
        reason: "a fragment is no part of a request target (RFC 9112, section 3.2): our HTTP server leaves it out, and no \
                 client library sends one",
    },
    Better {
        scene: "not pub/sub",
        request: "*",
        ours: Ours::Refuses(404),
        reason: "other building blocks are not here at all, so none of them is `not configured`",
    },
];

/// A difference that no scene shows.
#[derive(Debug)]
pub(crate) struct Difference {
    /// The section of pubsub-behaviour, and what it is about: the name that a test gives ([`differs`]).
    pub(crate) row: &'static str,
    /// What ours does, and why that is better.
    pub(crate) reason: &'static str,
}

/// Every such difference that is meant.
pub(crate) static DIFFERENCES: &[Difference] = &[
    Difference {
        row: "1.1 names that are no text",
        reason: "Go takes any bytes for a name; an event in JSON cannot hold them, so they are refused as an escape that \
                 cannot be undone",
    },
    Difference {
        row: "1.1 upgrade to HTTP/2",
        reason: "RFC 9113 has done away with the upgrade; who asks for it is answered in HTTP/1.1, and HTTP/2 with prior \
                 knowledge is spoken on the same port",
    },
    Difference {
        row: "1.5 a broker that asks to wait",
        reason: "503 with Retry-After instead of 500: the message was not taken, and the client is told when to come again",
    },
    Difference {
        row: "2 number of entries",
        reason: "each entry costs memory however short it is, so one request has 10,000 at most",
    },
    Difference {
        row: "2 large integers",
        reason: "integers beyond 2^53 lose their last digits there in a bulk publish; ours are as they were sent, as in a \
                 single one",
    },
    Difference {
        row: "2.1 headers of failures",
        reason: "the names and errors of entries stand in the body; once more in headers they may be longer than a client's \
                 HTTP stack takes, and the whole answer would be lost",
    },
    Difference { row: "4.1 escapes", reason: "`<`, `>` and `&` need no escape in JSON; any reader sees the same text" },
    Difference {
        row: "5.6 number of rules",
        reason: "each event may be asked about each rule, so a subscription has 256 at most",
    },
    Difference {
        row: "5.6 batches of raw bytes",
        reason: "to the rules of a batch a raw event is its bytes there, and all other rules fail; ours see the event that a \
                 single delivery has, so that rules mean the same with and without batches",
    },
    Difference {
        row: "5.8 what cannot be taken",
        reason: "a component that does not open, a second one of a name or a broken rule end the process there; here what \
                 runs stays as it is, and the log says why",
    },
    Difference {
        row: "5.8 what the app asked for",
        reason: "a declared subscription that changes is started beside the app's own there, and each event comes twice; here \
                 the app's own stays over it",
    },
];

/// Says that what a test expects differs on purpose.
pub(crate) fn differs(row: &str) {
    assert!(DIFFERENCES.iter().any(|difference| difference.row == row), "{row} is not in the list of differences");
}

/// The difference that is meant for a step of a scene.
pub(crate) fn better(scene: &str, step: usize, method: &str, path: &str) -> Option<&'static Better> {
    let request = format!("{method} {path}");
    let numbered = format!("{request} #{step}");
    let means = |better: &&Better| ["*", request.as_str(), numbered.as_str()].contains(&better.request);
    BETTER.iter().filter(|better| better.scene == scene).find(means)
}
