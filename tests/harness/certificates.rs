//! A certificate authority of one test, and what it has signed. Called by the tests of TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::Test;

/// An authority nobody knows but this test.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate (PEM).
    pub(crate) pem: String,
}

/// A certificate and its key (PEM).
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Identity {
    /// A server that shows it, and speaks HTTP/2 and HTTP/1.1.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Authority {
    /// A new one, whose certificate stands in a new folder as `ca.pem`.
    pub(crate) fn new(test: &Test) -> Result<Self> {
        let folder = test.folder("certificates")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        std::fs::write(folder.join("ca.pem"), &pem)?;
        Ok(Self { folder, issuer: Issuer::new(params, key), pem })
    }

    /// The file with its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Signs a certificate for a host name or address.
    pub(crate) fn sign(&self, name: &str) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([name.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// Signs a certificate for a server, and puts it into the folder as `server.pem`, its key as `server.key`.
    pub(crate) fn sign_server(&self, name: &str) -> Result<&Path> {
        let Identity { certificate, key } = self.sign(name)?;
        std::fs::write(self.folder.join("server.pem"), certificate)?;
        std::fs::write(self.folder.join("server.key"), key)?;
        Ok(&self.folder)
    }
}
