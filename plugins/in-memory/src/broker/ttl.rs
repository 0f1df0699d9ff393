//! When a message expires, by its publish metadata. Called by mode `queue` only: in mode `dapr` the host keeps the time.

use std::time::Duration;

use whimbrel_sdk::properties::duration;

/// How long a message lives: `ttl`, which wins, or `ttlInSeconds`, whatever their case. Whole seconds or a Go duration; zero
/// and negative durations are over at once; what does not parse is no limit. These are Dapr's rules for every broker.
pub(super) fn of(metadata: &[(String, String)]) -> Option<Duration> {
    // Most messages have none, and then this is all it costs.
    let text = |wanted: &str| {
        let named = metadata.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    parse(text("ttl").or_else(|| text("ttlInSeconds"))?)
}

fn parse(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<i64>() {
        return u64::try_from(seconds).ok().map(Duration::from_secs);
    }
    match text.strip_prefix('-') {
        Some(negative) => duration(negative).map(|_| Duration::ZERO),
        None => duration(text.strip_prefix('+').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        let check = |metadata: &[(&str, &str)], expected: Option<u64>| {
            let owned: Vec<_> = metadata.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            assert_eq!(of(&owned), expected.map(Duration::from_millis), "{metadata:?}");
        };
        check(&[], None);
        check(&[("other", "5")], None);
        check(&[("ttlInSeconds", "5")], Some(5_000));
        check(&[("TTLINSECONDS", "1m30s")], Some(90_000));
        check(&[("ttl", "2"), ("ttlInSeconds", "5")], Some(2_000));
        check(&[("ttlInSeconds", "1"), ("ttlInSeconds", "2")], Some(2_000));
        check(&[("ttl", "0")], Some(0));
        check(&[("ttl", "-1s")], Some(0));
        check(&[("ttl", "-1")], None);
        check(&[("ttl", "soon")], None);
        check(&[("ttl", ""), ("ttlInSeconds", "5")], Some(5_000));
    }
}
