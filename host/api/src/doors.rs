//! Everything the HTTP API needs to know, made by the binary and shared by all connections. Plain values; no behaviour.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use whimbrel_pubsub::{Caller, Topology};
use whimbrel_resources::{ApiAccess, ApiLogging, Subscription, Text};

use crate::app::AppConnection;
use crate::cors::Origins;
use crate::health::Health;

/// The largest request body unless something else is set, bytes (pubsub-behaviour 1.6).
const BODY_BYTES_MAX_DEFAULT: u64 = 4 * 1024 * 1024;

/// The largest block of request headers unless something else is set, bytes (pubsub-behaviour 1.6).
pub const HEAD_BYTES_MAX_DEFAULT: u64 = 4 * 1024;

/// Connections served at the same time unless something else is set.
const CONNECTIONS_MAX_DEFAULT: usize = 4096;

/// What stands behind the HTTP API, in single-app mode: whoever reaches it, with the token if one is set, is the one app.
#[derive(Debug)]
pub struct Doors {
    /// What runs. A reload swaps it; a request keeps the one it started with.
    pub topology: Arc<ArcSwap<Topology>>,
    /// The one app.
    pub caller: Caller,
    /// What `dapr-api-token` must hold. `None`: nothing is asked.
    pub api_token: Option<Text>,
    /// What of the API may be called.
    pub access: ApiAccess,
    /// Which calls of it have a line in the log.
    pub api_logging: ApiLogging,
    /// The largest request body, bytes. `None`: no limit of its own (what all bodies share stays bounded).
    pub body_bytes_max: Option<u64>,
    /// The largest block of request headers, bytes.
    pub head_bytes_max: u64,
    /// Whether cleartext HTTP/2 is spoken besides HTTP/1.1 (pubsub-behaviour 1.1).
    pub http2: bool,
    /// Connections served at the same time. For one more a silent one has to go; while all are busy it waits.
    pub connections_max: usize,
    /// The web pages that may call. `None`: nothing is said to browsers.
    pub origins: Option<Origins>,
    /// Dapr's names of features that are on, for the metadata API.
    pub enabled_features: Vec<&'static str>,
    /// What is ready.
    pub health: Arc<Health>,
    /// How the app is reached, for the metadata API. `None`: no app port was given.
    pub app: Option<AppConnection>,
    /// Whether the app is well, for the metadata API. `None`: nobody asks it.
    pub app_health: Option<watch::Receiver<bool>>,
    /// What is subscribed to, active or not, for the metadata API.
    pub subscriptions: ArcSwap<Vec<Arc<Subscription>>>,
    /// Names of the `Resiliency` resources, for the metadata API.
    pub resiliencies: ArcSwap<Vec<String>>,
    /// What clients set with `PUT /v1.0/metadata/{key}`.
    pub extended: Mutex<BTreeMap<String, String>>,
    /// Cancelled by `POST /v1.0/shutdown`.
    pub shutdown: CancellationToken,
    /// Cancelled by the same with `dapr-force-shutdown: true`: exit code 1, nothing is drained.
    pub force_shutdown: CancellationToken,
}

impl Doors {
    /// Doors with the usual limits, no token and no app. What differs is set field by field.
    #[must_use]
    pub fn new(topology: Arc<ArcSwap<Topology>>, caller: Caller, health: Arc<Health>) -> Self {
        Self {
            topology,
            caller,
            api_token: None,
            access: ApiAccess::default(),
            api_logging: ApiLogging::default(),
            body_bytes_max: Some(BODY_BYTES_MAX_DEFAULT),
            head_bytes_max: HEAD_BYTES_MAX_DEFAULT,
            connections_max: CONNECTIONS_MAX_DEFAULT,
            http2: true,
            origins: None,
            enabled_features: Vec::new(),
            health,
            app: None,
            app_health: None,
            subscriptions: ArcSwap::default(),
            resiliencies: ArcSwap::default(),
            extended: Mutex::default(),
            shutdown: CancellationToken::new(),
            force_shutdown: CancellationToken::new(),
        }
    }
}
