//! TLS for guests, by the host: names, certificates and keys never depend on a plugin's care.

use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bindings::adapter::whimbrel::pubsub::net::{NetError, TlsOptions};

/// Speaks TLS on a connection.
///
/// # Errors
/// Always `NetError::Tls`, with the host and the reason, never with key material.
pub(crate) async fn connect(
    stream: TcpStream,
    host: &str,
    options: TlsOptions,
) -> Result<TlsStream<TcpStream>, NetError> {
    let failed = |reason: String| NetError::Tls(format!("{host}: {reason}"));
    let name = options.server_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
    let name = ServerName::try_from(name).map_err(|_| failed("its name cannot stand in a certificate".to_owned()))?;
    let config = config(options).map_err(failed)?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))
}

fn config(options: TlsOptions) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?;
    let builder = if options.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        let roots = options.ca.as_deref().map_or_else(system_roots, |pem| roots(pem).map(Arc::new))?;
        builder.with_root_certificates(roots)
    };
    match options.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificates, key)) => {
            let certificates = pem_certificates(&certificates, "clientCert")?;
            let key = PrivateKeyDer::from_pem_reader(Cursor::new(key));
            // The parser's own words could quote the key.
            let key = key.map_err(|_| "clientKey holds no private key in PEM".to_owned())?;
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(|error| format!("clientCert and clientKey: {error}"))
        }
    }
}

fn pem_certificates(pem: &str, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(Cursor::new(pem)).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{key} holds no certificate in PEM")),
    }
}

fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in pem_certificates(pem, "caCert")? {
        roots.add(certificate).map_err(|error| format!("caCert: {error}"))?;
    }
    Ok(roots)
}

/// Read once: it takes tens of milliseconds.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err("this machine has no root certificates; give caCert, or install them".to_owned());
    }
    Ok(Arc::clone(roots))
}

/// Takes any certificate, for who asked for it in so many words. Signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
