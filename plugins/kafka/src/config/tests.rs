//! Settings as users write them.

use whimbrel_sdk::Property;

use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<Settings, Failure> {
    let properties = pairs.iter().map(|(name, value)| Property { name: (*name).into(), value: (*value).into() });
    Settings::of(&Config { name: "bus".into(), properties: properties.collect(), instance: "i".into() })
}

fn with(pairs: &[(&str, &str)]) -> Result<Settings, Failure> {
    read(&[&[("brokers", "b"), ("authType", "none")], pairs].concat())
}

#[test]
fn defaults() {
    let settings = with(&[]).unwrap();
    assert_eq!(settings.brokers, [("b".to_owned(), 9092)]);
    assert!(settings.tls.is_none() && settings.sasl.is_none());
    assert_eq!((settings.acks, settings.codec), (Acks::All, Codec::None));
    assert_eq!((settings.strategy, settings.partitioner), (Strategy::CooperativeSticky, Partitioner::Murmur2));
    assert_eq!((settings.initial_offset, settings.max_message_bytes), (StartPosition::Latest, BATCH_BYTES));
    assert_eq!((settings.heartbeat, settings.session_timeout), (Duration::from_secs(3), Duration::from_secs(10)));
}

#[test]
fn daprs_defaults() {
    let settings = with(&[("compat", "dapr")]).unwrap();
    assert_eq!((settings.strategy, settings.partitioner), (Strategy::Range, Partitioner::Fnv1a));
    assert_eq!((settings.client_id.as_str(), settings.read_wait), ("sarama", Duration::from_secs(30)));
}

#[test]
fn addresses() {
    let check = |text: &str, expected: &[(&str, u16)]| {
        let settings = read(&[("brokers", text), ("authType", "none")]).unwrap();
        let expected: Vec<_> = expected.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
        assert_eq!(settings.brokers, expected, "{text}");
    };
    check("a:1, b ,c:3,", &[("a", 1), ("b", 9092), ("c", 3)]);
    check("[::1]:7,::2,[::3]", &[("::1", 7), ("::2", 9092), ("::3", 9092)]);
}

#[test]
fn security() {
    let check = |pairs: &[(&str, &str)], tls: bool, mechanism: Option<Mechanism>| {
        let settings = read(&[&[("brokers", "b")], pairs].concat()).unwrap();
        assert_eq!(settings.tls.is_some(), tls, "{pairs:?}");
        assert_eq!(settings.sasl.map(|sasl| sasl.mechanism), mechanism, "{pairs:?}");
    };
    let password = [("authType", "password"), ("saslUsername", "u"), ("saslPassword", "p")];
    check(&password, true, Some(Mechanism::Plain));
    check(&[&password[..], &[("disableTls", "true")]].concat(), false, Some(Mechanism::Plain));
    check(&[&password[..], &[("saslMechanism", "SHA-512")]].concat(), true, Some(Mechanism::ScramSha512));
    check(&[("authRequired", "false")], false, None);
    check(&[("authRequired", "true"), ("saslUsername", "u"), ("saslPassword", "p")], true, Some(Mechanism::Plain));
    check(&[("authType", "mtls"), ("clientCert", "c"), ("clientKey", "k")], true, None);
    check(&[("authType", "none"), ("caCert", "c")], true, None);
}

#[test]
fn what_is_refused_names_its_setting() {
    let check = |pairs: &[(&str, &str)], name: &str| {
        let Err(Failure::Invalid(text)) = read(pairs) else { panic!("{pairs:?} was taken") };
        assert!(text.starts_with(&format!("metadata {name} ")), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    };
    check(&[("authType", "none")], "brokers");
    check(&[("brokers", " , "), ("authType", "none")], "brokers");
    check(&[("brokers", "http://b"), ("authType", "none")], "brokers");
    check(&[("brokers", "b:0"), ("authType", "none")], "brokers");
    check(&[("brokers", "b")], "authType");
    for kind in ["oidc", "awsiam", "oidc_private_key_jwt", "hunter2"] {
        check(&[("brokers", "b"), ("authType", kind)], "authType");
    }
    check(&[("brokers", "b"), ("authType", "password")], "saslUsername");
    check(&[("brokers", "b"), ("authType", "password"), ("saslUsername", "u")], "saslPassword");
    check(&[("brokers", "b"), ("authType", "mtls")], "clientCert");
    check(&[("brokers", "b"), ("authType", "none"), ("clientCert", "hunter2")], "clientKey");
    let password = [("brokers", "b"), ("authType", "password"), ("saslUsername", "u"), ("saslPassword", "hunter2")];
    check(&[&password[..], &[("saslMechanism", "hunter2")]].concat(), "saslMechanism");
    let one = |name: &str, value: &str| {
        check(&[("brokers", "b"), ("authType", "none"), (name, value)], name);
    };
    one("schemaRegistryURL", "hunter2");
    one("maxMessageBytes", "99999999");
    one("maxMessageBytes", "hunter2");
    one("heartbeatInterval", "9s");
    one("initialOffset", "hunter2");
    one("producerRequiredAcks", "hunter2");
    one("compression", "hunter2");
    one("consumerGroupRebalanceStrategy", "hunter2");
    one("excludeHeaderMetaRegex", "(");
    one("compat", "hunter2");
    one("dialTimeout", "hunter2");
    one("authRequired", "hunter2");
    one("channelBufferSize", "hunter2");
    one("saslMechanism", "hunter2");
}
