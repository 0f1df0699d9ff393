//! Where an event goes within its app: the first rule that is true for it, else the default. Called by `deliver`.

use std::sync::Arc;

use whimbrel_resources::{Facts, Rule, Subscription};

use crate::event::Event;

/// The routes of one subscription, ready to be taken.
#[derive(Debug)]
pub(crate) struct Routes {
    rules: Vec<(Rule, Arc<str>)>,
    default: Option<Arc<str>>,
}

impl Routes {
    /// The routes of a subscription. A rule without an expression takes every event that comes to it, so it is the
    /// default, and what follows it is never asked.
    pub(crate) fn new(declared: &Subscription) -> Self {
        let open = declared.rules.iter().position(|rule| rule.expression().is_empty());
        let (rules, default) = match open.and_then(|at| declared.rules.split_at_checked(at)) {
            Some((before, after)) => (before, after.first().map(Rule::path)),
            None => (&*declared.rules, declared.default_route.as_deref()),
        };
        Self {
            rules: rules.iter().map(|rule| (rule.clone(), Arc::from(rule.path()))).collect(),
            default: default.map(Arc::from),
        }
    }

    /// The path for an event. `None`: no route takes it.
    ///
    /// # Errors
    /// A rule cannot be evaluated for this event. No later one is asked: it might be meant for other events (Dapr).
    pub(crate) fn select(&self, event: &Event) -> Result<Option<Arc<str>>, String> {
        if !self.rules.is_empty() {
            let facts = event.facts(|attribute| self.rules.iter().any(|(rule, _)| rule.looks_at(attribute)));
            let facts = Facts::new(facts)?;
            for (rule, path) in &self.rules {
                if rule.accepts(&facts)? {
                    return Ok(Some(Arc::clone(path)));
                }
            }
        }
        Ok(self.default.clone())
    }
}

#[cfg(test)]
mod tests;
