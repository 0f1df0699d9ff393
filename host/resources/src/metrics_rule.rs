//! What becomes of the values of a metric's label (`spec.metrics.rules` of a `Configuration`; pubsub-behaviour, section 13.1):
//! too many of them are put together by regular expressions. Read by `raw::configuration`, applied by the data plane when
//! it first counts under a value.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

/// Memory that one compiled expression may take, bytes.
const EXPRESSION_BYTES_MAX: usize = 1 << 20;

/// What becomes of the values of one label of one metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsRule {
    /// The metric as Dapr's rules name it: `_` and `/` are one, and the first `dapr_` is nothing.
    metric: String,
    label: String,
    replacements: Vec<Replacement>,
}

/// An expression, and what stands for each of its matches.
#[derive(Clone)]
pub struct Replacement {
    expression: Regex,
    by: String,
}

impl MetricsRule {
    /// For a metric's label: these replacements, one after the other.
    #[must_use]
    pub fn new(metric: &str, label: &str, replacements: Vec<Replacement>) -> Self {
        Self { metric: plain(metric), label: label.to_owned(), replacements }
    }

    /// Whether it is for this one.
    #[must_use]
    pub fn is_for(&self, metric: &str, label: &str) -> bool {
        self.label == label && self.metric == plain(metric)
    }

    /// What stands for a value. An empty one stays.
    #[must_use]
    pub fn apply<'a>(&self, value: &'a str) -> Cow<'a, str> {
        let mut value = Cow::Borrowed(value);
        for Replacement { expression, by } in &self.replacements {
            if value.is_empty() {
                break;
            }
            if let Cow::Owned(replaced) = expression.replace_all(&value, by) {
                value = Cow::Owned(replaced);
            }
        }
        value
    }
}

fn plain(metric: &str) -> String {
    metric.replacen("dapr_", "", 1).replace('_', "/")
}

impl Replacement {
    /// Puts this in place of what matches; `$1` and `${name}` in it are what a group has matched.
    ///
    /// # Errors
    /// What is wrong with the expression, in one line.
    pub fn new(expression: &str, by: &str) -> Result<Self, String> {
        let compiled = RegexBuilder::new(expression).size_limit(EXPRESSION_BYTES_MAX).build();
        let expression = compiled.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => format!("it takes more than {EXPRESSION_BYTES_MAX} bytes"),
            // The last line says what, those before it show where.
            error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        })?;
        Ok(Self { expression, by: by.to_owned() })
    }
}

impl std::fmt::Debug for Replacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} -> {:?}", self.expression.as_str(), self.by)
    }
}

impl PartialEq for Replacement {
    fn eq(&self, other: &Self) -> bool {
        self.expression.as_str() == other.expression.as_str() && self.by == other.by
    }
}

impl Eq for Replacement {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(replacements: &[(&str, &str)], value: &str, expect: &str) {
        let made = replacements.iter().map(|(expression, by)| Replacement::new(expression, by).unwrap());
        let rule = MetricsRule::new("dapr_component_pubsub_ingress_count", "topic", made.collect());
        assert_eq!(rule.apply(value), expect, "{replacements:?}");
    }

    #[test]
    fn values_are_put_together() {
        check(&[], "orders/1", "orders/1");
        check(&[("orders/.+", "orders/")], "orders/1", "orders/");
        check(&[("orders/.+", "orders/")], "my-orders/1/2", "my-orders/");
        check(&[("^orders/.+", "orders/")], "my-orders/1", "my-orders/1");
        check(&[("[0-9]", "#")], "a1b22", "a#b##");
        check(&[("(\\w+)-(\\d+)", "${1}-N")], "eu-17 us-4", "eu-N us-N");
        check(&[("a", "b"), ("b+", "c")], "aabb", "c");
        check(&[("^$", "none")], "", "");
        check(&[(".*", "")], "gone", "");
    }

    #[test]
    fn metrics_are_named_as_daprs_rules_name_them() {
        let is_for = |rule: &str, metric: &str| MetricsRule::new(rule, "topic", Vec::new()).is_for(metric, "topic");
        let metric = "dapr_component_pubsub_ingress_count";
        assert!(is_for(metric, metric));
        assert!(is_for("component_pubsub_ingress_count", metric));
        assert!(is_for("component/pubsub_ingress/count", metric));
        assert!(is_for("whimbrel_dropped_total", "whimbrel_dropped_total"));
        assert!(!is_for("dapr_component_pubsub_egress_count", metric));
        assert!(!MetricsRule::new(metric, "app_id", Vec::new()).is_for(metric, "topic"));
    }

    #[test]
    fn what_is_no_expression_says_why_in_one_line() {
        let why = |expression: &str| Replacement::new(expression, "").unwrap_err();
        assert_eq!(why("a("), "unclosed group");
        assert_eq!(why(r"\w{1000}{1000}"), "it takes more than 1048576 bytes");
    }
}
