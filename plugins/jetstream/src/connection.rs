//! One connection: made, encrypted, authenticated, and not yet divided among those who write and read it.
//!
//! Called by `wire`, which reconnects by itself.

use std::time::Duration;

use whimbrel_sdk::net::{NetError, Reader, Socket, Writer};
use whimbrel_sdk::{Failure, timer};

use crate::auth;
use crate::config::{Server, Settings};
use crate::failure::{denied, denied_subject, of_credentials};
use crate::protocol::{Decoder, Info, Op, PING, connect, subscribe};

/// Why a connection ended, for people.
pub(crate) type Why = String;

/// The subscription that all answers come to.
pub(crate) const INBOX_SID: u64 = 1;

/// A connection that is ready.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) decoder: Decoder,
    pub(crate) info: Info,
}

/// Connects, authenticates, and subscribes to the inbox.
///
/// # Errors
/// `Invalid` and `Unauthorized` name the setting; any other may pass.
pub(crate) async fn dial(
    settings: &Settings,
    server: &Server,
    inbox: &str,
    patience: Duration,
) -> Result<Link, Failure> {
    let at = format!("{}:{}", server.host, server.port);
    let dialling = async {
        let mut link = reach(settings, server).await?;
        greet(&mut link, settings, server, inbox).await?;
        Ok(link)
    };
    let slow = || {
        Failure::Transient(format!(
            "{at}: no greeting within {patience:?} (metadata connectTimeout): is it a NATS server (metadata natsURL), and \
             does it want TLS first (metadata tlsHandshakeFirst)?"
        ))
    };
    timer::timeout(patience, dialling).await.unwrap_or_else(|| Err(slow()))
}

/// Connects, hears the server's greeting, and turns to TLS if either side wants it.
async fn reach(settings: &Settings, server: &Server) -> Result<Link, Failure> {
    let first = settings.tls_first.then_some(&settings.tls);
    let mut socket = Socket::connect(&server.host, server.port, first).await.map_err(of_net)?;
    let mut decoder = Decoder::default();
    if first.is_some() {
        let (mut reader, writer) = socket.split();
        let info = loop {
            if let Some(info) = greeting(&mut decoder, server)? {
                break info;
            }
            reader.read(decoder.room()).await.map_err(of_net)?;
        };
        return Ok(Link { reader, writer, decoder, info });
    }
    let info = loop {
        if let Some(info) = greeting(&mut decoder, server)? {
            break info;
        }
        socket.read(decoder.room()).await.map_err(of_net)?;
    };
    if wants_tls(settings, server, &info) {
        if !info.tls_required && !info.tls_available {
            return Err(Failure::Invalid(format!(
                "metadata natsURL: {}:{} does not offer TLS, which natsURL (tls://), tlsRequired, caCert or tls_client_cert ask for",
                server.host, server.port
            )));
        }
        socket.start_tls(&settings.tls).await.map_err(of_net)?;
        // What came in plain text behind the greeting could be anybody's.
        decoder = Decoder::default();
    }
    let (reader, writer) = socket.split();
    Ok(Link { reader, writer, decoder, info })
}

fn wants_tls(settings: &Settings, server: &Server, info: &Info) -> bool {
    settings.tls_wanted || server.tls || info.tls_required
}

/// The server's greeting, once it is there.
fn greeting(decoder: &mut Decoder, server: &Server) -> Result<Option<Info>, Failure> {
    let wrong = |why: &str| {
        Failure::Transient(format!("metadata natsURL: {}:{} is no NATS server: {why}", server.host, server.port))
    };
    match decoder.next() {
        Ok(None) => Ok(None),
        Ok(Some(Op::Info(info))) if info.headers => Ok(Some(*info)),
        Ok(Some(Op::Info(_))) => Err(wrong("it is older than 2.2")),
        Ok(Some(_)) => Err(wrong("it does not greet with INFO")),
        Err(malformed) => Err(wrong(&malformed.to_string())),
    }
}

fn of_net(error: NetError) -> Failure {
    match error {
        NetError::Denied(_) => Failure::Invalid(format!("metadata natsURL: {error}")),
        NetError::Tls(_) => Failure::Transient(format!(
            "metadata caCert, tls_client_cert, tls_client_key, natsURL (the name in it): {error}"
        )),
        other => Failure::Transient(other.to_string()),
    }
}

/// Says who we are, and waits until the server has taken it.
async fn greet(link: &mut Link, settings: &Settings, server: &Server, inbox: &str) -> Result<(), Failure> {
    let tls = settings.tls_first || wants_tls(settings, server, &link.info);
    let mut out = Vec::new();
    connect(&mut out, &auth::greeting(settings, server, &link.info, tls)?);
    subscribe(&mut out, &format!("{inbox}.>"), None, INBOX_SID);
    out.extend_from_slice(PING);
    link.writer.write_all(out).await.map_err(of_net)?;
    loop {
        match link.decoder.next() {
            Ok(Some(Op::Pong)) => return Ok(()),
            Ok(Some(Op::Info(info))) => link.info = *info,
            Ok(Some(Op::Err(error))) => return Err(refused(error, settings)),
            Ok(Some(_)) => {}
            Ok(None) => {
                link.reader.read(link.decoder.room()).await.map_err(of_net)?;
            }
            Err(malformed) => return Err(Failure::Transient(malformed.to_string())),
        }
    }
}

fn refused(error: &str, settings: &Settings) -> Failure {
    if let Some(subject) = denied_subject(error, "Subscription") {
        let Failure::Unauthorized(text) = denied("subscribe to", subject) else {
            return Failure::Transient(error.to_owned());
        };
        return Failure::Unauthorized(format!("{text}, or set metadata inboxPrefix (now {})", settings.inbox_prefix));
    }
    if of_credentials(error) {
        return Failure::Unauthorized(format!(
            "metadata natsURL (user and password), token, jwt, seedKey: NATS does not accept them: {error}"
        ));
    }
    Failure::Transient(format!("NATS refuses the connection: {error}"))
}
