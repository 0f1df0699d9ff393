//! Settings as operators write them.

use super::*;
use whimbrel_sdk::Property;

fn config(settings: &[(&str, &str)]) -> Config {
    let property = |(name, value): &(&str, &str)| Property { name: (*name).into(), value: (*value).into() };
    Config { name: "bus".into(), properties: settings.iter().map(property).collect(), instance: "i".into() }
}

fn settings(given: &[(&str, &str)]) -> Result<Settings, Failure> {
    let has_address = given.iter().any(|(name, _)| matches!(*name, "connectionString" | "host" | "hostname"));
    let address = if has_address { vec![] } else { vec![("hostname", "rabbit")] };
    Settings::of(&config(&[&address[..], given].concat()))
}

#[test]
fn addresses() {
    let check = |given: &[(&str, &str)], expected: &str| {
        let Settings { host, port, username, password, vhost, tls, .. } = settings(given).unwrap();
        let scheme = if tls.is_some() { "amqps" } else { "amqp" };
        assert_eq!(format!("{scheme} {username} {} {host} {port} {vhost}", password.0), expected, "{given:?}");
    };
    let uri = |text, expected| check(&[("connectionString", text)], expected);
    uri("amqp://u:p@rabbit:7000/v", "amqp u p rabbit 7000 v");
    uri("amqp://rabbit", "amqp guest guest rabbit 5672 /");
    uri("AMQPS://rabbit/", "amqps guest guest rabbit 5671 /");
    uri("amqp://u%40a:p%2Fw%3A%25@rabbit/%2f", "amqp u@a p/w:% rabbit 5672 /");
    uri("amqp://u@rabbit/a%2Fb", "amqp u  rabbit 5672 a/b");
    uri("amqp://[::1]:7000", "amqp guest guest ::1 7000 /");
    uri(" amqp://rabbit ", "amqp guest guest rabbit 5672 /");
    check(&[("host", "amqp://rabbit")], "amqp guest guest rabbit 5672 /");
    check(&[("hostname", "rabbit")], "amqp guest guest rabbit 5672 /");
    check(&[("HostName", "rabbit:7000"), ("username", "u"), ("password", "p")], "amqp u p rabbit 7000 /");
    check(&[("hostname", "rabbit"), ("protocol", "amqps")], "amqps guest guest rabbit 5671 /");
    check(
        &[("hostname", "x"), ("connectionString", "amqp://rabbit"), ("protocol", "amqp")],
        "amqp guest guest rabbit 5672 /",
    );
}

#[test]
fn what_is_wrong_is_named_and_not_shown() {
    let check = |given: &[(&str, &str)], name: &str| {
        let error = settings(given).unwrap_err();
        let Failure::Invalid(text) = error else { panic!("{error:?}") };
        assert!(text.contains(name) && !text.contains("hunter2"), "{text}");
    };
    for uri in [
        "rabbit",
        "http://rabbit",
        "amqp://",
        "amqp://:hunter2@",
        "amqp://u:hunter2@rabbit:x",
        "amqp://u:hunter2@a,b",
        "amqp://u:hunter2@rabbit?certfile=x",
        "amqp://%ff:hunter2@rabbit",
        "amqp://rabbit:0",
    ] {
        check(&[("connectionString", uri)], "connectionString");
    }
    check(&[("hostname", "")], "connectionString");
    check(&[("connectionString", "amqp://rabbit"), ("protocol", "amqps")], "protocol");
    check(&[("protocol", "hunter2")], "protocol");
    check(&[("password", "hunter2")], "username");
    check(&[("compat", "hunter2")], "compat");
    check(&[("durable", "hunter2")], "durable");
    check(&[("deletedWhenUnused", "hunter2")], "deletedWhenUnused");
    check(&[("deliveryMode", "3")], "deliveryMode");
    check(&[("exchangeKind", "hunter2")], "exchangeKind");
    check(&[("queueType", "stream")], "queueType");
    check(&[("maxLen", "-1")], "maxLen");
    check(&[("maxLenBytes", "hunter2")], "maxLenBytes");
    check(&[("overflow", "hunter2")], "overflow");
    check(&[("prefetchCount", "-1")], "prefetchCount");
    check(&[("ttlInSeconds", "abc")], "ttlInSeconds");
    check(&[("ttlInSeconds", "0")], "ttlInSeconds");
    check(&[("ttlInSeconds", "4294968")], "ttlInSeconds");
    check(&[("heartBeat", "hunter2")], "heartBeat");
    check(&[("heartBeat", "100ms")], "heartBeat");
    check(&[("reconnectWaitSeconds", "hunter2")], "reconnectWaitSeconds");
    check(&[("concurrency", "hunter2")], "concurrency");
    check(&[("concurrencyMode", "several")], "concurrencyMode");
    check(&[("concurrency", "single"), ("concurrencyMode", "parallel")], "concurrency");
    check(&[("saslExternal", "true")], "saslExternal");
    check(&[("saslExternal", "true"), ("protocol", "amqps")], "clientCert");
    check(&[("clientCert", "hunter2")], "clientKey");
    check(&[("clientKey", "hunter2")], "clientCert");
    check(&[("autoAck", "hunter2")], "autoAck");
    check(&[("allowUnroutable", "hunter2")], "allowUnroutable");
    assert!(Settings::of(&config(&[])).is_err());
}

