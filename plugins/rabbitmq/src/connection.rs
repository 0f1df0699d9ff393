//! One connection: made, authenticated, agreed upon, and not yet divided among channels.
//!
//! Called by `wire`, which makes it again when it is lost.

use std::time::Duration;

use whimbrel_sdk::net::{self, NetError, Reader, Writer};
use whimbrel_sdk::{Failure, timer};

use crate::config::Settings;
use crate::failure::of_handshake;
use crate::protocol::{Argument, Decoder, FRAME_MIN_BYTES, Frame, HEADER, Method, Request, Table};

/// The largest frames we ask for. What RabbitMQ offers by itself.
const FRAME_MAX_BYTES: u32 = 128 << 10;

/// The most channels we ask for. What RabbitMQ offers by itself.
const CHANNELS_MAX: u16 = 2047;

/// A connection that is open.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) decoder: Decoder,
    pub(crate) agreed: Agreed,
}

/// What both sides keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) channel_max: u16,
    /// Bytes of a frame.
    pub(crate) frame_max: usize,
    /// None: no heartbeats.
    pub(crate) heartbeat: Option<Duration>,
}

/// Connects, authenticates and opens. `name` is how the connection shows up in the broker's list.
///
/// # Errors
/// `Invalid` and `Unauthorized` name the setting; any other may pass.
pub(crate) async fn dial(settings: &Settings, name: &str, patience: Duration) -> Result<Link, Failure> {
    let patience = patience.min(settings.dial_wait);
    let dialling = async {
        let connected = net::connect(&settings.host, settings.port, settings.tls.as_ref()).await;
        let (reader, writer) = connected.map_err(of_net)?;
        let agreed = Agreed { channel_max: 0, frame_max: FRAME_MIN_BYTES as usize, heartbeat: None };
        let decoder = Decoder::new(FRAME_MAX_BYTES as usize);
        let mut link = Link { reader, writer, decoder, agreed };
        greet(&mut link, settings, name).await?;
        Ok(link)
    };
    let slow = || {
        let Settings { host, port, .. } = settings;
        let hint = match settings.tls {
            Some(_) => "is it RabbitMQ's TLS port (amqps)?",
            None => "is it RabbitMQ's AMQP port, and is it one without TLS (amqp)?",
        };
        Failure::Transient(format!(
            "{host}:{port}: no answer to the greeting within {patience:?} (metadata dialTimeout): {hint}"
        ))
    };
    timer::timeout(patience, dialling).await.unwrap_or_else(|| Err(slow()))
}

fn of_net(error: NetError) -> Failure {
    match error {
        NetError::Denied(_) => Failure::Invalid(format!("metadata connectionString, hostname: {error}")),
        NetError::Tls(_) => Failure::Transient(format!(
            "metadata caCert, clientCert, clientKey, connectionString, hostname (the name in it): {error}"
        )),
        other => Failure::Transient(other.to_string()),
    }
}

/// The connection ended before it was open. A certificate of ours that is missing, or refused, shows only then.
fn lost(settings: &Settings, error: &NetError) -> Failure {
    let Settings { host, port, .. } = settings;
    Failure::Transient(match settings.tls {
        None => format!("{host}:{port}: {error}"),
        Some(_) => {
            format!("{host}:{port}: RabbitMQ ended the TLS connection (metadata clientCert, clientKey): {error}")
        }
    })
}

