//! Addresses, headers, and what the environment adds.

use super::*;

fn check_otlp(text: &str, secure: bool, protocol: Protocol, expect: Option<&str>) {
    let endpoint = otlp_endpoint(text, secure, protocol);
    assert_eq!(endpoint.as_ref().map(Text::reveal), expect, "{text}");
}

#[test]
fn endpoints() {
    use Protocol::{Grpc, Http};
    check_otlp("collector:4317", false, Grpc, Some("http://collector:4317"));
    check_otlp("collector:4317", true, Grpc, Some("https://collector:4317"));
    check_otlp("collector", false, Grpc, Some("http://collector:4317"));
    check_otlp("collector", false, Http, Some("http://collector:4318/v1/traces"));
    check_otlp("10.0.0.1:99", false, Http, Some("http://10.0.0.1:99/v1/traces"));
    check_otlp("[::1]:99", true, Http, Some("https://[::1]:99/v1/traces"));
    check_otlp("http://collector:4318", true, Http, Some("http://collector:4318/v1/traces"));
    check_otlp("HTTPS://collector/", false, Http, Some("https://collector:443/v1/traces"));
    check_otlp("https://collector/own/path?key=1", false, Http, Some("https://collector:443/own/path?key=1"));
    check_otlp("ftp://collector", false, Http, None);
    check_otlp("http://user:secret@collector", false, Http, None);
    check_otlp("user:secret@collector:4317", false, Grpc, None);
    check_otlp("a:1,b:2", false, Grpc, None);
    check_otlp("collector:port", false, Grpc, None);
    check_otlp("collector:99999", false, Grpc, None);
    check_otlp("two words", false, Grpc, None);
    check_otlp("http://", false, Http, None);
    check_otlp("", false, Http, None);
}

#[test]
fn zipkin_endpoints() {
    let check = |text: &str, expect: Option<&str>| {
        assert_eq!(zipkin_endpoint(text).as_ref().map(Text::reveal), expect, "{text}");
    };
    check("http://zipkin:9411/api/v2/spans", Some("http://zipkin:9411/api/v2/spans"));
    check("http://zipkin:9411", Some("http://zipkin:9411/api/v2/spans"));
    check("https://zipkin/else", Some("https://zipkin:443/else"));
    check("zipkin:9411", None);
}

fn check_headers(text: &str, expect: Option<&[(&str, &str)]>) {
    let headers = headers(text);
    let shown: Option<Vec<_>> =
        headers.as_ref().map(|all| all.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect());
    assert_eq!(shown.as_deref(), expect, "{text}");
    assert!(!format!("{headers:?}").contains("hunter2"), "{text}");
}

#[test]
fn exporters_headers() {
    check_headers("a=1", Some(&[("a", "1")]));
    check_headers("X-Key = hunter2 ,b=x=y", Some(&[("x-key", "hunter2"), ("b", "x=y")]));
    check_headers("authorization=Bearer%20hunter2", Some(&[("authorization", "Bearer hunter2")]));
    check_headers("authorization=Bearer hunter2", Some(&[("authorization", "Bearer hunter2")]));
    check_headers("", Some(&[]));
    check_headers("a", None);
    check_headers("=1", None);
    check_headers("a b=1", None);
    check_headers("a=%0d%0ab", None);
}

/// What this environment makes of these settings; `Err`: the variables that are wrong.
fn add(tracing: Tracing, variables: &[(&str, &str)]) -> Result<Tracing, Vec<String>> {
    let surroundings = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut tracing = tracing;
    let added = tracing.add_environment(&surroundings);
    added.map(|()| tracing).map_err(|wrong| wrong.into_iter().map(|(name, _)| name).collect())
}

fn otel(endpoint: &str, protocol: Protocol) -> Otel {
    Otel { endpoint: Text::new(endpoint.to_owned()), protocol, headers: Vec::new(), timeout: None }
}

#[test]
fn an_environment_names_a_collector() {
    assert_eq!(add(Tracing::default(), &[]), Ok(Tracing::default()));
    let named = add(Tracing::default(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1")]).expect("valid");
    assert_eq!(named.otel, Some(otel("http://c:1", Protocol::Grpc)));
    assert_eq!((named.rate().to_bits(), named.is_exported()), (1.0_f64.to_bits(), true));
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "other:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "c:2"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "key=hunter2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
    ];
    let rare = Tracing { sampling_rate: Some(0.5), ..Tracing::default() };
    let named = add(rare, &variables).expect("valid");
    let headers = vec![("key".to_owned(), Text::new("hunter2".to_owned()))];
    let timeout = Some(Duration::from_millis(250));
    let expect = Otel { headers, timeout, ..otel("http://c:2/v1/traces", Protocol::Http) };
    assert_eq!((named.otel, named.sampling_rate), (Some(expect), Some(0.5)));
}

#[test]
fn what_the_files_say_stays() {
    let said = Tracing {
        otel: Some(Otel {
            headers: vec![("a".to_owned(), Text::new("1".to_owned()))],
            timeout: Some(Duration::from_secs(1)),
            ..otel("http://c:1", Protocol::Http)
        }),
        ..Tracing::default()
    };
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "other:1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "b=2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "5"),
    ];
    assert_eq!(add(said.clone(), &variables), Ok(said));
}

#[test]
fn what_is_wrong_in_the_environment_is_named() {
    let check = |variables: &[(&str, &str)], expect: &[&str]| {
        let wrong = add(Tracing::default(), variables).expect_err("wrong");
        assert_eq!(wrong, expect);
    };
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "a b")], &["OTEL_EXPORTER_OTLP_ENDPOINT"]);
    let collector = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "c:1");
    check(&[collector, ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")], &["OTEL_EXPORTER_OTLP_HEADERS"]);
    check(
        &[collector, ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon"), ("OTEL_EXPORTER_OTLP_HEADERS", "x")],
        &["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"],
    );
}
