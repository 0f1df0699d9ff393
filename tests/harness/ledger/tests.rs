//! A ledger that is fed a loss, a phantom or a run that proves nothing must fail; a clean run must not.

use crate::harness::{Test, run};

use super::*;

const RULES: Rules = Rules { messages_min: 30, faults_min: 2, in_flight_median_min: 3 };

struct Run<'a> {
    ledger: Ledger,
    app: Arc<Subscriber>,
    test: &'a Test,
}

impl<'a> Run<'a> {
    fn new(test: &'a Test) -> Result<Self> {
        let log = test.folder("app")?.join("log");
        let says = |n, before| match n {
            7 => Says::Drop,
            9 if before == 0 => Says::Retry,
            11 if before == 0 => Says::Fails,
            _ => Says::Done,
        };
        let app = Arc::new(Subscriber::new("app", log, &RULES, test.seed, says)?);
        Ok(Self { ledger: Ledger::new(test.seed, RULES, vec![Arc::clone(&app)], |_| String::new()), app, test })
    }

    fn body(&self, n: u64) -> String {
        format!(r#"{{"id":"x","data":{}}}"#, self.ledger.send(n))
    }

    /// Everything is sent and confirmed, two faults strike in the middle, everything in `arrives` arrives.
    async fn go(&self, arrives: impl Iterator<Item = u64>) -> Result<()> {
        let bodies: Vec<_> = (0..RULES.messages_min).map(|n| self.body(n)).collect();
        (0..RULES.messages_min).for_each(|n| self.ledger.confirm(n));
        self.ledger.fault("one");
        self.ledger.fault("two");
        for n in arrives {
            let body = bodies.get(index(n)).map(String::as_bytes).unwrap_or_default();
            let refused_once = [9, 11].contains(&n);
            for _ in 0..=u64::from(refused_once) {
                self.app.take(body).await;
            }
        }
        Ok(())
    }

    fn verdict(&self) -> String {
        match self.ledger.close() {
            Ok(_) => "clean".into(),
            Err(error) => error.to_string(),
        }
    }
}

fn check(body: impl AsyncFnOnce(&Run) -> Result<()>, expect: &str) -> Result<()> {
    run(async |test| {
        let run = Run::new(test)?;
        body(&run).await?;
        let verdict = run.verdict();
        assert!(verdict.contains(expect), "seed {}: {verdict:?} does not say {expect:?}", run.test.seed);
        Ok(())
    })
}

#[test]
fn a_clean_run_is_clean() -> Result<()> {
    check(
        async |run| {
            run.go(0..30).await?;
            run.app.found_dead(vec![7]);
            assert!(run.ledger.quiet());
            Ok(())
        },
        "clean",
    )
}

#[test]
fn a_dropped_message_that_is_not_in_the_dead_letter_topic_is_lost() -> Result<()> {
    check(async |run| run.go(0..30).await, "1 of app's messages were LOST, among them (number, requests) [(7, 1)]")
}

#[test]
fn a_message_that_never_arrives_is_lost() -> Result<()> {
    check(
        async |run| {
            run.app.found_dead(vec![7]);
            run.go((0..30).filter(|n| *n != 20)).await
        },
        "1 of app's messages were LOST, among them (number, requests) [(20, 0)]",
    )
}

#[test]
fn an_event_that_was_never_sent_is_a_phantom() -> Result<()> {
    check(
        async |run| {
            run.go(0..30).await?;
            run.app.found_dead(vec![7]);
            run.app.take(br#"{"data":{"n":1,"proof":2}}"#).await;
            Ok(())
        },
        "1 PHANTOMS reached app",
    )
}

#[test]
fn a_dead_letter_that_was_never_sent_is_a_phantom() -> Result<()> {
    check(
        async |run| {
            run.go(0..30).await?;
            run.app.found_dead(vec![7, 1000]);
            Ok(())
        },
        "1 PHANTOMS reached app",
    )
}

#[test]
fn faults_that_strike_nothing_prove_nothing() -> Result<()> {
    check(
        async |run| {
            (0..3).for_each(|_| run.ledger.fault("too early"));
            run.go(0..30).await?;
            run.app.found_dead(vec![7]);
            Ok(())
        },
        "the faults struck too little: [0, 0, 0, 30, 30]",
    )
}

#[test]
fn too_few_messages_prove_nothing() -> Result<()> {
    check(
        async |run| {
            run.body(0);
            run.ledger.confirm(0);
            Ok(())
        },
        "only 1 messages were confirmed, of 30",
    )
}

#[test]
fn duplicates_and_disorder_are_told_and_are_no_failure() -> Result<()> {
    check(
        async |run| {
            run.app.found_dead(vec![7]);
            run.go((0..30).rev().chain([3, 4])).await?;
            let report = run.ledger.report()?;
            let account = &report.accounts[0];
            assert_eq!((account.duplicates, account.reordered), (2, 28));
            Ok(())
        },
        "clean",
    )
}
