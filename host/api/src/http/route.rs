//! The routes of the HTTP API: a method and a cleaned, still escaped path become one of a closed set. Pure text; called by
//! `http::answer`. Topics may hold slashes, so this is no router's work.

use http::Method;

/// What a request is for. Names are still escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `POST|PUT /v1.0/publish/{pubsub}/{topic...}`.
    Publish {
        /// The broker.
        pubsub: &'a str,
        /// All the rest, slashes included.
        topic: &'a str,
    },
    /// `POST|PUT /v1.0/publish/bulk/{pubsub}/{topic...}`, in two versions.
    BulkPublish {
        /// The broker.
        pubsub: &'a str,
        /// All the rest, slashes included.
        topic: &'a str,
    },
    /// `GET /v1.0/healthz`.
    Health,
    /// `GET /v1.0/healthz/outbound`.
    OutboundHealth,
    /// `GET /v1.0/metadata`.
    Metadata,
    /// `PUT /v1.0/metadata/{key}`.
    SetMetadata(&'a str),
    /// `POST /v1.0/shutdown`.
    Shutdown,
    /// `GET /v1.0/openapi.json`: ours.
    OpenApi,
    /// Nothing of ours.
    Other,
}

impl<'a> Route<'a> {
    /// The route of a request.
    pub(crate) fn of(method: &Method, path: &'a str) -> Self {
        if let Some(rest) = path.strip_prefix("/v1.0/publish/") {
            return if is_write(method) { Self::publish(rest) } else { Self::Other };
        }
        if let Some(rest) = path.strip_prefix("/v1.0-alpha1/publish/bulk/") {
            return if is_write(method) { Self::bulk(rest).unwrap_or(Self::Other) } else { Self::Other };
        }
        match (method, path) {
            (&Method::GET, "/v1.0/healthz") => Self::Health,
            (&Method::GET, "/v1.0/healthz/outbound") => Self::OutboundHealth,
            (&Method::GET, "/v1.0/metadata") => Self::Metadata,
            (&Method::POST, "/v1.0/shutdown") => Self::Shutdown,
            (&Method::GET, "/v1.0/openapi.json") => Self::OpenApi,
            (&Method::PUT, _) => path.strip_prefix("/v1.0/metadata/").map_or(Self::Other, Self::set_metadata),
            _ => Self::Other,
        }
    }

    /// What is called, in Dapr's words where it has any.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Publish { .. } => "PublishEvent",
            Self::BulkPublish { .. } => "BulkPublishEvent",
            Self::Health => "Healthz",
            Self::OutboundHealth => "HealthzOutbound",
            Self::Metadata => "GetMetadata",
            Self::SetMetadata(_) => "SetMetadata",
            Self::Shutdown => "Shutdown",
            Self::OpenApi => "OpenApi",
            Self::Other => "Unknown",
        }
    }

    fn publish(rest: &'a str) -> Self {
        let bulk = rest.strip_prefix("bulk/").and_then(Self::bulk);
        let plain = || rest.split_once('/').map(|(pubsub, topic)| Self::Publish { pubsub, topic });
        bulk.or_else(plain).unwrap_or(Self::Other)
    }

    fn bulk(rest: &'a str) -> Option<Self> {
        rest.split_once('/').map(|(pubsub, topic)| Self::BulkPublish { pubsub, topic })
    }

    fn set_metadata(key: &'a str) -> Self {
        if key.is_empty() || key.contains('/') { Self::Other } else { Self::SetMetadata(key) }
    }
}

fn is_write(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT)
}

#[cfg(test)]
mod tests;
