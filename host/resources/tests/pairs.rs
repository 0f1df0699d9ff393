//! Each `valid/*.yaml` comes to its `.snapshot`, each `invalid/*.yaml` to its `.problems`; app id `me`.
//!
//! `WHIMBREL_BLESS=1` writes what came out in place of what was expected (and still fails, so that nobody passes by it).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use whimbrel_resources::{
    Backoff, Bulk, CircuitBreaker, Codes, Component, HandlerApp, Policies, Policy, Problem, Severity, Snapshot,
    Subscription, Surroundings, configuration, load,
};

#[test]
fn valid() {
    check_all("valid", "snapshot", |case| match load_alone(case) {
        Ok(snapshot) => show(&snapshot),
        Err(problems) => format!("refused:\n{}", show_problems(&problems.0)),
    });
}

#[test]
fn invalid() {
    check_all("invalid", "problems", |case| match load_alone(case) {
        Ok(snapshot) => format!("accepted:\n{}", show(&snapshot)),
        Err(problems) => show_problems(&problems.0),
    });
}

/// What `--config` names, alone.
#[test]
fn configurations() {
    check_all("configuration", "shown", |case| match configuration(&[case.to_path_buf()], &surroundings()) {
        Ok((configuration, warnings)) => format!("{configuration:#?}\n{}", show_problems(&warnings)),
        Err(problems) => format!("refused:\n{}", show_problems(&problems.0)),
    });
}

