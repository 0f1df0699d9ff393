//! Where we differ from what pubsub-behaviour says of Dapr in sections 6 to 11, and no recorded scene shows it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A row of pubsub-behaviour that ours departs from, where no scene shows it.
struct Departure {
    /// Section, and what is there.
    row: &'static str,
    /// What ours does instead.
    ours: &'static str,
    /// Why that is better.
    reason: &'static str,
    /// The file, seen from this package, and the text in it that shows it.
    shown: (&'static str, &'static str),
}

static DEPARTURES: &[Departure] = &[
    Departure {
        row: "6.1 an answer's headers are limited to --read-buffer-size",
        ours: "64 KiB of them are read",
        reason: "the flag is for what clients send; an event is not to fail for what its app answers",
        shown: ("../host/api/src/app/lane.rs", "HEAD_BYTES_MAX: usize = 64 * 1024"),
    },
    Departure {
        row: "6.2 JSON without a status is success",
        ours: "a list of `statuses` is a failure",
        reason: "who answers so expects a batch, found none in the event and has not seen it: it would be lost",
        shown: ("api/statuses.rs", "6.2 a list of statuses"),
    },
    Departure {
        row: "6.3 an entry without a route is sent to the empty path, too",
        ours: "it is dead-lettered or dropped, and not sent",
        reason: "a quirk: the app would handle what its routes leave out",
        shown: ("api/batches.rs", "6.3 nothing else comes"),
    },
    Departure {
        row: "6.7 and 10.3 what an open breaker keeps from the app is dead-lettered",
        ours: "it is given back and comes again, where the broker delivers again",
        reason: "no app has seen it, so it is no failure of its own",
        shown: ("delivery/policies.rs", "an_open_circuit_breaker_spares_the_app_and_dead_letters_nothing"),
    },
    Departure {
        row: "6.2 what an unhealthy app is not sent is a failure",
        ours: "it is given back and comes again, where the broker delivers again",
        reason: "the same",
        shown: ("delivery/health.rs", "something was dead-lettered for it"),
    },
    Departure {
        row: "9 a document that cannot be decoded is skipped",
        ours: "so is one that is no YAML; one whose values are wrong keeps the host from starting, with file, line and key",
        reason: "without it a component would be missing, and a subscription would silently receive nothing",
        shown: ("api/starting.rs", "9 no list of scopes"),
    },
    Departure {
        row: "9 what is wrong with a resource ends the process with 1",
        ours: "with 78 (EX_CONFIG)",
        reason: "whoever starts it can tell a wrong resource from a broker that is away, which may be there the next time",
        shown: ("api/starting.rs", "9 two of one name"),
    },
    Departure {
        row: "9 a document over 64 KiB is not read",
        ours: "files of up to 1 MiB are",
        reason: "it is a limit of Go's scanner",
        shown: ("api/resources.rs", "9 a document over 64 KiB"),
    },
    Departure {
        row: "9 with ignoreErrors a component that does not open is absent",
        ours: "it is tried further until it opens",
        reason: "a broker that was away at the start would be missing until somebody restarts the host",
        shown: ("api/starting.rs", "9 ignoreErrors"),
    },
    Departure {
        row: "10.1 a Resiliency that cannot be decoded is skipped",
        ours: "the host does not start, and says what is wrong",
        reason: "what was to be tried again would be dead-lettered, or lost, at its first failure",
        shown: ("api/starting.rs", "10.3 codes with a blank"),
    },
    Departure {
        row: "10.1 a Resiliency counts only as the first document of its file",
        ours: "it counts wherever it stands",
        reason: "a quirk: whoever wrote a policy wants it",
        shown: ("api/resiliency.rs", "not the first document of its file"),
    },
    Departure {
        row: "10.2 DaprBuiltInInitializationRetries without an end: the app is asked for its subscriptions for ever",
        ours: "for a quarter of an hour, as by an exponential policy",
        reason: "changed resources wait for the answer, and an app that never gives one would keep them out unseen",
        shown: ("../host/api/src/app/tests.rs", "Without an end, but for ours."),
    },
    Departure {
        row: "10.3 a publish is tried again whatever its failure, unless codes are listed",
        ours: "not what the broker will never take: invalid, unauthorized or permanent",
        reason: "the publisher is told at once what no retry mends",
        shown: ("../host/pubsub/src/publish/tests.rs", "only_entries_that_failed_are_sent_again"),
    },
];

/// Each departure is shown where it says, and says why.
#[test]
fn every_departure_is_shown_somewhere() -> Result<()> {
    for Departure { row, ours, reason, shown: (file, text) } in DEPARTURES {
        ensure!(!ours.is_empty() && !reason.is_empty(), "{row}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let content = std::fs::read_to_string(path).with_context(|| format!("{row}: {file}"))?;
        ensure!(content.contains(text), "{row}: {file} does not hold {text:?}");
    }
    Ok(())
}
