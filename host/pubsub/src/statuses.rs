//! What an HTTP status of the app means. Dapr's meaning (pubsub-behaviour 6.2, 6.3): 404 is "not for me", every other failure is
//! tried again. A subscription may say otherwise by an entry of its metadata, `onStatus` (ours): `404=retry, 409=success,
//! 400-499=deadLetter`, the first that fits. Pure; called by `deliver`.

use std::ops::RangeInclusive;

use whimbrel_resources::Subscription;

use crate::error::HandlerError;
use crate::handler::Outcome;

const NAME: &str = "onStatus";

const NOT_FOUND: u16 = 404;

/// Statuses that do not mean success, and what becomes of the event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Statuses(Vec<(RangeInclusive<u16>, Meaning)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The app has it, whatever it calls that.
    Success,
    /// Another attempt, as the policy says.
    Retry,
    /// Never again: to the dead-letter topic or, without one, dropped.
    DeadLetter,
    /// Never again, and no dead letter either.
    Drop,
}

impl Statuses {
    /// Reads it. What does not parse is as if it were not there, and the log says so.
    pub(crate) fn of(declared: &Subscription) -> Self {
        let given = declared.metadata.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(NAME));
        let Some((_, value)) = given else { return Self::default() };
        Self::parse(value).unwrap_or_else(|item| {
            let Subscription { pubsub, topic, .. } = declared;
            let remedy = "a status from 300 to 599 or a range of them, = and one of success, retry, deadLetter, drop";
            tracing::warn!(pubsub, topic, "the subscription's metadata {NAME} has {item:?}: {remedy}");
            Self::default()
        })
    }

    /// # Errors
    /// The item that does not parse.
    fn parse(text: &str) -> Result<Self, &str> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| self::item(item).ok_or(item)).collect::<Result<_, _>>().map(Self)
    }

    /// The result of an attempt, once its status has got its meaning.
    pub(crate) fn read(&self, result: Result<Outcome, HandlerError>, in_batch: bool) -> Result<Outcome, HandlerError> {
        let Err(HandlerError::Status(status)) = result else { return result };
        self.meaning(status, in_batch).ok_or(HandlerError::Status(status))
    }

    /// What a status means for each event that it is the answer to; `None`: it is a failure.
    pub(crate) fn meaning(&self, status: u16, in_batch: bool) -> Option<Outcome> {
        let said = self.0.iter().find(|(statuses, _)| statuses.contains(&status)).map(|(_, meaning)| meaning);
        match said {
            Some(Meaning::Success) => Some(Outcome::Success),
            Some(Meaning::DeadLetter) => Some(Outcome::Drop),
            Some(Meaning::Drop) => Some(Outcome::Unserved),
            Some(Meaning::Retry) => None,
            // Of a batch Dapr drops it without a dead letter.
            None if status == NOT_FOUND && in_batch => Some(Outcome::Unserved),
            None if status == NOT_FOUND => Some(Outcome::Drop),
            None => None,
        }
    }
}

fn item(text: &str) -> Option<(RangeInclusive<u16>, Meaning)> {
    let (statuses, meaning) = text.split_once('=')?;
    let (first, last) = statuses.split_once('-').unwrap_or((statuses, statuses));
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (300..600).contains(status));
    let (first, last) = (status(first)?, status(last)?);
    let known = [
        ("success", Meaning::Success),
        ("retry", Meaning::Retry),
        ("deadLetter", Meaning::DeadLetter),
        ("drop", Meaning::Drop),
    ];
    let (_, meaning) = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(meaning.trim()))?;
    (first <= last).then_some((first..=last, meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, status: u16, single: Option<Outcome>, in_batch: Option<Outcome>) {
        let statuses = Statuses::parse(text).expect(text);
        assert_eq!(statuses.meaning(status, false), single, "{text:?} and {status}");
        assert_eq!(statuses.meaning(status, true), in_batch, "{text:?} and {status} to a batch");
        let result = statuses.read(Err(HandlerError::Status(status)), false);
        assert_eq!(result, single.ok_or(HandlerError::Status(status)), "{text:?} and {status}");
    }

    #[test]
    fn meanings() {
        let (success, dead, gone) = (Some(Outcome::Success), Some(Outcome::Drop), Some(Outcome::Unserved));
        check("", 404, dead, gone);
        check("", 500, None, None);
        check("404=retry", 404, None, None);
        check("404=deadLetter", 404, dead, dead);
        check("404 = DROP", 404, gone, gone);
        check("409=success,400-499=deadLetter", 409, success, success);
        check("409=success,400-499=deadLetter", 400, dead, dead);
        check("409=success,400-499=deadLetter", 404, dead, dead);
        check("409=success,400-499=deadLetter", 499, dead, dead);
        check("409=success,400-499=deadLetter", 500, None, None);
        check("400-403=drop, ,", 404, dead, gone);
        check("500-599=retry, 503=drop", 503, None, None);
    }

    #[test]
    fn what_does_not_parse() {
        for text in
            ["404", "=retry", "404=", "404=later", "200=retry", "600=drop", "x=drop", "499-400=drop", "4xx=drop"]
        {
            assert_eq!(Statuses::parse(text), Err(text));
            assert_eq!(Statuses::parse(&format!("503=retry, {text}")), Err(text));
        }
    }

    #[test]
    fn other_results_are_left_alone() {
        let all = Statuses::parse("300-599=drop").expect("it parses");
        for result in [Ok(Outcome::Retry), Ok(Outcome::Success), Err(HandlerError::Timeout)] {
            assert_eq!(all.read(result.clone(), false), result);
        }
    }
}
