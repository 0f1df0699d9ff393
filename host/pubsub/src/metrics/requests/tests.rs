//! Tests of `requests`: the labels of each cardinality, and that there is a bound.

use whimbrel_resources::PathPattern;

use super::super::MetricsOptions;
use super::*;

fn metrics(increased_cardinality: bool, paths: &[&str], exclude_verbs: bool) -> Metrics {
    let paths = paths.iter().map(|path| PathPattern::new(path).unwrap()).collect();
    let http = HttpMetrics { increased_cardinality, paths, exclude_verbs };
    Metrics::with_options("", &MetricsOptions { app_id: "me".into(), http, ..MetricsOptions::default() })
}

fn serve(metrics: &Metrics, path: &str) {
    let took = Duration::from_millis(3);
    metrics.served(Served { name: "PublishEvent", verb: "POST", path, status: 204, took, bytes: [2000, 0] });
}

#[track_caller]
fn check_line(metrics: &Metrics, line: &str) {
    assert!(metrics.text().lines().any(|found| found == line), "no {line} in\n{}", metrics.text());
}

/// One request of the API and one to the app, each with these labels.
#[track_caller]
fn check(metrics: &Metrics, served: &str, sent: &str) {
    serve(metrics, "/v1.0/publish/bus/t");
    metrics.sends("POST", "/in/1", 5000).answered(200, 10);
    check_line(metrics, &format!("dapr_http_server_request_count{{app_id=\"me\",{served}}} 1"));
    check_line(metrics, &format!("dapr_http_server_latency_sum{{app_id=\"me\",{served}}} 3"));
    check_line(metrics, &format!("dapr_http_client_completed_count{{app_id=\"me\",{sent}}} 1"));
    check_line(metrics, &format!("dapr_http_client_roundtrip_latency_count{{app_id=\"me\",{sent}}} 1"));
    check_line(metrics, "dapr_http_server_request_bytes_sum{app_id=\"me\"} 2000");
    check_line(metrics, "dapr_http_server_request_bytes_bucket{app_id=\"me\",le=\"1024\"} 0");
    check_line(metrics, "dapr_http_server_request_bytes_bucket{app_id=\"me\",le=\"2048\"} 1");
    check_line(metrics, "dapr_http_server_response_bytes_sum{app_id=\"me\"} 0");
    let sizes = sent.replace("200", "");
    check_line(metrics, &format!("dapr_http_client_sent_bytes_sum{{app_id=\"me\",{sizes}}} 5000"));
    check_line(metrics, "dapr_http_client_received_bytes_sum{app_id=\"me\"} 10");
}

#[test]
fn the_labels_are_daprs() {
    check(&metrics(false, &[], false), r#"method="PublishEvent",status="204""#, r#"status="200""#);
    let path = |path: &str, status: &str| format!(r#"method="POST",path="{path}",status="{status}""#);
    let whole = metrics(true, &[], false);
    check(&whole, &path("/v1.0/publish/bus/t", "204"), &path("/in/1", "200"));
    let patterns = ["/v1.0/publish/", "/in/{id}"];
    for increased in [false, true] {
        let matching = metrics(increased, &patterns, false);
        check(&matching, &path("/v1.0/publish/", "204"), &path("/in/{id}", "200"));
    }
    check(&metrics(false, &["/in/{id}"], false), &path("_", "204"), &path("/in/{id}", "200"));
    check(&metrics(true, &["/in/{id}"], false), &path("/v1.0/publish/bus/t", "204"), &path("/in/{id}", "200"));
    let no_verb = |label: &str| label.replace("POST", "");
    let silent = metrics(true, &["/in/{id}"], true);
    check(&silent, &no_verb(&path("/v1.0/publish/bus/t", "204")), &no_verb(&path("/in/{id}", "200")));
}

#[test]
fn what_got_no_answer_has_failed() {
    let metrics = metrics(false, &[], false);
    drop(metrics.sends("POST", "/in", 1));
    drop(metrics.probes());
    metrics.probes().answered(204, 0);
    check_line(&metrics, r#"dapr_http_client_completed_count{app_id="me",status="500"} 1"#);
    for status in [204, 500] {
        let labels = format!(r#"{{app_id="me",status="{status}"}} 1"#);
        check_line(&metrics, &format!("dapr_http_healthprobes_completed_count{labels}"));
        check_line(&metrics, &format!("dapr_http_healthprobes_roundtrip_latency_count{labels}"));
    }
}

/// A client that makes up paths does not make up memory.
#[test]
fn paths_beyond_the_bound_are_counted_together() {
    let metrics = metrics(true, &[], false);
    for number in 0..SERIES_MAX + 10 {
        serve(&metrics, &format!("/{number}"));
    }
    serve(&metrics, "/0");
    let line = |path: &str, count: u32| {
        format!(r#"dapr_http_server_request_count{{app_id="me",method="POST",path="{path}",status="204"}} {count}"#)
    };
    check_line(&metrics, &line("/0", 2));
    check_line(&metrics, &line("(other)", 10));
    assert!(!metrics.text().contains(&line("/1005", 1)));
}
