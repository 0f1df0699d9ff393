//! The promises that can be broken, by the name that the setting `lie` gives them.

use whimbrel_sdk::properties::Properties;
use whimbrel_sdk::{Config, Failure};

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// None.
    Nothing,
    /// Opens with settings that do not parse.
    AcceptsBadSettings,
    /// Answers a publish before the broker has.
    ConfirmsFirst,
    /// Answers success where the connection was lost before the confirm.
    UnknownIsOk,
    /// One bad message of a call fails all of them.
    FailsTogether,
    /// A result too few.
    AnswersShort,
    /// Data that is no UTF-8 is made some.
    ManglesBytes,
    /// Names of metadata in lower case.
    ManglesHeaders,
    /// Acknowledges what it has delivered, whatever the host says.
    AcksEarly,
    /// Four times as many unsettled as allowed.
    IgnoresCredit,
    /// Claims to keep order, and delivers each list back to front.
    Reorders,
    /// Delivers everything twice.
    Duplicates,
    /// Delivers again what is still in hand.
    DropsLeases,
    /// Each delivery is the first.
    CountsNothing,
    /// One group for everybody.
    SharesGroups,
    /// A retry is an acknowledgement.
    AcksOnRetry,
    /// A retry does not wait.
    RetriesAtOnce,
    /// A retry never comes.
    ForgetsRetries,
    /// After the third failure it moves the message to a topic of its own choice.
    DeadLetters,
    /// A lost connection's tokens still settle, it says.
    TakesStaleTokens,
    /// What was in hand when the connection was lost is gone.
    ForgetsOnReconnect,
    /// Connects again and again without a wait.
    SpinsOnError,
    /// A lost connection is its death.
    TrapsOnError,
    /// Refused once for its password, it never comes back.
    GivesUpWhenRefused,
    /// Asks for a sign of life get none.
    AnswersNoPing,
    /// Content types are forgotten.
    ForgetsContentType,
    /// A token is good as often as one likes.
    TakesTokensTwice,
    /// A group begins with the first message, whatever it was told.
    IgnoresStart,
    /// Pausing does nothing.
    IgnoresPause,
    /// Never comes back from `close`.
    HangsOnClose,
    /// Never comes back from `stop`.
    HangsOnStop,
}

/// All of them, as a resource spells them.
const NAMES: [(&str, Lie); 31] = [
    ("nothing", Lie::Nothing),
    ("accepts-bad-settings", Lie::AcceptsBadSettings),
    ("confirms-first", Lie::ConfirmsFirst),
    ("unknown-is-ok", Lie::UnknownIsOk),
    ("fails-together", Lie::FailsTogether),
    ("answers-short", Lie::AnswersShort),
    ("mangles-bytes", Lie::ManglesBytes),
    ("mangles-headers", Lie::ManglesHeaders),
    ("acks-early", Lie::AcksEarly),
    ("ignores-credit", Lie::IgnoresCredit),
    ("reorders", Lie::Reorders),
    ("duplicates", Lie::Duplicates),
    ("drops-leases", Lie::DropsLeases),
    ("counts-nothing", Lie::CountsNothing),
    ("shares-groups", Lie::SharesGroups),
    ("acks-on-retry", Lie::AcksOnRetry),
    ("retries-at-once", Lie::RetriesAtOnce),
    ("forgets-retries", Lie::ForgetsRetries),
    ("dead-letters", Lie::DeadLetters),
    ("takes-stale-tokens", Lie::TakesStaleTokens),
    ("forgets-on-reconnect", Lie::ForgetsOnReconnect),
    ("spins-on-error", Lie::SpinsOnError),
    ("traps-on-error", Lie::TrapsOnError),
    ("gives-up-when-refused", Lie::GivesUpWhenRefused),
    ("answers-no-ping", Lie::AnswersNoPing),
    ("forgets-content-type", Lie::ForgetsContentType),
    ("takes-tokens-twice", Lie::TakesTokensTwice),
    ("ignores-start", Lie::IgnoresStart),
    ("ignores-pause", Lie::IgnoresPause),
    ("hangs-on-close", Lie::HangsOnClose),
    ("hangs-on-stop", Lie::HangsOnStop),
];

impl Lie {
    /// The lie that a resource asks for.
    pub(crate) fn of(config: &Config) -> Result<Self, Failure> {
        let Some(asked) = Properties::of(config).text("lie") else { return Ok(Self::Nothing) };
        let known = NAMES.iter().find(|(name, _)| *name == asked);
        known.map(|(_, lie)| *lie).ok_or_else(|| Failure::Invalid(format!("metadata lie: nobody knows {asked}")))
    }
}
