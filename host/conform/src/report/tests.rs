use super::*;
use crate::check::Check;
use crate::check::Finding::{Failed, NotSupported, Passed, Untested};

fn report(findings: &[(&'static str, Finding)]) -> Vec<(&'static str, Outcome)> {
    let mut report = Report {
        schema: SCHEMA,
        adapter: "pubsub.test".to_owned(),
        secrets: vec!["hunter2".to_owned()],
        ..Report::default()
    };
    for (id, finding) in findings {
        let check = Check {
            id,
            title: "",
            expects: "",
            cause: "",
            read: "",
            needs: &[],
            bound: None,
            run: |_| Box::pin(async { Ok(Passed) }),
        };
        report.take(Verdict::new(&check, finding.clone(), Duration::ZERO));
    }
    report.finish(Duration::ZERO);
    assert!(!report.json().contains("hunter2"), "{}", report.json());
    report.checks.iter().map(|check| (check.id, check.outcome)).collect()
}

#[test]
fn a_failure_explains_what_was_not_tested_because_of_it() {
    let because = |other| Untested(other, "it did not come".to_owned());
    let check = |findings: &[(&'static str, Finding)], expected: &[Outcome]| {
        let found: Vec<Outcome> = report(findings).into_iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(found, expected, "{findings:?}");
    };
    let failed = || Failed("hunter2 was refused".to_owned());
    check(&[("A", failed()), ("B", because("A"))], &[Outcome::Failed, Outcome::NotTested]);
    check(&[("A", Passed), ("B", because("A"))], &[Outcome::Passed, Outcome::Failed]);
    check(&[("A", NotSupported("no".to_owned())), ("B", because("A"))], &[Outcome::NotSupported, Outcome::Failed]);
    check(&[("B", because("A"))], &[Outcome::Failed]);
    check(&[("A", because("A"))], &[Outcome::Failed]);
    // B could explain C, and nothing explains B: it has failed itself.
    check(
        &[("A", Passed), ("B", because("A")), ("C", because("B"))],
        &[Outcome::Passed, Outcome::Failed, Outcome::NotTested],
    );
    check(&[("A", because("B")), ("B", because("A"))], &[Outcome::Failed, Outcome::Failed]);
}
