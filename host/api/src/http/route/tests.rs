//! The table of routes, over cleaned and still escaped paths.

use http::Method;

use super::Route;

fn check(method: &str, path: &str, expect: Route<'_>) {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    assert_eq!(Route::of(&method, path), expect, "{method} {path}");
}

#[test]
fn publishing() {
    check("POST", "/v1.0/publish/bus/t", Route::Publish { pubsub: "bus", topic: "t" });
    check("PUT", "/v1.0/publish/bus/t", Route::Publish { pubsub: "bus", topic: "t" });
    check("POST", "/v1.0/publish/bus/a/b/c", Route::Publish { pubsub: "bus", topic: "a/b/c" });
    check("POST", "/v1.0/publish/bus/%2F", Route::Publish { pubsub: "bus", topic: "%2F" });
    check("POST", "/v1.0/publish/b%2Fs/t", Route::Publish { pubsub: "b%2Fs", topic: "t" });
    for method in ["GET", "DELETE", "PATCH", "HEAD", "OPTIONS", "post", "ODD"] {
        check(method, "/v1.0/publish/bus/t", Route::Other);
    }
    for path in [
        "/v1.0/publish",
        "/v1.0/publish/bus",
        "/V1.0/publish/bus/t",
        "/v1.0/Publish/bus/t",
        "/v2.0/publish/bus/t",
        "/v1.0-alpha1/publish/bus/t",
        "/publish/bus/t",
        "/v1.0",
        "/",
    ] {
        check("POST", path, Route::Other);
    }
}

#[test]
fn bulk_wins_where_it_has_a_topic() {
    check("POST", "/v1.0/publish/bulk/bus/t", Route::BulkPublish { pubsub: "bus", topic: "t" });
    check("PUT", "/v1.0/publish/bulk/bus/a/b", Route::BulkPublish { pubsub: "bus", topic: "a/b" });
    check("POST", "/v1.0-alpha1/publish/bulk/bus/t", Route::BulkPublish { pubsub: "bus", topic: "t" });
    check("POST", "/v1.0/publish/bulk/t", Route::Publish { pubsub: "bulk", topic: "t" });
    check("POST", "/v1.0-alpha1/publish/bulk/t", Route::Other);
    check("GET", "/v1.0-alpha1/publish/bulk/bus/t", Route::Other);
}

#[test]
fn the_rest() {
    check("GET", "/v1.0/healthz", Route::Health);
    check("POST", "/v1.0/healthz", Route::Other);
    check("HEAD", "/v1.0/healthz", Route::Other);
    check("GET", "/v1.0/healthz/outbound", Route::OutboundHealth);
    check("GET", "/v1.0/metadata", Route::Metadata);
    check("POST", "/v1.0/metadata", Route::Other);
    check("GET", "/v1.0-alpha1/metadata", Route::Other);
    check("PUT", "/v1.0/metadata", Route::Other);
    check("PUT", "/v1.0/metadata/key1", Route::SetMetadata("key1"));
    check("PUT", "/v1.0/metadata/a/b", Route::Other);
    check("POST", "/v1.0/shutdown", Route::Shutdown);
    check("GET", "/v1.0/shutdown", Route::Other);
    check("GET", "/v1.0/openapi.json", Route::OpenApi);
    check("POST", "/v1.0/openapi.json", Route::Other);
}