fn check_all(folder: &str, extension: &str, show: impl Fn(&Path) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut cases: Vec<PathBuf> =
        fs::read_dir(&folder).expect("the pairs").map(|entry| entry.expect("an entry").path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    assert!(cases.len() >= 4, "there are cases in {}", folder.display());
    let mut wrong = Vec::new();
    for case in cases {
        let outcome = show(&case);
        let pair = case.with_extension(extension);
        let expected = fs::read_to_string(&pair).unwrap_or_default();
        if outcome != expected {
            wrong.push(format!("{}\n--- expected\n{expected}\n--- came\n{outcome}", case.display()));
            if std::env::var_os("WHIMBREL_BLESS").is_some() {
                fs::write(&pair, outcome).expect("written");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Loads one file as the only one of a folder; in what comes out the folder has no name.
fn load_alone(case: &Path) -> Result<Snapshot, whimbrel_resources::Problems> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(case, folder.path().join("f.yaml")).expect("copied");
    load(&[folder.path().to_path_buf()], &["me"], &surroundings())
}

fn surroundings() -> Surroundings {
    let variables = [("NAMESPACE", "prod"), ("MY_REGION", "north"), ("SECRET_PASSWORD", "hunter2"), ("DAPR_X", "no")];
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn show_problems(problems: &[Problem]) -> String {
    let mut out = String::new();
    for problem in problems {
        let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
        let mut problem = problem.clone();
        problem.hint = problem.hint.replace(&problem.at.file.display().to_string(), "f.yaml");
        problem.at.file = PathBuf::from(file_name(&problem.at.file));
        writeln!(out, "{severity} {problem}").expect("written");
    }
    out
}

fn show(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    snapshot.components.iter().for_each(|component| show_component(component, &mut out));
    snapshot.subscriptions.iter().for_each(|subscription| show_subscription("", subscription, &mut out));
    snapshot.handlers.iter().for_each(|handler| show_handler(handler, &mut out));
    let policies = &snapshot.policies;
    for (direction, by_name, default) in [
        ("inbound", &policies.inbound, &policies.inbound_default),
        ("outbound", &policies.outbound, &policies.outbound_default),
    ] {
        let mut names: Vec<&String> = by_name.keys().collect();
        names.sort();
        names
            .iter()
            .for_each(|name| writeln!(out, "{direction} {name}: {}", policy(&by_name[*name])).expect("written"));
        if *default != Policy::default() {
            writeln!(out, "{direction} default: {}", policy(default)).expect("written");
        }
    }
    if policies.discovery != Policies::default().discovery {
        writeln!(out, "discovery: {}", policy(&policies.discovery)).expect("written");
    }
    if !snapshot.resiliencies.is_empty() {
        writeln!(out, "resiliencies {}", snapshot.resiliencies.join(" ")).expect("written");
    }
    out + &show_problems(&snapshot.warnings)
}

fn show_component(component: &Component, out: &mut String) {
    let Component { name, kind, version, scopes, init_timeout, ignore_errors, consumer_id, .. } = component;
    writeln!(out, "component {name:?} {kind}/{version} line {} init {init_timeout:?}", component.at.line)
        .expect("written");
    for property in &component.properties {
        writeln!(out, "  {} = {:?} line {}", property.name, property.value.reveal(), property.at.line)
            .expect("written");
    }
    let mut line = |name: &str, text: String| writeln!(out, "  {name} {text}").expect("written");
    if let Some(id) = consumer_id {
        line("consumer", id.clone());
    }
    if let Some(prefix) = &component.topic_prefix {
        line("prefix", prefix.clone());
    }
    if *ignore_errors {
        line("ignores", "errors".to_owned());
    }
    if !scopes.is_empty() {
        line("scopes", scopes.join(" "));
    }
    if !component.network.is_empty() {
        line("network", component.network.join(" "));
    }
    if let Some(plugin) = &component.plugin {
        line("plugin", file_name(plugin));
    }
    let topics = &component.topic_scopes;
    for (name, list) in [("allowed", &topics.allowed), ("protected", &topics.protected)] {
        if !list.is_empty() {
            line(name, format!("{list:?}"));
        }
    }
    for (name, apps) in [("publishing", &topics.publishing), ("subscription", &topics.subscription)] {
        let sorted: std::collections::BTreeMap<_, _> = apps.iter().collect();
        if !sorted.is_empty() {
            line(name, format!("{sorted:?}"));
        }
    }
}

fn show_subscription(indent: &str, subscription: &Subscription, out: &mut String) {
    let Subscription { name, pubsub, topic, rules, default_route, dead_letter_topic, metadata, bulk, scopes, origin } =
        subscription;
    write!(out, "{indent}{origin:?} {name:?}: {pubsub:?} {topic:?}").expect("written");
    for rule in rules {
        write!(out, " if {:?} -> {:?}", rule.expression(), rule.path()).expect("written");
    }
    write!(out, " -> {default_route:?}").expect("written");
    if let Some(topic) = dead_letter_topic {
        write!(out, " dead {topic:?}").expect("written");
    }
    if !metadata.is_empty() {
        write!(out, " {metadata:?}").expect("written");
    }
    if let Some(Bulk { max_messages, max_wait }) = bulk {
        write!(out, " bulk {max_messages} {max_wait:?}").expect("written");
    }
    if !scopes.is_empty() {
        write!(out, " for {scopes:?}").expect("written");
    }
    out.push('\n');
}

fn show_handler(handler: &HandlerApp, out: &mut String) {
    let HandlerApp { name, file, app_id, subscriptions, limits, at } = handler;
    let file = file_name(file);
    writeln!(out, "handler {name:?} {file} app {app_id:?} line {} {limits:?}", at.line).expect("written");
    subscriptions.iter().for_each(|subscription| show_subscription("  ", subscription, out));
}

fn policy(policy: &Policy) -> String {
    let timeout = policy.timeout.map(|timeout| format!("timeout {timeout:?} ")).unwrap_or_default();
    let retry = policy.retry.as_ref().map(|retry| {
        let wait = match retry.backoff {
            Backoff::Constant(wait) => format!("every {wait:?}"),
            Backoff::Exponential(most) => format!("exponentially up to {most:?}"),
        };
        let listed = |name, codes: &Option<Codes>| codes.as_ref().map(|codes| format!(" {name} {:?}", codes.0));
        let matching = [listed("http", &retry.matching.http), listed("grpc", &retry.matching.grpc)];
        let matching: String = matching.into_iter().flatten().collect();
        format!("retry {wait} {:?}{matching}", retry.max_retries)
    });
    let breaker = policy.breaker.as_ref().map(|breaker| {
        let CircuitBreaker { max_requests, interval, timeout, trip } = &**breaker;
        format!(" breaker {max_requests} {interval:?} {timeout:?} {trip:?}")
    });
    format!("{timeout}{}{}", retry.unwrap_or_default(), breaker.unwrap_or_default()).trim().to_owned()
}
