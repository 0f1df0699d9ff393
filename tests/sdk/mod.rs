//! Apps as Dapr's users write them, with Dapr's official SDKs from their registries, unmodified: publisher and
//! subscriber over HTTP, beside a host that is started with Dapr's flags, environment and YAML.
//!
//! The apps stand in `apps/`: Python with `dapr-ext-fastapi` and with `flask-dapr`, JavaScript with `@dapr/dapr`
//! (`DaprServer` and `DaprClient` over HTTP). Python's `DaprClient` publishes over gRPC only, so the Python apps publish
//! with the SDK's HTTP client instead, and the extensions know no content rules (`rules`). `install` gets all of it.

mod app;
mod port;

mod events;
mod rules;
mod together;
mod tokens;
