//! Opening: credentials, permissions, databases, servers that are not there yet.

use super::harness::*;
use std::time::{Duration, Instant};
use whimbrel_sdk::{Adapter, Failure, Status, StatusSink};

async fn refused(server: &Server, settings: &[(&str, &str)]) -> Failure {
    let since = Instant::now();
    let Err(failure) = try_open(&server.host(), "i", settings).await else { panic!("it opened: {settings:?}") };
    assert!(since.elapsed() < Duration::from_secs(2), "not at once");
    assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    failure
}

#[test]
fn a_password() {
    run(async {
        let server = Server::start(&["--requirepass", "right"]).await;
        for settings in
            [&[][..], &[("redisPassword", "hunter2")], &[("redisUsername", "who"), ("redisPassword", "hunter2")]]
        {
            let failure = refused(&server, settings).await;
            assert!(matches!(&failure, Failure::Unauthorized(text) if text.contains("redisPassword")), "{failure:?}");
        }
        let bus = open(&server.host(), "i", &[("redisPassword", "right")]).await;
        bus.publish("orders", b"x").await.unwrap();
    });
}

#[test]
fn a_password_where_none_is_needed() {
    run(async {
        let server = Server::start(&[]).await;
        let failure = refused(&server, &[("redisPassword", "hunter2")]).await;
        assert!(matches!(failure, Failure::Unauthorized(_)), "{failure:?}");
    });
}

#[test]
fn a_database() {
    run(async {
        let server = Server::start(&[]).await;
        let failure = refused(&server, &[("redisDB", "99")]).await;
        assert!(matches!(&failure, Failure::Invalid(text) if text.contains("redisDB")), "{failure:?}");
        let bus = open(&server.host(), "i", &[("redisDB", "3")]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish("orders", b"1").await.unwrap();
        inbox.next().await;
        assert_eq!(server.ask::<u64>("EXISTS orders"), 0);
    });
}

#[test]
fn an_invalid_setting() {
    run(async {
        let server = Server::start(&[]).await;
        let failure = refused(&server, &[("queueDepth", "hunter2")]).await;
        assert!(matches!(&failure, Failure::Invalid(text) if text.contains("queueDepth")), "{failure:?}");
    });
}

#[test]
fn a_user_who_may_do_little() {
    run(async {
        let server = Server::start(&[]).await;
        let rights = "+xadd +xreadgroup +xack +xclaim +xpending +xgroup|create";
        server.ask::<()>(&format!("ACL SETUSER app on >right ~* {rights}"));
        let settings = [("redisUsername", "app"), ("redisPassword", "right"), ("readTimeout", "30s")];
        let bus = open(&server.host(), "i", &settings).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        bus.publish("orders", b"1").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        // It cannot cut a read short, and so keeps reads short.
        let other = bus.subscribe("other", "app", 10).await;
        bus.publish("orders", b"2").await.unwrap();
        inbox.ack(&inbox.next().await).await;
        bus.publish("other", b"3").await.unwrap();
        other.next().await;
        tokio::time::timeout(Duration::from_secs(5), other.pause()).await.expect("pause hangs");
        bus.close().await;
    });
}

#[test]
fn a_missing_permission_is_named() {
    run(async {
        let server = Server::start(&[]).await;
        server.ask::<()>("ACL SETUSER app on >right ~* +ping");
        let settings = [("redisUsername", "app"), ("redisPassword", "right")];
        let bus = open(&server.host(), "i", &settings).await;
        let result = bus.publish("orders", b"1").await;
        assert!(matches!(&result, Err(Failure::Unauthorized(text)) if text.contains("xadd")), "{result:?}");
        let result = bus.try_subscribe("orders", "app", options(10)).await.err();
        assert!(matches!(&result, Some(Failure::Unauthorized(text)) if text.contains("xgroup")), "{result:?}");
    });
}

#[test]
fn a_server_that_comes_later() {
    run(async {
        let server = Server::start(&[]).await;
        server.kill();
        let host = server.host();
        let (opened, ()) = tokio::join!(try_open(&host, "i", &[]), server.restart());
        let bus = opened.unwrap();
        bus.hears("trying", |status| matches!(status, Status::Connecting(why) if why.is_empty())).await;
        bus.hears("ready", |status| matches!(status, Status::Ready)).await;
        bus.adapter.ping().await.unwrap();
    });
}

#[test]
fn a_dead_server_does_not_fill_the_log() {
    run(async {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let (sink, mut news) = StatusSink::channel();
        let opening = whimbrel_redis::Redis::open(config(&format!("127.0.0.1:{port}"), "i", &[]), sink);
        assert!(tokio::time::timeout(Duration::from_secs(1), opening).await.is_err());
        // The first try, and the first failure; later ones fail for the same reason.
        let mut told = 0;
        while let Ok(Some(_)) = tokio::time::timeout(Duration::ZERO, futures::StreamExt::next(&mut news)).await {
            told += 1;
        }
        assert_eq!(told, 2);
    });
}
