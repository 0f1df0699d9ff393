//! The JSON Schema of each kind of resource (`schemas/*.json`, draft 2020-12), for editors and for whoever checks files
//! before a host sees them. Called by `whimbrel schema`.
//!
//! The readers in `raw` decide what a resource means; the schemas repeat its shape, and the tests compare the two key by
//! key. Keys are spelled as they are documented: the host takes them in any case, an editor should not.

/// One kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// What it is asked for by, in lower case.
    pub name: &'static str,
    /// `apiVersion` of its documents.
    pub api_version: &'static str,
    /// `kind` of its documents.
    pub kind: &'static str,
    /// The schema, a JSON document.
    pub text: &'static str,
}

/// Every kind; of several with one `kind`, the usual one first.
pub const SCHEMAS: [Schema; 8] = [
    Schema {
        name: "component",
        api_version: "dapr.io/v1alpha1",
        kind: "Component",
        text: include_str!("../schemas/component.json"),
    },
    Schema {
        name: "secret-store",
        api_version: "dapr.io/v1alpha1",
        kind: "Component",
        text: include_str!("../schemas/secret-store.json"),
    },
    Schema {
        name: "subscription-v2alpha1",
        api_version: "dapr.io/v2alpha1",
        kind: "Subscription",
        text: include_str!("../schemas/subscription-v2alpha1.json"),
    },
    Schema {
        name: "subscription-v1alpha1",
        api_version: "dapr.io/v1alpha1",
        kind: "Subscription",
        text: include_str!("../schemas/subscription-v1alpha1.json"),
    },
    Schema {
        name: "resiliency",
        api_version: "dapr.io/v1alpha1",
        kind: "Resiliency",
        text: include_str!("../schemas/resiliency.json"),
    },
    Schema {
        name: "configuration",
        api_version: "dapr.io/v1alpha1",
        kind: "Configuration",
        text: include_str!("../schemas/configuration.json"),
    },
    Schema {
        name: "handler",
        api_version: "whimbrel.dev/v1alpha1",
        kind: "Handler",
        text: include_str!("../schemas/handler.json"),
    },
    Schema {
        name: "conformance",
        api_version: "whimbrel.dev/v1alpha1",
        kind: "Conformance",
        text: include_str!("../schemas/conformance.json"),
    },
];

impl Schema {
    /// The schema of that name, else the usual one of that kind; without regard to case.
    #[must_use]
    pub fn find(asked: &str) -> Option<&'static Self> {
        let is = |text: &str| text.eq_ignore_ascii_case(asked);
        let by_name = SCHEMAS.iter().find(|schema| is(schema.name));
        by_name.or_else(|| SCHEMAS.iter().find(|schema| is(schema.kind)))
    }
}

#[cfg(test)]
mod tests;
