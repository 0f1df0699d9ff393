//! One connection, from nothing to where requests may be sent: TCP and TLS, versions, credentials.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsRequest, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Request, StrBytes};
use whimbrel_sdk::net::{self, NetError, Reader, Writer};
use whimbrel_sdk::{Failure, timer};

use super::frame::{self, Frames, GREETING_MAX_BYTES};
use super::scram::Scram;
use super::versions::Versions;
use crate::config::{Mechanism, Sasl, Settings};
use crate::failure::error;

/// Room for an answer besides the batches in it.
const ANSWER_ROOM_BYTES: usize = 1 << 20;

/// Answers may always be so large.
const ANSWER_MAX_BYTES_MIN: usize = 32 << 20;

/// Of the time for which credentials hold, so much is used before they are shown again.
const SESSION_PART: f64 = 0.8;

/// A host and a port.
pub(crate) type Address = (String, u16);

/// A connection that is ready for requests.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) frames: Frames,
    pub(crate) versions: Versions,
    /// When the credentials must be shown again, on a new connection.
    pub(crate) expires: Option<Instant>,
}

/// Connects and authenticates within `patience`.
///
/// # Errors
/// `Invalid` and `Unauthorized` name the setting; any other may pass.
pub(crate) async fn dial(settings: &Settings, address: &Address, patience: Duration) -> Result<Dialled, Failure> {
    let (host, port) = address;
    let at = |failure| located(failure, host, *port);
    let dialling = async {
        let connected = net::connect(host, *port, settings.tls.as_ref()).await;
        let (reader, writer) = connected.map_err(of_net)?;
        let frames = Frames::new(GREETING_MAX_BYTES);
        let client_id = StrBytes::from_string(settings.client_id.clone());
        Greeting { reader, writer, frames, client_id, asked: 0 }.greet(settings).await
    };
    match timer::timeout(patience, dialling).await {
        Some(dialled) => dialled.map_err(at),
        None => Err(at(Failure::Transient(format!(
            "no answer to the greeting within {patience:?}: is it Kafka, {} (metadata brokers, dialTimeout)?",
            if settings.tls.is_some() { "and does it speak TLS there" } else { "and does it take clients without TLS" }
        )))),
    }
}

fn of_net(error: NetError) -> Failure {
    match error {
        NetError::Denied(_) => Failure::Invalid(
            "the resource does not grant this address, which the cluster advertises: name it in the annotation \
             whimbrel.dev/network, or mend the brokers' advertised.listeners"
                .to_owned(),
        ),
        NetError::Tls(text) => {
            Failure::Transient(format!("TLS: {text} (metadata brokers, caCert, clientCert, skipVerify, disableTls)"))
        }
        other => Failure::Transient(other.to_string()),
    }
}

fn located(failure: Failure, host: &str, port: u16) -> Failure {
    let at = |text| format!("{host}:{port}: {text}");
    match failure {
        Failure::Invalid(text) => Failure::Invalid(at(text)),
        Failure::Unauthorized(text) => Failure::Unauthorized(at(text)),
        Failure::Transient(text) => Failure::Transient(at(text)),
        Failure::Permanent(text) => Failure::Permanent(at(text)),
        other => other,
    }
}

/// A connection on which one thing is said at a time.
struct Greeting {
    reader: Reader,
    writer: Writer,
    frames: Frames,
    client_id: StrBytes,
    asked: i32,
}

impl Greeting {
    async fn greet(mut self, settings: &Settings) -> Result<Dialled, Failure> {
        let versions = self.ask_versions().await?;
        let mut expires = None;
        if let Some(sasl) = &settings.sasl {
            self.ask::<SaslHandshakeRequest>(&versions, &handshake(sasl), |answer| of_handshake(sasl, &answer)).await?;
            let lifetime = self.authenticate(&versions, sasl).await?;
            expires = lifetime.map(|lifetime| timer::now() + lifetime.mul_f64(SESSION_PART));
        }
        let Self { reader, writer, mut frames, .. } = self;
        frames.allow(ANSWER_MAX_BYTES_MIN.max(settings.max_message_bytes.saturating_add(ANSWER_ROOM_BYTES)));
        Ok(Dialled { reader, writer, frames, versions, expires })
    }

    /// The oldest version is known to all brokers, and says all there is to know here.
    async fn ask_versions(&mut self) -> Result<Versions, Failure> {
        const VERSION: i16 = 0;
        const CORRELATION_BYTES: usize = 4;
        let answer = self.exchange(&ApiVersionsRequest::default(), VERSION).await?;
        let versions = answer.get(CORRELATION_BYTES..).and_then(|_| Versions::read(answer.slice(CORRELATION_BYTES..)));
        versions.ok_or_else(|| Failure::Transient("what answers there does not say which requests it knows".to_owned()))
    }

