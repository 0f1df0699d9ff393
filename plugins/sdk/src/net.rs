//! A TCP connection, with or without TLS, to an address that the resource grants.

use std::fmt;

#[cfg(target_family = "wasm")]
mod component;
#[cfg(not(target_family = "wasm"))]
mod native;

#[cfg(target_family = "wasm")]
pub use component::{Reader, Socket, Writer};
#[cfg(not(target_family = "wasm"))]
pub use native::{Reader, Socket, Writer};

/// Room that a read makes in its buffer, in bytes.
const READ_ROOM_BYTES: usize = 64 * 1024;

/// Bytes that a [`Socket`] reads at once.
const GREETING_ROOM_BYTES: usize = 16 * 1024;

/// Connects to a host by its name or address.
///
/// # Errors
/// See [`NetError`].
pub async fn connect(host: &str, port: u16, tls: Option<&Tls>) -> Result<(Reader, Writer), NetError> {
    Ok(Socket::connect(host, port, tls).await?.split())
}

/// How to speak TLS. All certificates and keys are PEM text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The name the certificate must carry; none: the host that was connected to.
    pub server_name: Option<String>,
    /// Certificates to trust instead of the system's.
    pub ca: Option<String>,
    /// This side's certificate and key.
    pub identity: Option<(String, String)>,
    /// Accept any certificate.
    pub skip_verify: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The identity holds a private key.
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .field("skip_verify", &self.skip_verify)
            .finish_non_exhaustive()
    }
}

/// Why a connection was not made, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetError {
    /// The resource does not grant this address.
    Denied(String),
    /// Nobody answers there, or the name does not resolve.
    Unreachable(String),
    /// TLS failed.
    Tls(String),
    /// The connection was made and broke, or was closed.
    Broken(String),
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(text) => write!(f, "denied: {text}"),
            Self::Unreachable(text) => write!(f, "unreachable: {text}"),
            Self::Tls(text) => write!(f, "TLS: {text}"),
            Self::Broken(text) => write!(f, "connection lost: {text}"),
        }
    }
}
