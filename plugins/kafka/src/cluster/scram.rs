//! SCRAM (RFC 5802, RFC 7677): proves that we know the password, and has the broker prove that it does.
//!
//! Absent on purpose: channel binding, which Kafka has not, and normalising passwords beyond ASCII (SASLprep).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::digest::core_api::BlockSizeUser;
use hmac::digest::{Digest, FixedOutputReset, KeyInit};
use hmac::{Mac, SimpleHmac};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;

/// Rounds that a broker may ask for. Fewer are not safe (Kafka's own minimum), more would keep the component busy for
/// seconds.
const ROUNDS: std::ops::RangeInclusive<u32> = 4096..=100_000;

/// Characters of our nonce.
const NONCE_CHARS: usize = 32;

/// No channel binding, no other identity.
const HEADER: &str = "n,,";

/// One exchange.
pub(crate) struct Scram {
    is_512: bool,
    password: String,
    nonce: String,
    first_bare: String,
    /// What the broker must sign with.
    signature: Vec<u8>,
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").finish_non_exhaustive()
    }
}

impl Scram {
    /// Begins, and returns what to say first.
    pub(crate) fn begin(is_512: bool, username: &str, password: &str) -> (Self, String) {
        let nonce: String = std::iter::repeat_with(fastrand::alphanumeric).take(NONCE_CHARS).collect();
        Self::with_nonce(is_512, username, password, nonce)
    }

    fn with_nonce(is_512: bool, username: &str, password: &str, nonce: String) -> (Self, String) {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={username},r={nonce}");
        let first = format!("{HEADER}{first_bare}");
        (Self { is_512, password: password.to_owned(), nonce, first_bare, signature: Vec::new() }, first)
    }

    /// What to say after the broker's first message.
    ///
    /// # Errors
    /// The broker does not speak SCRAM, or asks for what is not safe.
    pub(crate) fn answer(&mut self, server_first: &str) -> Result<String, String> {
        let field = |name: &str| server_first.split(',').find_map(|part| part.strip_prefix(name));
        let broken = || "its SCRAM message is broken".to_owned();
        let nonce = field("r=").filter(|nonce| nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len());
        let nonce = nonce.ok_or_else(broken)?;
        let salt = field("s=").and_then(|salt| BASE64.decode(salt).ok()).ok_or_else(broken)?;
        let rounds: u32 = field("i=").and_then(|rounds| rounds.parse().ok()).ok_or_else(broken)?;
        if !ROUNDS.contains(&rounds) {
            return Err(format!(
                "it asks for {rounds} rounds of SCRAM; {} to {} will do",
                ROUNDS.start(),
                ROUNDS.end()
            ));
        }
        let unproven = format!("c={},r={nonce}", BASE64.encode(HEADER));
        let signed = format!("{},{server_first},{unproven}", self.first_bare);
        let (proof, signature) = if self.is_512 {
            prove::<Sha512>(&self.password, &salt, rounds, &signed)
        } else {
            prove::<Sha256>(&self.password, &salt, rounds, &signed)
        };
        self.signature = signature;
        Ok(format!("{unproven},p={}", BASE64.encode(proof)))
    }

    /// Checks the broker's last message.
    ///
    /// # Errors
    /// It does not know the password.
    pub(crate) fn check(&self, server_final: &str) -> Result<(), String> {
        let signature = server_final.strip_prefix("v=").and_then(|signature| BASE64.decode(signature.trim_end()).ok());
        match signature {
            Some(given) if bool::from(given.ct_eq(&self.signature)) && !given.is_empty() => Ok(()),
            _ => {
                Err("it does not prove that it knows the password itself: do metadata brokers name the right one?"
                    .into())
            }
        }
    }
}

/// Our proof, and the signature that the broker must come up with.
fn prove<D>(password: &str, salt: &[u8], rounds: u32, signed: &str) -> (Vec<u8>, Vec<u8>)
where
    D: Digest + BlockSizeUser + FixedOutputReset + Clone + Sync,
{
    let mut salted = vec![0; <D as Digest>::output_size()];
    // Fails only for keys of a wrong length, and these may have any.
    pbkdf2::pbkdf2::<SimpleHmac<D>>(password.as_bytes(), salt, rounds, &mut salted).ok();
    let client = sign::<D>(&salted, b"Client Key");
    let stored = D::digest(&client);
    let signature = sign::<D>(&stored, signed.as_bytes());
    let proof = client.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
    (proof, sign::<D>(&sign::<D>(&salted, b"Server Key"), signed.as_bytes()))
}

fn sign<D: Digest + BlockSizeUser + Clone>(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mac = <SimpleHmac<D> as KeyInit>::new_from_slice(key).map(|mac| mac.chain_update(text));
    mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example() {
        let (mut scram, first) = Scram::with_nonce(false, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(
            scram.answer(server).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram.check("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(scram.check("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=").is_err());
        assert!(scram.check("e=other-error").is_err());
    }

    #[test]
    fn what_is_not_taken() {
        let check = |server: &str| {
            let (mut scram, _) = Scram::with_nonce(true, "a,b=c", "p", "abc".into());
            assert_eq!(scram.first_bare, "n=a=2Cb=3Dc,r=abc");
            assert!(scram.answer(server).is_err(), "{server}");
        };
        check("");
        check("r=abc,s=QQ==,i=4096");
        check("r=xyzabc,s=QQ==,i=4096");
        check("r=abcd,s=!,i=4096");
        check("r=abcd,s=QQ==,i=1");
        check("r=abcd,s=QQ==,i=4000000000");
    }
}
