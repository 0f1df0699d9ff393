//! Tests of `metrics`: what is counted, by the lines that Prometheus gets.

use super::*;
use crate::delivery::Reason;
use crate::policy::BreakerState;

fn has(metrics: &Metrics, line: &str) -> bool {
    metrics.text().lines().any(|found| found == line)
}

#[track_caller]
fn check(metrics: &Metrics, line: &str) {
    assert!(has(metrics, line), "no line {line} in\n{}", metrics.text());
}

const MS: Duration = Duration::from_millis(1);

/// Dapr's tests want the labels in order of the alphabet, and one that is not set with an empty value.
#[test]
fn publishes_are_counted_as_dapr_does() {
    let metrics = Metrics::default();
    assert_eq!(metrics.text(), "", "nothing is counted yet");
    let egress = metrics.egress("me", "bus", "t");
    egress.published(true, 3 * MS);
    metrics.egress("me", "bus", "t").published(true, 3 * MS);
    egress.published(false, MS);
    let labels = r#"app_id="me",component="bus",namespace="",success="true",topic="t""#;
    check(&metrics, &format!("dapr_component_pubsub_egress_count{{{labels}}} 2"));
    check(&metrics, &format!("dapr_component_pubsub_egress_latencies_sum{{{labels}}} 6"));
    check(&metrics, &format!("dapr_component_pubsub_egress_latencies_bucket{{{labels},le=\"2\"}} 0"));
    check(&metrics, &format!("dapr_component_pubsub_egress_latencies_bucket{{{labels},le=\"3\"}} 2"));
    let labels = labels.replace("true", "false");
    check(&metrics, &format!("dapr_component_pubsub_egress_count{{{labels}}} 1"));
    egress.published_bulk(false, MS);
    check(&metrics, &format!("dapr_component_pubsub_egress_bulk_count{{{labels}}} 1"));
    check(&metrics, &format!("dapr_component_pubsub_egress_bulk_latencies_sum{{{labels}}} 1"));
    check(&metrics, &format!("dapr_component_pubsub_egress_count{{{labels}}} 1"));
}

