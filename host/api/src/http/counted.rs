//! A request of the API as it is counted (pubsub-behaviour, section 13.2). Called by `http` around each of them.

use std::time::Instant;

use http::{Method, Uri, request};
use hyper::body::Body;
use whimbrel_pubsub::{Metrics, Served};

use super::Answer;
use super::route::Route;
use crate::path;

/// A request that has begun. Its address is not copied.
pub(super) struct Request {
    uri: Uri,
    name: &'static str,
    verb: &'static str,
    bytes: u64,
    begun: Instant,
}

impl Request {
    pub(super) fn begin(head: &request::Parts, body: &impl Body) -> Self {
        let name = Route::of(&head.method, &path::clean(head.uri.path())).name();
        let bytes = body.size_hint().exact().unwrap_or_default();
        Self { uri: head.uri.clone(), name, verb: verb(&head.method), bytes, begun: Instant::now() }
    }

    /// It has its answer.
    pub(super) fn end(self, metrics: &Metrics, answer: &Answer) {
        let Self { uri, name, verb, bytes, begun } = self;
        let (status, size) = (answer.status().as_u16(), answer.body().size_hint().lower());
        let path = path::clean(uri.path());
        metrics.served(Served { name, verb, path: &path, status, took: begun.elapsed(), bytes: [bytes, size] });
    }
}

/// A method as a label: clients may make up others.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "UNKNOWN",
    }
}
