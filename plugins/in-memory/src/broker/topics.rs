//! Who listens to a topic. Called by both modes; knows nothing of what a listener is.

use std::collections::HashMap;
use std::rc::Rc;

/// Listeners by the topic they subscribed to. A trailing `*` there stands for one or more characters.
#[derive(Debug)]
pub(super) struct Topics<T> {
    exact: HashMap<String, Vec<Rc<T>>>,
    prefixes: Vec<(String, Rc<T>)>,
}

impl<T> Default for Topics<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), prefixes: Vec::new() }
    }
}

impl<T> Topics<T> {
    /// Adds a listener.
    pub(super) fn add(&mut self, subscribed: &str, listener: Rc<T>) {
        match subscribed.strip_suffix('*') {
            Some(prefix) => self.prefixes.push((prefix.to_owned(), listener)),
            None => self.exact.entry(subscribed.to_owned()).or_default().push(listener),
        }
    }

    /// Removes a listener that was added for this topic.
    pub(super) fn remove(&mut self, subscribed: &str, listener: &Rc<T>) {
        self.prefixes.retain(|(_, other)| !Rc::ptr_eq(other, listener));
        if let Some(listeners) = self.exact.get_mut(subscribed) {
            listeners.retain(|other| !Rc::ptr_eq(other, listener));
            if listeners.is_empty() {
                self.exact.remove(subscribed);
            }
        }
    }

    /// Everybody who gets a message of this topic. Nobody costs no allocation.
    pub(super) fn listening(&self, topic: &str) -> Vec<Rc<T>> {
        let mut found = self.exact.get(topic).cloned().unwrap_or_default();
        let wild = self.prefixes.iter().filter(|(prefix, _)| extends(prefix, topic));
        found.extend(wild.map(|(_, listener)| Rc::clone(listener)));
        found
    }

    /// Everybody.
    pub(super) fn all(&self) -> Vec<Rc<T>> {
        let exact = self.exact.values().flatten();
        exact.chain(self.prefixes.iter().map(|(_, listener)| listener)).map(Rc::clone).collect()
    }

    /// How many listeners there are.
    pub(super) fn count(&self) -> usize {
        self.exact.values().map(Vec::len).sum::<usize>() + self.prefixes.len()
    }
}

/// Whether a subscribed topic takes in this one.
pub(super) fn covers(subscribed: &str, topic: &str) -> bool {
    match subscribed.strip_suffix('*') {
        Some(prefix) => extends(prefix, topic),
        None => subscribed == topic,
    }
}

/// The bare prefix is not taken in: Dapr's rule.
fn extends(prefix: &str, topic: &str) -> bool {
    topic.len() > prefix.len() && topic.starts_with(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        let check = |subscribed: &str, topic: &str, expected: bool| {
            assert_eq!(covers(subscribed, topic), expected, "{subscribed} {topic}");
            let mut topics = Topics::default();
            let listener = Rc::new(());
            topics.add(subscribed, Rc::clone(&listener));
            assert_eq!(topics.listening(topic).len(), usize::from(expected), "{subscribed} {topic}");
            assert_eq!((topics.count(), topics.all().len()), (1, 1));
            topics.remove(subscribed, &listener);
            assert_eq!((topics.count(), topics.listening(topic).len()), (0, 0), "{subscribed} {topic}");
        };
        check("orders", "orders", true);
        check("orders", "orders1", false);
        check("orders*", "orders1", true);
        check("orders*", "orders", false);
        check("orders*", "orders*", true);
        check("orders*", "order", false);
        check("*", "a", true);
        check("**", "*", false);
        check("a*b", "axb", false);
        check("a*b", "a*b", true);
        check("größe*", "größer", true);
    }
}
