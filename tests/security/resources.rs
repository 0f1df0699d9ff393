//! Resources that are wrong: the host says file, line, key and remedy before it does anything, all problems at once.

use anyhow::Result;

use crate::harness::host::Ended;
use crate::harness::{http, resource, run};

/// The exit code for resources that cannot be used (sysexits.h, EX_CONFIG).
const BAD_RESOURCES: i32 = 78;

/// The exit code for a start that failed.
const FAILED: i32 = 1;

/// The exit code for arguments that cannot be used (sysexits.h, EX_USAGE).
const BAD_ARGUMENTS: i32 = 64;

fn assert_says(ended: &Ended, code: i32, texts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.log);
    for text in texts {
        assert!(ended.log.contains(text), "{text:?} is not in\n{}", ended.log);
    }
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
}

/// A host with these resources ends at once with this code, and says all this.
fn check_refused(resources: &[&str], texts: &[&str]) -> Result<()> {
    run(async |test| {
        let mut plan = test.host("me")?;
        for yaml in resources {
            plan = plan.resource(yaml)?;
        }
        assert_says(&plan.run_to_the_end().await?, BAD_RESOURCES, texts);
        Ok(())
    })
}

#[test]
fn a_value_that_does_not_parse() -> Result<()> {
    let yaml = resource::redis("bus", "127.0.0.1:6379", &[("queueDepth", "many")]);
    let line = yaml.lines().position(|line| line.contains("queueDepth")).unwrap_or_default() + 1;
    check_refused(&[&yaml], &[&format!("00.yaml:{line}"), "queueDepth", "many"])
}

#[test]
fn a_mode_that_does_not_exist() -> Result<()> {
    let yaml = resource::component("bus", "pubsub.in-memory", &[("mode", "sideways")]);
    check_refused(&[&yaml], &["00.yaml:", "mode", "sideways", "queue"])
}

#[test]
fn a_required_key_that_is_missing() -> Result<()> {
    check_refused(&[&resource::component("bus", "pubsub.redis", &[])], &["00.yaml:", "redisHost"])
}

#[test]
fn two_components_with_one_name() -> Result<()> {
    let (first, second) = (resource::in_memory("bus"), resource::queue("bus"));
    check_refused(&[&first, &second], &["01.yaml:", "duplicate", "bus", "00.yaml"])
}

#[test]
fn a_type_that_does_not_exist() -> Result<()> {
    run(async |test| {
        // Not a wrong resource as such: the plugin may only be missing.
        let plan = test.host("me")?.resource(resource::component("bus", "pubsub.rediss", &[]))?;
        assert_says(&plan.run_to_the_end().await?, FAILED, &["bus", "pubsub.rediss", "pubsub.redis"]);
        Ok(())
    })
}

#[test]
fn everything_that_is_wrong_is_said_at_once() -> Result<()> {
    let first = resource::redis("a", "127.0.0.1:6379", &[("queueDepth", "many"), ("processingTimeout", "soon")]);
    let second = resource::component("b", "pubsub.in-memory", &[("mode", "sideways")]);
    check_refused(&[&first, &second], &["queueDepth", "processingTimeout", "sideways"])
}

#[test]
fn a_password_in_the_wrong_place_is_not_shown() -> Result<()> {
    run(async |test| {
        let metadata = [("redisPassword", "s3cret-word"), ("redisPasswort", "s3cret-typo"), ("queueDepth", "many")];
        let plan = test.host("me")?.resource(resource::redis("bus", "127.0.0.1:6379", &metadata))?;
        let ended = plan.run_to_the_end().await?;
        assert_says(&ended, BAD_RESOURCES, &["redisPasswort", "redisPassword"]);
        assert!(!ended.log.contains("s3cret"), "a value of an unknown key may be a secret:\n{}", ended.log);
        Ok(())
    })
}

#[test]
fn an_unknown_key_is_a_warning_with_the_nearest_known_one() -> Result<()> {
    run(async |test| {
        let yaml = resource::component("bus", "pubsub.in-memory", &[("mode", "queue"), ("maxQueueMesages", "9")]);
        let mut host = test.host("me")?.resource(yaml)?.start().await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        let log = host.stop().await?.log;
        let warning = log.lines().find(|line| line.contains("maxQueueMesages")).unwrap_or_default();
        assert!(warning.contains("WARN") || warning.contains("\"warn\""), "{log}");
        assert!(warning.contains("00.yaml") && warning.contains("maxQueueMessages"), "{log}");
        Ok(())
    })
}

#[test]
fn a_document_that_is_no_yaml_is_skipped_and_said() -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource("kind: [Component\n\tname: {")?.resource(resource::in_memory("bus"))?;
        let mut host = plan.start().await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        let log = host.stop().await?.log;
        assert!(log.contains("00.yaml"), "{log}");
        Ok(())
    })
}

#[test]
fn a_folder_that_does_not_exist() -> Result<()> {
    run(async |test| {
        let ended = test.host("me")?.flag("--resources-path", "/does/not/exist").run_to_the_end().await?;
        assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
        assert!(ended.log.contains("/does/not/exist"), "{}", ended.log);
        Ok(())
    })
}

#[test]
fn arguments_that_make_no_sense() -> Result<()> {
    run(async |test| {
        for (flag, value) in [("--app-port", "many"), ("--no-such-flag", "1"), ("--app-protocol", "telepathy")] {
            let ended = test.host("me")?.flag(flag, value).run_to_the_end().await?;
            assert_says(&ended, BAD_ARGUMENTS, &[flag]);
        }
        Ok(())
    })
}

#[test]
fn an_app_id_with_dots() -> Result<()> {
    run(async |test| {
        assert_says(&test.host("a.b")?.run_to_the_end().await?, BAD_ARGUMENTS, &["app-id"]);
        Ok(())
    })
}
