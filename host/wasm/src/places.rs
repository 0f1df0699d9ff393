//! Which instance of an adapter holds which subscription. While an instance is replaced there are two, and both may be the
//! same consumer at the broker, so a group's topic belongs to one of them at a time. Called by the worker.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use whimbrel_pubsub::Lags;

/// A topic and a group.
type Key = (Arc<str>, String);

/// The instance that holds a place, and how many of its subscriptions do.
type Holder = (u64, usize);

/// All places of one broker, and how far behind they are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    held: Arc<watch::Sender<HashMap<Key, Holder>>>,
    lags: Lags,
}

/// A place is held as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    key: Key,
}

impl Places {
    pub(crate) fn new(lags: Lags) -> Self {
        Self { held: Arc::new(watch::Sender::new(HashMap::new())), lags }
    }

    /// An adapter tells how far a place is behind. Of a place that nobody holds it says nothing: topics and groups are its
    /// own words.
    pub(crate) fn lag(&self, topic: &str, group: &str, messages: u64) {
        let held = self.held.borrow();
        if held.contains_key(&(Arc::from(topic), group.to_owned())) {
            self.lags.tell(topic, group, messages);
        }
    }

    /// Takes a place, once no other instance has it. An instance may have it more than once.
    pub(crate) async fn take(&self, instance: u64, topic: Arc<str>, group: String) -> Place {
        let key = (topic, group);
        let mut changes = self.held.subscribe();
        loop {
            if self.held.send_if_modified(|held| enter(held, instance, &key)) {
                return Place { places: self.clone(), key };
            }
            let is_free = |held: &HashMap<Key, Holder>| held.get(&key).is_none_or(|(holder, _)| *holder == instance);
            // The sender is ours, so it is there.
            changes.wait_for(is_free).await.ok();
        }
    }
}

fn enter(held: &mut HashMap<Key, Holder>, instance: u64, key: &Key) -> bool {
    let (holder, count) = held.entry(key.clone()).or_insert((instance, 0));
    let mine = *holder == instance;
    *count += usize::from(mine);
    mine
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held.send_modify(|held| {
            if let Some((_, count)) = held.get_mut(&self.key) {
                *count -= 1;
                if *count == 0 {
                    held.remove(&self.key);
                    self.places.lags.forget(&self.key.0, &self.key.1);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use whimbrel_pubsub::Metrics;

    use super::*;

    fn places(metrics: &Metrics) -> Places {
        Places::new(metrics.lags("bus", None))
    }

    #[test]
    fn only_who_is_there_can_be_behind() {
        let metrics = Metrics::default();
        let places = places(&metrics);
        let shown = || metrics.text().lines().filter(|line| line.starts_with("whimbrel_lag")).count();
        let mine = places.take(1, Arc::from("t"), "me".to_owned()).now_or_never().unwrap();
        let again = places.take(1, Arc::from("t"), "me".to_owned()).now_or_never().unwrap();
        places.lag("t", "me", 3);
        places.lag("t", "nobody", 3);
        places.lag("made up", "me", 3);
        assert_eq!(shown(), 1, "{}", metrics.text());
        drop(mine);
        assert_eq!(shown(), 1, "one of its subscriptions is left");
        drop(again);
        assert_eq!(shown(), 0, "{}", metrics.text());
    }

    #[test]
    fn one_instance_at_a_time() {
        let places = places(&Metrics::default());
        let take = |instance, topic: &str| Box::pin(places.take(instance, Arc::from(topic), "me".to_owned()));
        let first = take(1, "a").now_or_never().unwrap();
        let again = take(1, "a").now_or_never().unwrap();
        let mut other = take(2, "a");
        assert!((&mut other).now_or_never().is_none());
        assert!(take(2, "b").now_or_never().is_some(), "another topic");
        drop(first);
        assert!((&mut other).now_or_never().is_none(), "one is left");
        drop(again);
        let other = other.now_or_never().unwrap();
        assert!(take(1, "a").now_or_never().is_none());
        drop(other);
        assert!(take(1, "a").now_or_never().is_some());
    }
}
