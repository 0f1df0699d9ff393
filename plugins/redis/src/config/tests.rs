//! Settings as operators write them.

use super::*;
use whimbrel_sdk::Property;

fn config(settings: &[(&str, &str)]) -> Config {
    let property = |(name, value): &(&str, &str)| Property { name: (*name).into(), value: (*value).into() };
    Config { name: "bus".into(), properties: settings.iter().map(property).collect(), instance: "i".into() }
}

#[test]
fn addresses() {
    let check = |settings: &[(&str, &str)], host: &str, port: u16| {
        let settings = Settings::of(&config(settings)).unwrap();
        assert_eq!((settings.host.as_str(), settings.port), (host, port));
    };
    check(&[("redisHost", "redis")], "redis", 6379);
    check(&[("redishost", " redis:7000 ")], "redis", 7000);
    check(&[("redisHost", "redis"), ("redisPort", "7000")], "redis", 7000);
    check(&[("redisHost", "redis:7000"), ("redisPort", "7000")], "redis", 7000);
    check(&[("redisHost", "::1")], "::1", 6379);
    check(&[("redisHost", "[::1]:7000")], "::1", 7000);
    check(&[("redisHost", "redis://redis:7000")], "redis", 7000);
}

#[test]
fn what_is_wrong_is_named_and_not_shown() {
    let check = |settings: &[(&str, &str)], name: &str| {
        let mut all = vec![("redisHost", "redis")];
        all.extend_from_slice(settings);
        let error = Settings::of(&config(&all)).unwrap_err();
        let Failure::Invalid(text) = error else { panic!("{error:?}") };
        assert!(text.contains(name) && !text.contains("hunter2"), "{text}");
    };
    check(&[("redisHost", "")], "redisHost");
    check(&[("redisHost", "a:1,b:2")], "redisHost");
    check(&[("redisHost", "a:hunter2")], "redisHost");
    check(&[("redisHost", ":6379")], "redisHost");
    check(&[("redisHost", "a:1"), ("redisPort", "2")], "redisPort");
    check(&[("redisPort", "hunter2")], "redisPort");
    check(&[("redisDB", "-1")], "redisDB");
    check(&[("queueDepth", "0")], "queueDepth");
    check(&[("concurrency", "0")], "concurrency");
    check(&[("concurrency", "hunter2")], "concurrency");
    check(&[("processingTimeout", "hunter2")], "processingTimeout");
    check(&[("redeliverInterval", "5 s")], "redeliverInterval");
    check(&[("maxLenApprox", "5"), ("streamTTL", "1h")], "streamTTL");
    check(&[("redisType", "cluster")], "redisType");
    check(&[("failover", "true")], "failover");
    check(&[("useEntraID", "true")], "useEntraID");
    check(&[("redisUsername", "app")], "redisPassword");
    check(&[("clientCert", "hunter2")], "clientKey");
    check(&[("enableTLS", "hunter2")], "enableTLS");
    assert!(Settings::of(&config(&[])).is_err());
}

#[test]
fn defaults() {
    let settings = Settings::of(&config(&[("redisHost", "redis"), ("readTimeout", "-1")])).unwrap();
    assert_eq!(settings.claim_every, Some(Duration::from_secs(15)));
    assert_eq!(settings.lease, Some(Duration::from_secs(60)));
    assert_eq!((settings.queue_depth, settings.concurrency), (100, None));
    assert_eq!((settings.dial_wait, settings.read_wait), (Duration::from_secs(5), Duration::from_secs(3)));
    assert_eq!((settings.trim, settings.tls, settings.replicas), (Trim::Never, None, 0));
}

#[test]
fn zero_switches_off() {
    let off = config(&[("redisHost", "redis"), ("processingTimeout", "0"), ("redeliverInterval", "0s")]);
    let settings = Settings::of(&off).unwrap();
    assert_eq!((settings.claim_every, settings.lease), (None, None));
}

#[test]
fn secrets_do_not_show() {
    let secret = config(&[
        ("redisHost", "redis"),
        ("redisPassword", "hunter2"),
        ("enableTLS", "yes"),
        ("clientCert", "x"),
        ("clientKey", "hunter2"),
    ]);
    let settings = Settings::of(&secret).unwrap();
    assert!(settings.tls.is_some() && !format!("{settings:?}").contains("hunter2"));
}
