//! Names and arguments.

use super::*;
use whimbrel_sdk::{Config, Property};

fn plan(given: &[(&str, &str)], metadata: &[(&str, &str)]) -> Result<Plan, Failure> {
    let all = [("hostname", "rabbit")].into_iter().chain(given.iter().copied());
    let properties = all.map(|(name, value)| Property { name: name.into(), value: value.into() }).collect();
    let settings = Settings::of(&Config { name: "bus".into(), properties, instance: "i".into() }).unwrap();
    let metadata: Vec<(String, String)> =
        metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Plan::new(&settings, "orders".to_owned(), "app", &metadata)
}

#[test]
fn queues_as_daprs_component_declares_them() {
    let check = |given: &[(&str, &str)], metadata: &[(&str, &str)], expected: &str| {
        let plan = plan(given, metadata).unwrap();
        let argument = |(name, argument): &(&str, Argument)| match argument {
            Argument::Number(number) => format!(" {name}={number}"),
            Argument::Small(number) => format!(" {name}={number}"),
            Argument::Flag(flag) => format!(" {name}={flag}"),
            Argument::Text(text) => format!(" {name}={text}"),
            Argument::Flags(_) => String::new(),
        };
        let mut arguments: Vec<String> = plan.arguments.0.iter().map(argument).collect();
        arguments.sort();
        let gone = if plan.declare.auto_delete { " auto-delete" } else { "" };
        let keys = plan.routing_keys.join("|");
        assert_eq!(format!("{} [{keys}]{gone}{}", plan.queue, arguments.concat()), expected);
    };
    check(&[], &[], "app-orders [] x-queue-type=classic");
    check(&[("compat", "dapr")], &[], "app-orders [] auto-delete x-queue-type=classic");
    check(&[("queueType", "quorum")], &[], "app-orders [] x-queue-type=quorum");
    // A default is no contradiction.
    check(&[("compat", "dapr")], &[("queueType", "quorum")], "app-orders [] x-queue-type=quorum");
    check(&[], &[("queuename", "q"), ("routingKey", "a,b.*,")], "q [a|b.*|] x-queue-type=classic");
    check(&[], &[("maxPriority", "300")], "app-orders [] x-max-priority=255 x-queue-type=classic");
    check(&[], &[("singleActiveConsumer", "true")], "app-orders [] x-queue-type=classic x-single-active-consumer=true");
    check(
        &[("maxLen", "5"), ("maxLenBytes", "6"), ("overflow", "reject-publish")],
        &[("maxLen", "7")],
        "app-orders [] x-max-length-bytes=6 x-max-length=7 x-overflow=reject-publish x-queue-type=classic",
    );
    check(
        &[("enableDeadLetter", "true"), ("maxLen", "5")],
        &[],
        "app-orders [] x-dead-letter-exchange=dlx-app-orders x-max-length=5 x-queue-type=classic",
    );
}

#[test]
fn what_is_wrong_is_named() {
    let long = "x".repeat(256);
    let check = |given: &[(&str, &str)], metadata: &[(&str, &str)], name: &str| {
        let refused = plan(given, metadata).unwrap_err();
        assert!(matches!(&refused, Failure::Invalid(text) if text.contains(name)), "{refused:?}");
    };
    check(&[], &[("queueName", &long)], "queueName");
    check(&[], &[("queueName", "amq.gen")], "queueName");
    check(&[], &[("queueType", "stream")], "queueType");
    check(&[], &[("maxPriority", "x")], "maxPriority");
    check(&[], &[("maxPriority", "5"), ("queueType", "quorum")], "maxPriority");
    check(&[], &[("maxLen", "-5")], "maxLen");
    check(&[], &[("singleActiveConsumer", "maybe")], "singleActiveConsumer");
    check(&[], &[("routingKey", &long)], "routingKey");
    check(&[], &[("routingKey", &",".repeat(300))], "routingKey");
    check(&[("durable", "false")], &[("queueType", "quorum")], "durable");
    check(&[("deletedWhenUnused", "true")], &[("queueType", "quorum")], "deletedWhenUnused");
    let long = "x".repeat(252);
    check(&[("enableDeadLetter", "true")], &[("queueName", &long)], "enableDeadLetter");
}