/// What became of deliveries, by Dapr's two words for it.
#[track_caller]
fn check_ingress(count: impl FnOnce(&Ingress), words: [&str; 2], own: Option<&str>) {
    let metrics = Metrics::new("prod");
    count(&metrics.ingress("me", "bus", "t"));
    let [process, status] = words;
    let common = r#"app_id="me",component="bus""#;
    let labels = format!(r#"{common},namespace="prod",process_status="{process}",status="{status}",topic="t""#);
    check(&metrics, &format!("dapr_component_pubsub_ingress_count{{{labels}}} 1"));
    let others = metrics.text().lines().filter(|line| line.starts_with("dapr_component_pubsub_ingress_count")).count();
    assert_eq!(others, 1, "{}", metrics.text());
    if let Some(line) = own {
        check(&metrics, &line.replace('*', common));
    }
}

#[test]
fn deliveries_are_counted_as_dapr_does() {
    let attempt = |status| move |ingress: &Ingress| ingress.attempted(1, status, MS);
    let own = r#"whimbrel_delivery_attempts_total{*,topic="t"} 1"#;
    check_ingress(attempt(Status::Success), ["success", "success"], Some(own));
    check_ingress(attempt(Status::Retry), ["retry", "retry"], Some(own));
    check_ingress(attempt(Status::Drop), ["drop", "success"], Some(own));
    let line = |name: &str, reason: &str| format!(r#"whimbrel_{name}_total{{*,reason="{reason}",topic="t"}} 1"#);
    let dropped = |reason| move |ingress: &Ingress| ingress.dropped(&reason);
    check_ingress(dropped(Reason::Unrouted), ["drop", "success"], Some(&line("dropped", "unrouted")));
    let exhausted = || Reason::Exhausted("what the app said".into());
    let dead = |ingress: &Ingress| ingress.dead_lettered(&exhausted());
    check_ingress(dead, ["drop", "drop"], Some(&line("dead_letters", "exhausted")));
    let back = |ingress: &Ingress| ingress.given_back(&exhausted());
    check_ingress(back, ["retry", "retry"], Some(&line("given_back", "exhausted")));
    let verdict = |ingress: &Ingress| {
        ingress.attempted(1, Status::Drop, MS);
        ingress.dropped(&Reason::Dropped);
    };
    check_ingress(verdict, ["drop", "success"], Some(&line("dropped", "dropped")));
}

#[test]
fn what_is_under_way_and_what_was_tried_again() {
    let metrics = Metrics::default();
    let ingress = metrics.ingress("me", "bus", "t");
    let labels = r#"{app_id="me",component="bus",topic="t"}"#;
    let (first, second) = (ingress.begin(), ingress.begin());
    check(&metrics, &format!("whimbrel_deliveries_in_flight{labels} 2"));
    drop((first, second));
    check(&metrics, &format!("whimbrel_deliveries_in_flight{labels} 0"));
    ingress.attempted(1, Status::Retry, MS);
    ingress.attempted(2, Status::Success, MS);
    check(&metrics, &format!("whimbrel_delivery_further_attempts_total{labels} 1"));
}

/// A client that makes up topics does not make up memory.
#[test]
fn topics_beyond_the_bound_are_counted_together() {
    let metrics = Metrics::default();
    for topic in 0..TOPICS_MAX + 10 {
        metrics.egress("me", "bus", &topic.to_string()).published(true, MS);
    }
    metrics.egress("me", "bus", "0").published(true, MS);
    let line = |topic: &str, count: u32| {
        let labels = format!(r#"app_id="me",component="bus",namespace="",success="true",topic="{topic}""#);
        format!("dapr_component_pubsub_egress_count{{{labels}}} {count}")
    };
    check(&metrics, &line("0", 2));
    check(&metrics, &line("(other)", 10));
    assert!(!has(&metrics, &line("1005", 1)));
}

/// What a rule puts together is counted together, whoever counts.
#[test]
fn values_of_labels_follow_the_rules() {
    let rule = |metric: &str, label: &str, expression: &str, by: &str| {
        let replacement = whimbrel_resources::Replacement::new(expression, by).unwrap();
        MetricsRule::new(metric, label, vec![replacement])
    };
    let options = MetricsOptions {
        rules: vec![
            rule("dapr_component_pubsub_egress_count", "topic", "orders/.*", "never: a later rule is for the same"),
            rule("dapr_component_pubsub_egress_count", "topic", "^orders/.+", "orders/"),
            rule("whimbrel_lag_messages", "group", "-[0-9]+$", ""),
        ],
        ..MetricsOptions::default()
    };
    let metrics = Metrics::with_options("", &options);
    for topic in ["orders/1", "orders/2", "others/1"] {
        metrics.egress("me", "bus", topic).published(true, MS);
    }
    let egress = |name: &str, topic: &str, value: u32| {
        let labels = format!(r#"app_id="me",component="bus",namespace="",success="true",topic="{topic}""#);
        format!("dapr_component_pubsub_egress_{name}{{{labels}}} {value}")
    };
    check(&metrics, &egress("count", "orders/", 2));
    check(&metrics, &egress("count", "others/1", 1));
    check(&metrics, &egress("latencies_count", "orders/1", 1));
    let lags = metrics.lags("bus", None);
    lags.tell("t", "me-17", 5);
    check(&metrics, r#"whimbrel_lag_messages{component="bus",group="me",topic="t"} 5"#);
    lags.forget("t", "me-17");
    assert!(!metrics.text().contains("whimbrel_lag_messages"), "{}", metrics.text());
}

#[test]
fn error_codes_are_counted_where_it_is_wanted() {
    for error_codes in [false, true] {
        let metrics = Metrics::with_options("", &MetricsOptions { error_codes, ..MetricsOptions::default() });
        metrics.error_code("me", "pubsub", "ERR_PUBSUB_EMPTY");
        let line = r#"dapr_error_code_total{app_id="me",category="pubsub",error_code="ERR_PUBSUB_EMPTY"} 1"#;
        assert_eq!(has(&metrics, line), error_codes);
    }
}

#[test]
fn what_plugins_take_up() {
    let metrics = Metrics::default();
    let (usage, other) = (metrics.usage(PluginKind::Broker, "bus"), metrics.usage(PluginKind::Handler, "bus"));
    usage.ran(Duration::from_millis(1500));
    metrics.usage(PluginKind::Broker, "bus").ran(Duration::from_secs(1));
    usage.grew(300);
    usage.grew(20);
    usage.gave_back(300);
    other.grew(7);
    let labels = r#"{component="bus",kind="broker"}"#;
    check(&metrics, &format!("whimbrel_plugin_cpu_seconds_total{labels} 2.5"));
    check(&metrics, &format!("whimbrel_plugin_memory_bytes{labels} 20"));
    check(&metrics, r#"whimbrel_plugin_memory_bytes{component="bus",kind="handler"} 7"#);
    assert_eq!((usage.memory_bytes(), other.memory_bytes()), (20, 7));
}

/// Topics are called what their users call them, and who is not subscribed any more is not behind.
#[test]
fn how_far_groups_are_behind() {
    let metrics = Metrics::default();
    let lags = metrics.lags("bus", Some("prod"));
    lags.tell("prodt", "me", 3);
    lags.tell("prodt", "me", 2);
    lags.tell("prodt", "you", u64::MAX);
    check(&metrics, r#"whimbrel_lag_messages{component="bus",group="me",topic="t"} 2"#);
    lags.forget("prodt", "me");
    lags.forget("prodt", "nobody");
    assert!(!metrics.text().contains(r#"group="me""#), "{}", metrics.text());
    assert!(metrics.text().contains(r#"group="you""#), "{}", metrics.text());
}

/// The host's own app is the one that counts, whoever asks.
#[test]
fn what_was_loaded() {
    let metrics = Metrics::with_options("prod", &MetricsOptions { app_id: "me".into(), ..MetricsOptions::default() });
    metrics.component_opened("pubsub.redis");
    metrics.component_opened("pubsub.redis");
    metrics.component_failed("pubsub.kafka", "bus", StartFailure::Init);
    metrics.component_failed("pubsub.kafka", "bus", StartFailure::Creation);
    metrics.resiliencies_loaded(&["r".to_owned(), "s".to_owned()]);
    check(&metrics, r#"dapr_runtime_component_loaded{app_id="me"} 2"#);
    check(&metrics, r#"dapr_runtime_component_init_total{app_id="me",component="pubsub.redis"} 2"#);
    for reason in ["init", "creation"] {
        let labels = format!(r#"app_id="me",component="pubsub.kafka",component_name="bus",reason="{reason}""#);
        check(&metrics, &format!("dapr_runtime_component_init_fail_total{{{labels}}} 1"));
    }
    check(&metrics, r#"dapr_resiliency_loaded{app_id="me",name="r",namespace="prod"} 1"#);
    check(&metrics, r#"dapr_resiliency_loaded{app_id="me",name="s",namespace="prod"} 1"#);
}

/// What is shown of a breaker is under one name, and nothing once its broker is gone.
#[test]
fn the_state_of_a_breaker_is_shown_as_long_as_it_is_there() {
    let (metrics, counters) = (Metrics::default(), PolicyCounters::default());
    let line = |name: &str, state: &str, value: u32| {
        let labels = format!(r#"app_id="",flow_direction="inbound",name="{name}",namespace="""#);
        format!(
            r#"dapr_resiliency_cb_state{{{labels},policy="circuitbreaker",status="{state}",target="Pubsub_bus"}} {value}"#
        )
    };
    let policy = whimbrel_resources::Policy::default();
    counters.of(&metrics, "old", Flow::Inbound, "bus").applied(&policy, Some(BreakerState::Open));
    check(&metrics, &line("old", "open", 1));
    counters.of(&metrics, "new", Flow::Inbound, "bus").applied(&policy, Some(BreakerState::HalfOpen));
    check(&metrics, &line("new", "half-open", 1));
    counters.show(BreakerState::Closed);
    check(&metrics, &line("new", "half-open", 0));
    check(&metrics, &line("new", "closed", 1));
    assert!(!metrics.text().contains(r#"cb_state{app_id="",flow_direction="inbound",name="old""#));
    counters.forget();
    assert!(!metrics.text().contains("cb_state"), "{}", metrics.text());
}
