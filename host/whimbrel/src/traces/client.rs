//! The HTTP client of the exporters. Trusts whom the system trusts, as every TLS of this host does.

use std::time::Duration;

use anyhow::Context as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// A client whose requests may take so long.
///
/// # Errors
/// TLS cannot be set up.
pub(super) fn client(endpoint: &str, wait: Duration) -> anyhow::Result<HyperClient<HttpsConnector<HttpConnector>>> {
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
    Ok(HyperClient::new(connector, wait, None))
}
