//! The HTTP client of the exporters. Trusts whom the system trusts, as every TLS of this host does.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use http::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// A client that remembers why its last request failed: the exporter for OTLP does not say it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    inner: HyperClient<HttpsConnector<HttpConnector>>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Client {
    /// Why the last request failed, if it did and nobody has asked yet.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.inner.send_bytes(request).await;
        let failure = answer.as_ref().err().map(|error| chain(&**error));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        answer
    }
}

/// A failure with its causes: of a connection that is refused the first says no more than that it failed.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").ok();
        cause = error.source();
    }
    text
}

/// A client whose requests may take so long.
///
/// # Errors
/// TLS cannot be set up.
pub(super) fn client(endpoint: &str, wait: Duration) -> anyhow::Result<Client> {
    let mut roots = RootCertStore::empty();
    // Reading them takes tens of milliseconds, so only where they are needed.
    if endpoint.starts_with("https://") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Ok(Client { inner: HyperClient::new(connector, wait, None), failure: Arc::default() })
}