/// Greeting, credentials, limits, virtual host.
async fn greet(link: &mut Link, settings: &Settings, name: &str) -> Result<(), Failure> {
    link.send(settings, HEADER.to_vec()).await?;
    let Method::Start { product, mechanisms } = link.next(settings).await? else { return Err(out_of_turn(settings)) };
    let mechanism = if settings.external { "EXTERNAL" } else { "PLAIN" };
    if !mechanisms.split(' ').any(|known| known == mechanism) {
        return Err(Failure::Invalid(format!(
            "metadata saslExternal: {product} does not offer the mechanism {mechanism}, but {mechanisms}"
        )));
    }
    let response = if settings.external {
        Vec::new()
    } else {
        format!("\0{}\0{}", settings.username, settings.password.0).into_bytes()
    };
    let properties = properties(name);
    link.request(settings, &[Request::StartOk { properties: &properties, mechanism, response: &response }]).await?;
    let (channel_max, frame_max, heartbeat) = match link.next(settings).await? {
        Method::Tune { channel_max, frame_max, heartbeat } => (channel_max, frame_max, heartbeat),
        _ => return Err(out_of_turn(settings)),
    };
    let agreed = agree(settings, channel_max, frame_max, heartbeat);
    let heartbeat = agreed.heartbeat.map_or(0, |period| u16::try_from(period.as_secs()).unwrap_or(u16::MAX));
    let frame_max = u32::try_from(agreed.frame_max).unwrap_or(FRAME_MAX_BYTES);
    let tuned = Request::TuneOk { channel_max: agreed.channel_max, frame_max, heartbeat };
    link.request(settings, &[tuned, Request::Open { vhost: &settings.vhost }]).await?;
    link.agreed = agreed;
    link.decoder.frame_max = agreed.frame_max;
    match link.next(settings).await? {
        Method::OpenOk => Ok(()),
        _ => Err(out_of_turn(settings)),
    }
}

/// Of two bounds the lower one; 0 is none.
fn agree(settings: &Settings, channel_max: u16, frame_max: u32, heartbeat: u16) -> Agreed {
    let frame_max = if frame_max == 0 { FRAME_MAX_BYTES } else { frame_max.clamp(FRAME_MIN_BYTES, FRAME_MAX_BYTES) };
    let offered = Some(Duration::from_secs(heartbeat.into())).filter(|period| !period.is_zero());
    let heartbeat = match (settings.heartbeat, offered) {
        (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
        // To want none is to have none; who offers none may still be asked.
        (ours, _) => ours,
    };
    Agreed {
        channel_max: if channel_max == 0 { CHANNELS_MAX } else { channel_max.min(CHANNELS_MAX) },
        frame_max: usize::try_from(frame_max).unwrap_or(FRAME_MIN_BYTES as usize),
        heartbeat,
    }
}

fn properties(name: &str) -> Table {
    let able = vec![
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ];
    Table(vec![
        ("product", Argument::Text("Whimbrel".to_owned())),
        ("version", Argument::Text(env!("CARGO_PKG_VERSION").to_owned())),
        ("connection_name", Argument::Text(name.to_owned())),
        ("capabilities", Argument::Flags(able)),
    ])
}

fn out_of_turn(settings: &Settings) -> Failure {
    Failure::Transient(format!("{}:{}: an answer came out of turn", settings.host, settings.port))
}

impl Link {
    async fn send(&mut self, settings: &Settings, bytes: Vec<u8>) -> Result<(), Failure> {
        let Err(error) = self.writer.write_all(bytes).await else { return Ok(()) };
        // Why it was closed is told to whoever reads: a refused certificate, for example.
        let why = self.reader.read(self.decoder.room()).await.err();
        Err(lost(settings, &why.unwrap_or(error)))
    }

    async fn request(&mut self, settings: &Settings, requests: &[Request<'_>]) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        requests.iter().for_each(|request| request.write(&mut bytes, 0));
        self.send(settings, bytes).await
    }

    /// The next method of the handshake.
    async fn next(&mut self, settings: &Settings) -> Result<Method, Failure> {
        let Settings { host, port, .. } = settings;
        loop {
            let garbage =
                |malformed| Failure::Transient(format!("{host}:{port}: {malformed}: is it RabbitMQ's AMQP port?"));
            match self.decoder.next().map_err(garbage)? {
                Some(Frame::Method(_, payload)) => {
                    return match Method::read(payload).map_err(garbage)? {
                        Method::Close(closed) => {
                            let failure = of_handshake(&closed, &settings.username, &settings.vhost);
                            // The broker waits for this before it lets go; without it the log there says we were rude.
                            self.request(settings, &[Request::CloseOk]).await.ok();
                            Err(failure)
                        }
                        Method::Secure => Err(Failure::Invalid(
                            "RabbitMQ asks for more than one answer to prove who we are, which is not supported"
                                .to_owned(),
                        )),
                        method => Ok(method),
                    };
                }
                Some(_) => {}
                None => {
                    self.reader.read(self.decoder.room()).await.map_err(|error| lost(settings, &error))?;
                }
            }
        }
    }
}
