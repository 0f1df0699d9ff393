use super::*;

fn run(arguments: &str) -> Result<RunArguments, clap::Error> {
    let words = format!("whimbrel run {arguments}");
    let parsed = Arguments::try_parse_from(double_dashes(words.split_whitespace().map(OsString::from)))?;
    match parsed.command {
        Command::Run(run) => Ok(*run),
        other => panic!("{other:?}"),
    }
}

/// The flags that Dapr's integration tests pass on every start.
#[test]
fn a_command_line_of_daprd_is_taken() {
    let run = run("--app-id me --app-port 8080 --app-protocol http --log-level debug --dapr-http-port 0 \
        --dapr-grpc-port=0 --dapr-internal-grpc-port 0 --dapr-internal-grpc-listen-address 127.0.0.1 \
        --dapr-listen-addresses 127.0.0.1 --dapr-public-port 0 --dapr-public-listen-address 127.0.0.1 --metrics-port 0 \
        --metrics-listen-address 127.0.0.1 --profile-port 0 --enable-app-health-check=false --app-health-probe-interval 0 \
        --app-health-threshold 0 --mode standalone --enable-mtls=false --enable-profiling --enable-api-logging=true \
        --resources-path a -resources-path b --log-as-json=true --app-max-concurrency -1")
    .unwrap();
    assert_eq!((run.app_id.as_deref(), run.app_port), (Some("me"), Some(8080)));
    assert_eq!(run.resources_path, [PathBuf::from("a"), PathBuf::from("b")]);
    assert!(run.log_as_json);
    let given = run.ignored.given();
    assert!(given.contains(&"--enable-profiling".to_owned()), "{given:?}");
    assert_eq!(run.enable_api_logging, Some(true));
    assert!(given.contains(&"--enable-mtls".to_owned()) && given.contains(&"--mode".to_owned()), "{given:?}");
}

/// A switch without a value leaves the next word alone.
#[test]
fn a_switch_swallows_nothing() {
    for next in ["--app-port=8080", "--app-port 8080"] {
        let run = run(&format!("--enable-mtls {next} --enable-profiling")).unwrap();
        assert_eq!((run.app_port, run.ignored.given().len()), (Some(8080), 2));
    }
}

#[test]
fn what_the_app_speaks() {
    use AppProtocol::{H2c, Http, Https};
    let protocol = |flags: &str| run(flags).unwrap().protocol();
    let cases = [("", Some(Http)), ("HTTPS", Some(Https)), ("h2c", Some(H2c)), ("grpc", None), ("x", None)];
    for (name, expected) in cases.into_iter().skip(1) {
        assert_eq!(protocol(&format!("--app-protocol {name}")), expected, "{name}");
    }
    assert_eq!(protocol(""), cases[0].1);
    assert_eq!(protocol("--app-ssl"), Some(Https));
    assert_eq!(protocol("--app-ssl=false"), Some(Http));
    assert_eq!(protocol("--app-ssl --app-protocol h2c"), Some(H2c));
}

/// What moved from the ignored flags to those that act.
#[test]
fn the_ports_for_operators_are_read() {
    let usual = run("").unwrap();
    assert_eq!((usual.enable_metrics, usual.metrics_port, usual.dapr_public_port), (true, None, None));
    let set = run("--enable-metrics=false --metrics-port 0 --dapr-public-port 7 --dapr-block-shutdown-duration 1m30s \
        --allowed-origins *")
    .unwrap();
    assert_eq!((set.enable_metrics, set.metrics_port, set.dapr_public_port), (false, Some(0), Some(7)));
    assert_eq!(set.dapr_block_shutdown_duration, Some(Duration::from_secs(90)));
    assert_eq!((set.allowed_origins.as_str(), set.ignored.given().len()), ("*", 0));
    assert!(run("--dapr-block-shutdown-duration soon").is_err());
}

#[test]
fn no_port_of_the_host_is_the_apps() {
    let conflict = |flags: &str| run(flags).unwrap().conflict();
    assert_eq!(conflict("--dapr-http-port 8080"), None);
    assert_eq!(conflict("--app-port 8080 --dapr-http-port 8081 --metrics-port 8082 --dapr-public-port 8083"), None);
    assert_eq!(conflict("--app-port 3500"), Some("--dapr-http-port"));
    assert_eq!(conflict("--app-port 8080 --dapr-http-port 8080"), Some("--dapr-http-port"));
    assert_eq!(conflict("--app-port 8080 --metrics-port 8080"), Some("--metrics-port"));
    assert_eq!(conflict("--app-port 8080 --dapr-public-port 8080"), Some("--dapr-public-port"));
}