    async fn authenticate(&mut self, versions: &Versions, sasl: &Sasl) -> Result<Option<Duration>, Failure> {
        let (username, password) = (&sasl.username, &sasl.password.0);
        let answer = if sasl.mechanism == Mechanism::Plain {
            self.present(versions, format!("\0{username}\0{password}")).await?
        } else {
            let is_512 = sasl.mechanism == Mechanism::ScramSha512;
            let (mut scram, first) = Scram::begin(is_512, username, password);
            let server_first = said(&self.present(versions, first).await?)?;
            let last = scram.answer(&server_first).map_err(|why| refused(&why))?;
            let answer = self.present(versions, last).await?;
            scram.check(&said(&answer)?).map_err(|why| refused(&why))?;
            answer
        };
        Ok(u64::try_from(answer.session_lifetime_ms).ok().filter(|millis| *millis > 0).map(Duration::from_millis))
    }

    async fn present(&mut self, versions: &Versions, text: String) -> Result<SaslAuthenticateResponse, Failure> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(text));
        self.ask::<SaslAuthenticateRequest>(versions, &request, |answer| match error(answer.error_code) {
            None => Ok(answer),
            Some(ResponseError::SaslAuthenticationFailed) => {
                Err(refused(answer.error_message.as_deref().unwrap_or("the credentials are wrong")))
            }
            Some(other) => Err(Failure::Transient(format!("authentication: {other}"))),
        })
        .await
    }

    async fn ask<R: Request>(
        &mut self,
        versions: &Versions,
        request: &R,
        read: impl FnOnce(R::Response) -> Result<R::Response, Failure>,
    ) -> Result<R::Response, Failure> {
        let unknown = || Failure::Invalid("the broker knows no SASL: set metadata authType to none or mtls".to_owned());
        let version = versions.choose::<R>().ok_or_else(unknown)?;
        let answer = self.exchange(request, version).await?;
        frame::decode::<R>(answer, version).map_err(Failure::Transient).and_then(read)
    }

    async fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<Bytes, Failure> {
        self.asked += 1;
        let bytes = frame::encode(request, version, self.asked, &self.client_id).map_err(Failure::Permanent)?;
        self.writer.write_all(bytes).await.map_err(|error| broken(&error))?;
        loop {
            // Whoever says such things is no Kafka, and will not become one.
            if let Some(answer) =
                self.frames.next().map_err(|who| Failure::Invalid(format!("metadata brokers: {who}")))?
            {
                let ours = frame::correlation(&answer) == Some(self.asked);
                let other = || Failure::Transient("what answers there does not speak Kafka's protocol".to_owned());
                return if ours { Ok(answer) } else { Err(other()) };
            }
            self.reader.read(self.frames.room()).await.map_err(|error| broken(&error))?;
        }
    }
}

fn broken(error: &NetError) -> Failure {
    Failure::Transient(format!(
        "{error}, before it said who it is: is it Kafka, and do TLS (metadata clientCert, disableTls) and authType fit the \
         listener?"
    ))
}

fn handshake(sasl: &Sasl) -> SaslHandshakeRequest {
    SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(sasl.mechanism.name()))
}

fn of_handshake(
    sasl: &Sasl,
    answer: &kafka_protocol::messages::SaslHandshakeResponse,
) -> Result<kafka_protocol::messages::SaslHandshakeResponse, Failure> {
    match error(answer.error_code) {
        None => Ok(answer.clone()),
        Some(ResponseError::UnsupportedSaslMechanism) => {
            let offered: Vec<&str> = answer.mechanisms.iter().map(|mechanism| mechanism.as_str()).collect();
            let ours = sasl.mechanism.name();
            Err(Failure::Invalid(format!(
                "metadata saslMechanism: the broker does not take {ours}, but {}",
                if offered.is_empty() { "no SASL at all".to_owned() } else { offered.join(", ") }
            )))
        }
        Some(ResponseError::IllegalSaslState) => Err(Failure::Invalid(
            "metadata authType: this listener does not ask for a password; set it to none or mtls, or use the SASL listener"
                .to_owned(),
        )),
        Some(other) => Err(Failure::Transient(format!("SASL: {other}"))),
    }
}

fn said(answer: &SaslAuthenticateResponse) -> Result<String, Failure> {
    let text = String::from_utf8(answer.auth_bytes.to_vec());
    text.map_err(|_| Failure::Transient("the broker's SCRAM message is no text".to_owned()))
}

fn refused(why: &str) -> Failure {
    Failure::Unauthorized(format!("metadata saslUsername, saslPassword: the broker does not accept them: {why}"))
}
