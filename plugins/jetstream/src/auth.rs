//! What this side says of itself when it connects.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use whimbrel_sdk::Failure;

use crate::config::{Login, Server, Settings};
use crate::protocol::Info;

/// The options of `CONNECT`.
#[derive(Serialize)]
pub(crate) struct Greeting<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'a str,
    lang: &'static str,
    version: &'static str,
    protocol: u8,
    echo: bool,
    headers: bool,
    no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

/// What to say to this server. Credentials in its URL go before the others.
///
/// # Errors
/// `Unauthorized`: the server does not ask for the signature that `seedKey` could give.
pub(crate) fn greeting<'a>(
    settings: &'a Settings,
    server: &'a Server,
    info: &Info,
    tls: bool,
) -> Result<Greeting<'a>, Failure> {
    let mut greeting = Greeting {
        verbose: false,
        pedantic: false,
        tls_required: tls,
        name: &settings.client_name,
        lang: "whimbrel",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        echo: true,
        headers: true,
        no_responders: true,
        user: None,
        pass: None,
        auth_token: None,
        jwt: None,
        nkey: None,
        sig: None,
    };
    match (&server.login, &settings.login) {
        (Some((name, Some(password))), _) => {
            greeting.user = Some(name);
            greeting.pass = Some(&password.0);
        }
        (Some((token, None)), _) => greeting.auth_token = Some(token),
        (None, Login::Token(token)) => greeting.auth_token = Some(&token.0),
        (None, Login::Key { jwt, seed }) => {
            greeting.jwt = jwt.as_ref().map(|jwt| jwt.0.as_str());
            let (key, signature) = signed(&seed.0, info)?;
            greeting.nkey = jwt.is_none().then_some(key);
            greeting.sig = Some(signature);
        }
        (None, Login::Nobody) => {}
    }
    Ok(greeting)
}

/// The public key, and the server's nonce signed with the private one.
fn signed(seed: &str, info: &Info) -> Result<(String, String), Failure> {
    let refused = |why: &str| Failure::Unauthorized(format!("metadata seedKey: {why}"));
    let Some(nonce) = &info.nonce else {
        return Err(refused("the server asks for no signature: it knows no keys or JWTs"));
    };
    let pair = nkeys::KeyPair::from_seed(seed).map_err(|_| refused("is no NATS seed"))?;
    let signature = pair.sign(nonce.as_bytes()).map_err(|_| refused("cannot sign"))?;
    Ok((pair.public_key(), URL_SAFE_NO_PAD.encode(signature)))
}
