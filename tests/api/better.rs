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

/// The difference that is meant for a step of a scene.
pub(crate) fn better(scene: &str, step: usize, method: &str, path: &str) -> Option<&'static Better> {
    let request = format!("{method} {path}");
    let numbered = format!("{request} #{step}");
    let means = |better: &&Better| ["*", request.as_str(), numbered.as_str()].contains(&better.request);
    BETTER.iter().filter(|better| better.scene == scene).find(means)
}
