//! The app's answer to `GET /dapr/subscribe` (pubsub-behaviour, section 5.2).
//!
//! Called by the data plane's door to the app. As in Dapr, a field of the wrong type spoils the whole answer, an item
//! that leads nowhere only itself.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::rule::{RULES_MAX, Rule};
use crate::snapshot::{Bulk, Origin, Subscription};

/// Reads the answer: the subscriptions, and what was dropped and why.
///
/// # Errors
/// When it is no JSON list of subscriptions, in one sentence.
pub fn programmatic(json: &[u8]) -> Result<(Vec<Subscription>, Vec<String>), String> {
    // Bytes that are no UTF-8 become replacement characters, as in Go.
    let text = String::from_utf8_lossy(json);
    if text.trim().is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let items = match serde_json::from_str(&text) {
        Ok(Value::Array(items)) => items,
        Ok(Value::Null) => Vec::new(),
        Ok(_) => return Err("the answer is no list of subscriptions".to_owned()),
        Err(error) => return Err(format!("the answer is no JSON: {error}")),
    };
    let mut answer = Answer::default();
    for (index, item) in items.iter().enumerate() {
        answer.take(item).map_err(|what| format!("item {index}: {what}"))?;
    }
    Ok((answer.subscriptions, answer.warnings))
}

#[derive(Default)]
struct Answer {
    subscriptions: Vec<Subscription>,
    /// Where each (pubsub, topic) stands.
    slots: HashMap<(String, String), usize>,
    warnings: Vec<String>,
}

impl Answer {
    fn take(&mut self, item: &Value) -> Result<(), String> {
        let item = Fields::of(item)?;
        let pubsub = item.text("pubsubname")?;
        let topic = item.text("topic")?;
        let about = format!("subscription to {topic:?} of {pubsub:?}");
        let metadata = item.metadata()?;
        let dead_letter_topic = Some(item.text("deadLetterTopic")?).filter(|topic| !topic.is_empty());
        let (bulk, odd) = item.bulk()?;
        self.warnings.extend(odd.into_iter().map(|what| format!("{about}: bulkSubscribe.{what}")));
        let (rules, default_route) = item.routes()?;
        if rules.is_empty() && default_route.is_none() {
            self.warnings.push(format!("{about}: dropped, it has no route"));
            return Ok(());
        }
        let (name, scopes, origin) = (String::new(), Vec::new(), Origin::Programmatic);
        self.put(
            Subscription {
                name,
                pubsub,
                topic,
                rules,
                default_route,
                dead_letter_topic,
                metadata,
                bulk,
                scopes,
                origin,
            },
            &about,
        );
        Ok(())
    }

    /// The last one for a topic wins, in the place of the first.
    fn put(&mut self, subscription: Subscription, about: &str) {
        let key = (subscription.pubsub.clone(), subscription.topic.clone());
        let end = self.subscriptions.len();
        let slot = *self.slots.entry(key).or_insert(end);
        match self.subscriptions.get_mut(slot) {
            Some(earlier) => {
                *earlier = subscription;
                self.warnings.push(format!("{about}: given twice; the last one counts"));
            }
            None => self.subscriptions.push(subscription),
        }
    }
}

/// A JSON object whose fields go by names without regard to case; null is as if it were not there.
struct Fields<'a>(Option<&'a Map<String, Value>>);

impl<'a> Fields<'a> {
    fn of(value: &'a Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) => Ok(Self(Some(fields))),
            Value::Null => Ok(Self(None)),
            _ => Err("expected an object".to_owned()),
        }
    }

    fn get(&self, name: &str) -> &'a Value {
        let Some(fields) = self.0 else { return &Value::Null };
        let any_case = || fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        fields.get(name).or_else(any_case).unwrap_or(&Value::Null)
    }

    fn text(&self, name: &str) -> Result<String, String> {
        text(self.get(name), name)
    }

    fn section(&self, name: &str) -> Result<Self, String> {
        Self::of(self.get(name)).map_err(|what| format!("{name}: {what}"))
    }

    fn metadata(&self) -> Result<Vec<(String, String)>, String> {
        let fields = self.section("metadata")?.0.into_iter().flatten();
        fields.map(|(key, value)| Ok((key.clone(), text(value, "metadata")?))).collect()
    }

    /// The setting if it is enabled, and what is odd about it.
    fn bulk(&self) -> Result<(Option<Bulk>, Vec<String>), String> {
        let section = self.section("bulkSubscribe")?;
        let enabled = match section.get("enabled") {
            Value::Null => false,
            Value::Bool(enabled) => *enabled,
            _ => return Err("bulkSubscribe.enabled: expected true or false".to_owned()),
        };
        let number = |name: &str| match section.get(name) {
            Value::Null => Ok(None),
            given => given.as_i64().map(Some).ok_or_else(|| format!("bulkSubscribe.{name}: expected a whole number")),
        };
        let (bulk, odd) = Bulk::of(number("maxMessagesCount")?, number("maxAwaitDurationMs")?);
        Ok((enabled.then_some(bulk), odd))
    }

    /// Rules in order, then `routes.default`, else `route`. A rule that does not compile spoils the answer.
    fn routes(&self) -> Result<(Vec<Rule>, Option<String>), String> {
        let routes = self.section("routes")?;
        let items = routes.rules()?;
        if items.len() > RULES_MAX {
            return Err(format!("routes.rules: more than {RULES_MAX}"));
        }
        let mut rules = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let (expression, path) = (item.text("match")?, item.text("path")?);
            rules.push(Rule::new(&expression, &path).map_err(|what| format!("routes.rules[{index}].match: {what}"))?);
        }
        let (default, route) = (routes.text("default")?, self.text("route")?);
        Ok((rules, [default, route].into_iter().find(|path| !path.is_empty())))
    }

    fn rules(&self) -> Result<Vec<Self>, String> {
        match self.get("rules") {
            Value::Null => Ok(Vec::new()),
            Value::Array(rules) => rules.iter().map(Self::of).collect(),
            _ => Err("routes.rules: expected a list".to_owned()),
        }
    }
}

fn text(value: &Value, name: &str) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(format!("{name}: expected a text")),
    }
}

#[cfg(test)]
mod tests;
