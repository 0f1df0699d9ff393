use super::*;
use whimbrel_sdk::Property;

fn read(settings: &[(&str, &str)]) -> Result<Settings, Failure> {
    let all = [("natsURL", "localhost")].into_iter().chain(settings.iter().copied());
    let properties = all.map(|(name, value)| Property { name: name.to_owned(), value: value.to_owned() }).collect();
    Settings::of(&Config { name: "bus".to_owned(), properties, instance: "i".to_owned() })
}

fn refused(settings: &[(&str, &str)], name: &str) {
    let Err(Failure::Invalid(text)) = read(settings) else { panic!("{settings:?} is fine") };
    assert!(text.starts_with(&format!("metadata {name} ")), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn nothing_said() {
    let settings = read(&[]).unwrap();
    assert_eq!((settings.servers[0].host.as_str(), settings.servers[0].port), ("localhost", 4222));
    assert_eq!((settings.login, settings.start, settings.creation), (Login::Nobody, Start::All, None));
    assert_eq!((settings.api_prefix.as_str(), settings.inbox_prefix.as_str()), ("$JS.API", "_INBOX"));
    assert_eq!((settings.concurrency, settings.deduplication), (None, Deduplication::Event));
    assert_eq!(settings.terms, Terms { max_ack_pending: Some(-1), ..Terms::default() });
    assert!(!settings.tls_wanted);
}

#[test]
fn daprs_defaults() {
    let settings = read(&[("compat", "dapr")]).unwrap();
    assert_eq!((settings.concurrency, settings.deduplication), (Some(1), Deduplication::Id));
    assert_eq!(settings.terms.max_ack_pending, None);
    let settings = read(&[("compat", "dapr"), ("concurrency", "parallel"), ("publishDeduplication", "off")]).unwrap();
    assert_eq!((settings.concurrency, settings.deduplication), (None, Deduplication::Off));
}

#[test]
fn servers() {
    let list = "nats://u:p%40ss@a:1, tls://b , tok@[::1]:7,::2";
    let servers = read(&[("natsURL", list)]).unwrap().servers;
    let server = |host: &str, port, tls| Server { host: host.to_owned(), port, tls, login: None };
    let login = |name: &str, word: Option<&str>| Some((name.to_owned(), word.map(|word| Secret(word.to_owned()))));
    assert_eq!(
        servers,
        [
            Server { login: login("u", Some("p@ss")), ..server("a", 1, false) },
            server("b", 4222, true),
            Server { login: login("tok", None), ..server("::1", 7, false) },
            server("::2", 4222, false),
        ]
    );
    for wrong in ["http://a", "ws://a", "a:b", "a:0", "nats://", "u:hunter2@", ",", "a b"] {
        refused(&[("natsURL", wrong)], "natsURL");
    }
}

#[test]
fn values_that_do_not_go() {
    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let pem = "-----BEGIN CERTIFICATE-----";
    for (settings, name) in [
        (&[("jwt", "hunter2")][..], "seedKey"),
        (&[("seedKey", "hunter2")], "seedKey"),
        (&[("tls_client_cert", pem)], "tls_client_key"),
        (&[("tls_client_key", pem)], "tls_client_cert"),
        (&[("caCert", "/etc/ca.pem")], "caCert"),
        (&[("deliverPolicy", "first")], "deliverPolicy"),
        (&[("deliverPolicy", "sequence")], "startSequence"),
        (&[("deliverPolicy", "time")], "startTime"),
        (&[("deliverPolicy", "time"), ("startTime", "99999999999999")], "startTime"),
        (&[("ackWait", "hunter2")], "ackWait"),
        (&[("ackWait", "1ms")], "ackWait"),
        (&[("backOff", "1s,x")], "backOff"),
        (&[("maxDeliver", "-2")], "maxDeliver"),
        (&[("concurrency", "two")], "concurrency"),
        (&[("ackPolicy", "maybe")], "ackPolicy"),
        (&[("durableName", "a.b")], "durableName"),
        (&[("streamName", "a b")], "streamName"),
        (&[("domain", "a"), ("apiPrefix", "b")], "domain"),
        (&[("streamCreate", "on")], "streamCreate"),
        (&[("streamCreate", "auto"), ("streamName", "S")], "streamSubjects"),
        (&[("streamCreate", "auto"), ("streamSubjects", "a.>")], "streamName"),
        (&[("streamCreate", "auto"), ("streamName", "S"), ("streamSubjects", "a..b")], "streamSubjects"),
        (&[("streamReplicas", "x")], "streamReplicas"),
        (&[("streamMaxAge", "x")], "streamMaxAge"),
        (&[("flowControl", "x")], "flowControl"),
        (&[("rateLimit", "x")], "rateLimit"),
        (&[("compat", "kafka")], "compat"),
        (&[("inboxPrefix", "a.>")], "inboxPrefix"),
        (&[("publishDeduplication", "yes")], "publishDeduplication"),
    ] {
        refused(settings, name);
    }
    assert!(read(&[("seedKey", seed)]).is_ok());
}

#[test]
fn values_that_do() {
    let settings = read(&[
        ("NATSURL", "a"),
        ("domain", "hub"),
        ("deliverPolicy", "time"),
        ("startTime", "1700000000"),
        ("backOff", "1s, 500ms"),
        ("ackWait", "2s"),
        ("maxDeliver", "5"),
        ("queueGroupName", "g"),
        ("durableName", "d"),
        ("streamCreate", "auto"),
        ("streamMaxAge", "24h"),
    ])
    .unwrap();
    assert_eq!(settings.api_prefix, "$JS.hub.API");
    assert_eq!(settings.start, Start::Time("2023-11-14T22:13:20Z".to_owned()));
    assert_eq!(settings.terms.back_off, [Duration::from_secs(1), Duration::from_millis(500)]);
    assert_eq!((settings.queue_group.as_deref(), settings.durable.as_deref()), (Some("g"), Some("d")));
    assert_eq!(settings.creation.unwrap().max_age, Duration::from_secs(86400));
    assert_eq!(read(&[("queueGroupName", "g")]).unwrap().queue_group, None);
}

#[test]
fn secrets_are_not_shown() {
    let settings = read(&[("token", "hunter2"), ("natsURL", "nats://a:hunter2@b")]).unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
}
