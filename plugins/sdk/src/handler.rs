//! Handlers: one function from an event to an outcome.

pub use crate::bindings::subscriber::whimbrel::pubsub::events::{DeliveryInfo, Event, Outcome};
pub use crate::bindings::subscriber::whimbrel::pubsub::publisher::PublishError;

/// Publishes under this handler's own identity, and returns once the broker has confirmed.
///
/// # Errors
/// See [`PublishError`]. After `Failed` the message may be stored or not: answer an error, or publish again.
#[cfg(target_family = "wasm")]
pub fn publish(
    pubsub_name: &str,
    topic: &str,
    data: &[u8],
    content_type: &str,
    metadata: &[(&str, &str)],
) -> Result<(), PublishError> {
    let metadata: Vec<_> = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    crate::bindings::subscriber::whimbrel::pubsub::publisher::publish(
        pubsub_name,
        topic,
        data,
        Some(content_type),
        &metadata,
    )
}

/// What a handler published outside a component.
#[cfg(not(target_family = "wasm"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The broker.
    pub pubsub_name: String,
    /// The topic.
    pub topic: String,
    /// The data.
    pub data: Vec<u8>,
    /// Its content type.
    pub content_type: String,
    /// What `metadata.*` is over HTTP.
    pub metadata: Vec<(String, String)>,
}

/// What may be published and not taken, outside a component.
#[cfg(not(target_family = "wasm"))]
const PUBLISHED_MAX: usize = 10_000;

#[cfg(not(target_family = "wasm"))]
thread_local! {
    static PUBLISHED: std::cell::RefCell<Vec<Published>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Outside a component there is no host: a test takes what was published with [`take_published`].
///
/// # Errors
/// `Failed` once 10,000 were published and not taken.
#[cfg(not(target_family = "wasm"))]
pub fn publish(
    pubsub_name: &str,
    topic: &str,
    data: &[u8],
    content_type: &str,
    metadata: &[(&str, &str)],
) -> Result<(), PublishError> {
    let published = Published {
        pubsub_name: pubsub_name.to_owned(),
        topic: topic.to_owned(),
        data: data.to_owned(),
        content_type: content_type.to_owned(),
        metadata: metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    PUBLISHED.with_borrow_mut(|all| {
        if all.len() >= PUBLISHED_MAX {
            return Err(PublishError::Failed(format!("{PUBLISHED_MAX} were published and not taken")));
        }
        all.push(published);
        Ok(())
    })
}

/// Takes what this thread has published outside a component, oldest first.
#[cfg(not(target_family = "wasm"))]
#[must_use]
pub fn take_published() -> Vec<Published> {
    PUBLISHED.take()
}

/// Exports a function `fn(Event, DeliveryInfo) -> Result<Outcome, String>` as the component's handler.
#[macro_export]
macro_rules! export_handler {
    ($handle:path) => {
        #[cfg(target_family = "wasm")]
        mod whimbrel_exports {
            #![allow(unsafe_code, unused_imports, reason = "the generated entry points of the component")]
            use super::*;
            use $crate::handler::{DeliveryInfo, Event, Outcome};
            struct Exports;
            impl $crate::bindings::subscriber::exports::whimbrel::pubsub::handler::Guest for Exports {
                fn handle(event: Event, info: DeliveryInfo) -> Result<Outcome, String> {
                    $handle(event, info)
                }
            }
            $crate::bindings::subscriber::export!(Exports with_types_in $crate::bindings::subscriber);
        }
    };
}
