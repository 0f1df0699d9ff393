//! Requests that are wrong, odd or too big.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::{Test, http, resource, run};

async fn shop(test: &Test) -> Result<(App, Host)> {
    let app = App::start().await?;
    let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
    // Every topic of more than no characters: a wildcard.
    let plan = plan.resource(resource::subscription("bus", "*", "/in", None))?.app(&app);
    Ok((app, plan.start().await?))
}

/// The host still serves, and nothing in it has panicked.
async fn unharmed(app: &App, host: &Host) -> Result<()> {
    let before = app.seen().len();
    http::publish_ok(host.http()?, "bus/still-there", "{}").await?;
    app.wait_for(before + 1, "/in").await?;
    let log = host.log()?;
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// A request to this path is answered so, is not delivered, and does no harm.
fn check_refused(path: &str, content_type: &str, body: &[u8], status: u16, code: &str) -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test).await?;
        let headers = [("content-type", content_type)];
        let answer = http::send(host.http()?, "POST", path, &headers, body).await?;
        assert_eq!((answer.status, answer.json()?["errorCode"].as_str()), (status, Some(code)), "{}", answer.text());
        unharmed(&app, &host).await?;
        assert_eq!(app.seen().len(), 1, "what was refused was delivered");
        Ok(())
    })
}

#[test]
fn a_component_nobody_declared() -> Result<()> {
    check_refused("/v1.0/publish/nobody/t", "text/plain", b"x", 404, "ERR_PUBSUB_NOT_FOUND")
}

#[test]
fn a_cloud_event_that_is_an_array() -> Result<()> {
    let kind = "application/cloudevents+json";
    check_refused("/v1.0/publish/bus/t", kind, b"[1]", 500, "ERR_PUBSUB_CLOUD_EVENTS_SER")
}

#[test]
fn a_cloud_event_that_is_null() -> Result<()> {
    let kind = "application/cloudevents+json";
    check_refused("/v1.0/publish/bus/t", kind, b"null", 500, "ERR_PUBSUB_CLOUD_EVENTS_SER")
}

#[test]
fn a_cloud_event_cut_short() -> Result<()> {
    let kind = "application/cloudevents+json";
    check_refused("/v1.0/publish/bus/t", kind, br#"{"id":"1","data":{"a""#, 500, "ERR_PUBSUB_CLOUD_EVENTS_SER")
}

#[test]
fn a_cloud_event_nested_beyond_reason() -> Result<()> {
    let body = format!(r#"{{"id":"1","data":{}1{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    run(async |test| {
        let (app, host) = shop(test).await?;
        for kind in ["application/cloudevents+json", "application/json"] {
            let headers = [("content-type", kind)];
            let answer = http::send(host.http()?, "POST", "/v1.0/publish/bus/t", &headers, body.as_bytes()).await?;
            // Refused or delivered as it is: either is an answer.
            assert!([204, 400, 500].contains(&answer.status), "{}", answer.text());
        }
        unharmed(&app, &host).await
    })
}

#[test]
fn raw_payload_maybe() -> Result<()> {
    let path = "/v1.0/publish/bus/t?metadata.rawPayload=maybe";
    check_refused(path, "text/plain", b"x", 400, "ERR_PUBSUB_REQUEST_METADATA")
}

#[test]
fn a_body_over_the_limit() -> Result<()> {
    let body = vec![b'x'; 4 * 1024 * 1024 + 1];
    check_refused("/v1.0/publish/bus/t", "text/plain", &body, 500, "ERR_PUBSUB_PUBLISH_MESSAGE")
}

#[test]
fn a_body_over_the_limit_that_does_not_tell_its_length() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test).await?;
        let mut request = b"POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: \
                            chunked\r\n\r\n"
            .to_vec();
        for _ in 0..80 {
            request.extend_from_slice(b"10000\r\n");
            request.extend_from_slice(&[b'x'; 65536]);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        assert_eq!(http::raw(host.http()?, &request).await?.status, 500);
        assert!(app.seen().is_empty());
        unharmed(&app, &host).await
    })
}

#[test]
fn odd_topics_arrive_under_their_names() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test).await?;
        let topics = [
            ("a/b/c", "a/b/c"),
            ("a%2Fb", "a/b"),
            ("%2F", "/"),
            ("a+b", "a b"),
            ("a%2Bb", "a+b"),
            ("%20", " "),
            ("caf%C3%A9%F0%9F%98%80", "café😀"),
            ("a%25b", "a%b"),
            ("a%0D%0Ab", "a\r\nb"),
            ("%00", "\0"),
            ("%22%7B%7D%3C", "\"{}<"),
        ];
        for (path, _) in topics {
            http::publish_ok(host.http()?, &format!("bus/{path}"), "{}").await?;
        }
        let seen = app.wait_for(topics.len(), "/in").await?;
        let mut came = vec![];
        for seen in &seen {
            came.push(seen.event()?["topic"].as_str().context("topic")?.to_owned());
        }
        let mut expected: Vec<_> = topics.iter().map(|(_, topic)| (*topic).to_owned()).collect();
        came.sort();
        expected.sort();
        assert_eq!(came, expected);
        unharmed(&app, &host).await
    })
}

#[test]
fn no_topic_is_not_found() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test).await?;
        for path in ["/v1.0/publish/bus", "/v1.0/publish/bus/", "/v1.0/publish//t", "/v1.0/publish/bus/.."] {
            assert_eq!(http::send(host.http()?, "POST", path, &[], b"{}").await?.status, 404, "{path}");
        }
        unharmed(&app, &host).await
    })
}

#[test]
fn escapes_that_are_none_and_names_that_are_no_text() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test).await?;
        for path in ["/v1.0/publish/bus/%zz", "/v1.0/publish/bus/%", "/v1.0/publish/bus/a%2"] {
            assert_eq!(http::send(host.http()?, "POST", path, &[], b"{}").await?.status, 400, "{path}");
        }
        let answer = http::send(host.http()?, "POST", "/v1.0/publish/bus/%FF%FE", &[], b"{}").await?;
        assert!([204, 400].contains(&answer.status), "{}", answer.text());
        unharmed(&app, &host).await
    })
}

#[test]
fn bytes_that_are_no_http() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test).await?;
        let long = format!("GET /v1.0/healthz HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "x".repeat(1 << 20));
        let two = "POST /v1.0/publish/bus/t HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab";
        for bytes in [b"\x16\x03\x01\x02\x00\x01\x00".as_slice(), b"\0\0\0\0\r\n\r\n", long.as_bytes(), two.as_bytes()]
        {
            let mut stream = TcpStream::connect(host.http()?).await?;
            // The host may close before it has read everything.
            stream.write_all(bytes).await.ok();
            let mut answer = vec![];
            let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
            end.context("the host keeps a connection open that speaks no HTTP")?.ok();
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
        }
        assert!(app.seen().is_empty());
        unharmed(&app, &host).await
    })
}
