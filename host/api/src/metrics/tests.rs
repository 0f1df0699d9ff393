//! Tests of the door for Prometheus, over a real socket.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use whimbrel_pubsub::Environment;

use super::*;

/// What comes back, and the connection is closed after it.
async fn asked(request: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let Environment { metrics, .. } = Environment::system();
    let serving = tokio::spawn(serve_metrics(listener, metrics, stop.clone()));
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer and an end");
    stop.cancel();
    serving.await.expect("it stops");
    answer
}

#[tokio::test]
async fn what_is_counted_is_served_as_prometheus_reads_it() {
    let answer = asked("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
}

#[tokio::test]
async fn nothing_else_is() {
    for request in ["GET /v1.0/metadata", "POST /metrics", "GET /"] {
        let answer = asked(&format!("{request} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{request}: {answer}");
    }
}