#[test]
fn defaults_are_safe_and_daprs_where_asked() {
    let safe = settings(&[]).unwrap();
    assert!(safe.is_durable() && safe.allow_unroutable && safe.with_metadata && !safe.auto_ack && !safe.drop_failed);
    assert_eq!((safe.prefetch, safe.content_type, safe.heartbeat), (None, None, Some(Duration::from_secs(10))));
    let dapr = settings(&[("compat", "Dapr")]).unwrap();
    assert!(dapr.declared.durable && dapr.declared.auto_delete && !dapr.is_durable());
    assert!(!dapr.with_metadata && dapr.drop_failed && dapr.dapr);
    assert_eq!((dapr.delivery_mode, dapr.content_type), (0, Some("text/plain")));
    // What the resource says counts in either case.
    let own = settings(&[
        ("compat", "dapr"),
        ("deletedWhenUnused", "false"),
        ("deliveryMode", "2"),
        ("requeueInFailure", "true"),
    ]);
    assert!(own.is_ok_and(|own| own.is_durable() && !own.drop_failed));
}

#[test]
fn single_is_one_at_a_time_in_either_spelling() {
    let prefetch = |given: &[(&str, &str)]| settings(given).unwrap().prefetch;
    assert_eq!(prefetch(&[("concurrency", "single")]), Some(1));
    assert_eq!(prefetch(&[("concurrencyMode", "Single"), ("prefetchCount", "9")]), Some(1));
    assert_eq!(prefetch(&[("prefetchCount", "9")]), Some(9));
    assert_eq!(prefetch(&[("concurrency", "parallel"), ("prefetchCount", "0")]), None);
}

#[test]
fn what_failed_is_thrown_away_only_where_that_was_asked_for() {
    let drops = |given: &[(&str, &str)]| settings(given).unwrap().drop_failed;
    assert!(!drops(&[("requeueInFailure", "false")]));
    assert!(drops(&[("requeueInFailure", "false"), ("enableDeadLetter", "true")]));
    assert!(!drops(&[("enableDeadLetter", "true")]));
    let config =
        config(&[("hostname", "r"), ("requeueInFailure", "false"), ("publisherConfirm", "false"), ("autoAck", "true")]);
    assert_eq!(Settings::of(&config).unwrap().warnings(&config).len(), 3);
}

#[test]
fn secrets_do_not_show() {
    let settings =
        settings(&[("connectionString", "amqps://u:hunter2@rabbit"), ("clientCert", "x"), ("clientKey", "hunter2")]);
    assert!(!format!("{:?}", settings.unwrap()).contains("hunter2"));
}
