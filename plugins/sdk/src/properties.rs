//! Reading a resource's settings: names without regard to case, values checked, errors that name the key.

use std::str::FromStr;
use std::time::Duration;

use crate::{Config, Failure};

/// A resource's settings.
#[derive(Debug, Clone, Copy)]
pub struct Properties<'a>(&'a Config);

impl<'a> Properties<'a> {
    /// The settings of a configuration.
    #[must_use]
    pub fn of(config: &'a Config) -> Self {
        Self(config)
    }

    /// The text of a setting; of two, the last.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let found = self.0.properties.iter().rev().find(|property| property.name.eq_ignore_ascii_case(name));
        found.map(|property| property.value.as_str())
    }

    /// A setting that must be there.
    ///
    /// # Errors
    /// `Invalid`, naming the key.
    pub fn required(&self, name: &str) -> Result<&'a str, Failure> {
        self.text(name).ok_or_else(|| Failure::Invalid(format!("metadata {name} is required")))
    }

    /// A number, or the default.
    ///
    /// # Errors
    /// `Invalid`, naming the key.
    pub fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, Failure> {
        self.parsed(name, default, "a whole number in range", |text| text.parse().ok())
    }

    /// `true` or `false` in any of the spellings Dapr takes, or the default.
    ///
    /// # Errors
    /// `Invalid`, naming the key.
    pub fn switch(&self, name: &str, default: bool) -> Result<bool, Failure> {
        self.parsed(name, default, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "y" | "yes" | "on" => Some(true),
            "0" | "f" | "false" | "n" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    /// A duration (`1m30s`, `500ms`; a plain number is milliseconds), or the default.
    ///
    /// # Errors
    /// `Invalid`, naming the key.
    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration, Failure> {
        self.parsed(name, default, "a duration such as 15s or 500ms", duration)
    }

    fn parsed<T>(&self, name: &str, default: T, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
        match self.text(name).map(str::trim) {
            None | Some("") => Ok(default),
            Some(text) => parse(text).ok_or_else(|| Failure::Invalid(format!("metadata {name} is not {what}"))),
        }
    }
}

/// A Go duration: numbers with units, one after the other, and no sign. A plain number is milliseconds. `None`: not one.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    if let Ok(millis) = text.parse() {
        return Some(Duration::from_millis(millis));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests;