/// What is given, but 0 is the default, and the disk has its rest.
#[test]
fn how_often_files_are_looked_at() {
    let every = |flags: &str| run(flags).map(|run| run.look_every()).ok();
    assert_eq!(every(""), Some(LOOK_EVERY));
    assert_eq!(every("--hot-reload-reconcile-interval 0"), Some(LOOK_EVERY));
    assert_eq!(every("--hot-reload-reconcile-interval=0s"), Some(LOOK_EVERY));
    assert_eq!(every("--hot-reload-reconcile-interval 1m30s"), Some(Duration::from_secs(90)));
    assert_eq!(every("--hot-reload-reconcile-interval 1ns"), Some(LOOK_EVERY_MIN));
    assert_eq!(every("--hot-reload-reconcile-interval soon"), None);
    assert_eq!(every("--hot-reload-reconcile-interval=-1s"), None);
}

#[test]
fn of_a_flag_that_is_given_twice_the_last_counts() {
    let run =
        run("--app-port 1 --app-port 2 --log-as-json --log-as-json=false --mode a --mode b --config a --config b")
            .unwrap();
    assert_eq!((run.app_port, run.log_as_json, run.ignored.given().len()), (Some(2), false, 1));
    assert_eq!(run.config, [PathBuf::from("a"), PathBuf::from("b")], "all of those that may be several");
}

#[test]
fn a_program_called_daprd_runs() {
    let called = |line: &str| as_called(line.split_whitespace().map(OsString::from)).collect::<Vec<_>>();
    assert_eq!(called("/usr/bin/daprd -app-id me"), ["/usr/bin/daprd", "run", "-app-id", "me"]);
    assert_eq!(called("whimbrel run"), ["whimbrel", "run"]);
    assert_eq!(called("daprd-like"), ["daprd-like"]);
    assert!(called("").is_empty());
}

#[test]
fn the_version_is_told() {
    for flag in ["--version", "--build-info"] {
        let told = run(flag).unwrap_err();
        assert_eq!((told.kind(), told.use_stderr()), (clap::error::ErrorKind::DisplayVersion, false));
    }
}

#[test]
fn sizes_and_times() {
    assert_eq!(run("").unwrap().body_bytes_max(), Some(4 << 20));
    assert_eq!(run("--max-body-size 16Ki").unwrap().body_bytes_max(), Some(16 << 10));
    assert_eq!(run("--max-body-size 0").unwrap().body_bytes_max(), None);
    assert_eq!(run("--dapr-http-max-request-size 8").unwrap().body_bytes_max(), Some(8 << 20));
    assert_eq!(run("--dapr-http-read-buffer-size 8").unwrap().header_bytes_max(), 8 << 10);
    assert_eq!(run("--dapr-graceful-shutdown-seconds -3").unwrap().shutdown_wait(), Some(Duration::from_secs(5)));
    assert_eq!(run("--dapr-graceful-shutdown-seconds 0").unwrap().shutdown_wait(), None);
    assert!(run("--max-body-size 4Q").is_err());
    assert!(run("--no-such-flag").is_err());
}

/// As daprd: what is not positive means the default, and probes do not overlap.
#[test]
fn the_apps_health() {
    let probe = |flags: &str| run(flags).unwrap().probe();
    let usual = || Probe::new("/healthz", Duration::from_secs(5), Duration::from_millis(500), 3).map(Some);
    assert_eq!(probe(""), Ok(None));
    assert_eq!(probe("--enable-app-health-check=false --app-health-probe-timeout 9999999"), Ok(None));
    assert_eq!(probe("--enable-app-health-check"), usual());
    let zeros = "--enable-app-health-check=true --app-health-probe-interval 0 --app-health-probe-timeout -1 --app-health-threshold 0";
    assert_eq!(probe(zeros), usual());
    let set = "--enable-app-health-check --app-health-check-path well --app-health-probe-interval 1 \
        --app-health-probe-timeout 1000 --app-health-threshold 7";
    assert_eq!(probe(set), Probe::new("/well", Duration::from_secs(1), Duration::from_secs(1), 7).map(Some));
    assert!(probe("--enable-app-health-check --app-health-probe-timeout 5001").is_err());
    assert!(probe("--enable-app-health-check --app-health-probe-interval 86401").is_err());
    assert!(run("--app-health-threshold many").is_err());
}
