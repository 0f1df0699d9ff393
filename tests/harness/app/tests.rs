//! The app of the tests answers as planned, remembers, and really crashes.

use super::*;
use crate::harness::http::{get, send};
use crate::harness::run;

#[test]
fn answers_in_turn_and_remembers_what_it_was_sent() -> Result<()> {
    run(async |_| {
        let app = App::start().await?;
        app.plan("/in", [Reply::status(500), Reply::word("DROP"), Reply::ok()]);
        let mut answers = vec![];
        for n in 0..4 {
            let answer = send(app.address(), "POST", "/in", &[("x-n", &n.to_string())], b"{\"data\":1}").await?;
            answers.push((answer.status, answer.text()));
        }
        let expected = [(500, ""), (200, r#"{"status":"DROP"}"#), (200, ""), (200, "")];
        assert_eq!(answers, expected.map(|(status, body)| (status, body.to_owned())));
        let seen = app.wait_for(4, "/in").await?;
        assert_eq!(seen[2].headers["x-n"], "2");
        assert_eq!(seen[3].data()?, 1);
        Ok(())
    })
}

#[test]
fn is_asked_for_its_subscriptions_and_remembers_that_apart() -> Result<()> {
    run(async |_| {
        let app = App::start().await?;
        assert_eq!(get(app.address(), "/dapr/subscribe").await?.text(), "[]");
        app.subscribe("{}");
        assert_eq!(get(app.address(), "/dapr/subscribe").await?.text(), "{}");
        app.plan("/dapr/subscribe", [Reply::status(404), Reply::status(204)]);
        assert_eq!(get(app.address(), "/dapr/subscribe").await?.status, 404);
        assert_eq!(get(app.address(), "/dapr/subscribe").await?.status, 204);
        assert!(app.seen().is_empty());
        assert_eq!((app.asked().len(), app.asked()[0].method.as_str()), (4, "GET"));
        Ok(())
    })
}

#[test]
fn cuts_the_connection_on_request() -> Result<()> {
    run(async |_| {
        let app = App::start().await?;
        app.plan("/in", [Reply::Cut]);
        assert!(send(app.address(), "POST", "/in", &[], b"{}").await.is_err(), "it answered");
        assert_eq!(app.seen().len(), 1);
        Ok(())
    })
}

#[test]
fn is_gone_after_a_crash_and_back_on_its_port_after_a_start() -> Result<()> {
    run(async |_| {
        let mut app = App::start().await?;
        app.plan("/in", [Reply::Never]);
        let address = app.address();
        let pending = tokio::spawn(async move { send(address, "POST", "/in", &[], b"{}").await });
        app.wait_for(1, "/in").await?;
        app.crash().await;
        assert!(pending.await?.is_err(), "a request was answered by a crash");
        assert!(get(address, "/").await.is_err(), "something still listens");
        app.start_again().await?;
        assert_eq!(get(address, "/").await?.status, 200);
        Ok(())
    })
}
