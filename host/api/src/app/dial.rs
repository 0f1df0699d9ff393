//! How the app is reached: plainly, through TLS, or with HTTP/2 without it (`--app-protocol`, pubsub-behaviour 6.8). Called
//! by `App`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::AppConnection;

/// What is spoken with the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 through TLS 1.2 or later. As Dapr has it, the app's certificate is not looked at.
    Https,
    /// HTTP/2 without TLS.
    H2c,
}

impl AppProtocol {
    /// By its name, whatever its case. `None`: no such protocol, or one that is not spoken here.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Http, Self::Https, Self::H2c].into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        }
    }
}

/// A connection, through TLS or not.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Makes connections to one app.
pub(super) struct Dial {
    /// None: without TLS. An error: there is none to be had.
    tls: Option<Result<TlsConnector, rustls::Error>>,
    name: ServerName<'static>,
}

impl Dial {
    pub(super) fn new(connection: &AppConnection) -> Self {
        let tls = (connection.protocol == AppProtocol::Https).then(trusting);
        // What is no name of a host is not told to the server; nobody compares it with the certificate.
        let nameless = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
        let name = ServerName::try_from(connection.address.clone()).unwrap_or(nameless);
        Self { tls, name }
    }

    /// A connection, ready to be spoken on.
    ///
    /// # Errors
    /// Nobody listens there, or what does speaks no TLS though it is to.
    pub(super) async fn stream(&self, to: &AppConnection) -> io::Result<Stream> {
        let stream = plain(to).await?;
        // Only a socket that is gone refuses, and that shows at the first write.
        stream.set_nodelay(true).ok();
        match &self.tls {
            None => Ok(Either::Left(stream)),
            Some(Err(error)) => Err(io::Error::other(error.clone())),
            Some(Ok(connector)) => {
                let stream = connector.connect(self.name.clone(), stream).await?;
                Ok(Either::Right(Box::new(stream)))
            }
        }
    }
}

/// A connection on which nothing was said.
pub(super) async fn plain(to: &AppConnection) -> io::Result<TcpStream> {
    TcpStream::connect((to.address.as_str(), to.port)).await
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dial(tls: {})", self.tls.is_some())
    }
}

/// TLS with whatever certificate.
fn trusting() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes any certificate; signatures are still checked.
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
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
