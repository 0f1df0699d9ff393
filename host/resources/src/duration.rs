//! Durations as Go writes them (`1m30s`, `500ms`), which is how every Dapr resource and header spells them.
//!
//! Called by the readers of resources, and by the data plane for a message's time to live. Absent on purpose: days and
//! weeks, which Go does not know either.

use std::time::Duration;

/// Nanoseconds in a unit of Go's.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Digits after the point that still count; more are read and have no effect on a nanosecond.
const FRACTION_DIGITS: usize = 18;

/// A Go duration in nanoseconds, negative ones included. `None`: not a duration, or outside Go's 64 bits (292 years).
#[must_use]
pub fn go_duration(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let (nanos, tail) = element(rest)?;
        total = total.checked_add(nanos)?;
        rest = tail;
    }
    let signed = if negative { -total } else { total };
    i64::try_from(signed).ok().map(i128::from)
}

/// A Go duration that is not negative.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    Some(Duration::from_nanos(u64::try_from(go_duration(text)?).ok()?))
}

/// A Go duration or a plain number of milliseconds, as policies and adapters' settings allow; not negative.
#[must_use]
pub fn duration_or_millis(text: &str) -> Option<Duration> {
    match text.parse::<i64>() {
        Ok(millis) => Some(Duration::from_millis(u64::try_from(millis).ok()?)),
        Err(_) => duration(text),
    }
}

/// A duration as Go prints it: `1m30s`, `5s`, `1.5s`, `500ms`, `0s`.
#[must_use]
pub fn go_text(duration: Duration) -> String {
    let (nanos, seconds) = (duration.as_nanos(), duration.as_secs());
    if nanos == 0 || seconds > 0 {
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let below = decimal(u128::from(seconds % 60) * 1_000_000_000 + u128::from(duration.subsec_nanos()), 9);
        return match (hours, minutes) {
            (0, 0) => format!("{below}s"),
            (0, minutes) => format!("{minutes}m{below}s"),
            (hours, minutes) => format!("{hours}h{minutes}m{below}s"),
        };
    }
    match nanos {
        1_000_000.. => format!("{}ms", decimal(nanos, 6)),
        1_000.. => format!("{}\u{b5}s", decimal(nanos, 3)),
        _ => format!("{nanos}ns"),
    }
}

/// A number with its point so many digits from the right, without zeros at the end.
fn decimal(number: u128, digits: usize) -> String {
    let text = format!("{number:0>width$}", width = digits + 1);
    let (whole, fraction) = text.split_at(text.len() - digits);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

/// One number with its unit, in nanoseconds, and what follows it.
fn element(text: &str) -> Option<(i128, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let letters = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? };
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let part = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<i128>().ok()? * scale / 10_i128.pow(u32::try_from(fraction.len()).ok()?)
    };
    Some((whole.checked_mul(scale)?.checked_add(part)?, rest))
}

/// The decimal digits a text starts with, and the rest.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests;
