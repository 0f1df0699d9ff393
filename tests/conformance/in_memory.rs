//! `pubsub.in-memory` in both of its modes.

use super::suite::{Broker, Case};

pub(super) const CASES: &[Case] = &[
    Case {
        adapter: whimbrel_artifacts::IN_MEMORY,
        broker: Broker::Inside("in_memory/queue.yaml"),
        // Two instances share nothing, and nobody but the component sees what is in it.
        not_supported: &["B2", "B4", "B15", "C7", "C9"],
        faults: Some(&["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12", "S14", "S15", "S20"]),
    },
    Case {
        adapter: whimbrel_artifacts::IN_MEMORY,
        broker: Broker::Inside("in_memory/dapr.yaml"),
        // Besides: a publish waits for its subscribers, who get one message at a time; what they refuse is gone.
        not_supported: &[
            "D5", "D7", "D8", "B2", "B3", "B4", "B9", "B10", "B11", "B12", "B13", "B14", "B15", "C1", "C3", "C5", "C7",
            "C9", "C11", "C12",
        ],
        faults: None,
    },
];
