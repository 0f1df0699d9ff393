//! The table, row by row, against the bodies that daprd sends.

use std::time::Duration;

use serde_json::json;
use whimbrel_pubsub::{BrokerError, PublishError};

use super::{Asked, publish};

/// Status, code, reason, message, whether the broker is named, and the metadata of the details.
struct Expect<'a> {
    status: u16,
    code: &'a str,
    reason: &'a str,
    message: &'a str,
    resource: bool,
    metadata: serde_json::Value,
    retry_after: Option<u64>,
}

fn check(error: &PublishError, expect: &Expect<'_>) {
    let metadata = [("k".to_owned(), "v".to_owned())];
    let refusal = publish(error, Asked { app_id: "me", pubsub: "bus", metadata: &metadata });
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": expect.reason, "domain": "dapr.io", "metadata": expect.metadata,
    });
    let resource = json!({
        "@type": "type.googleapis.com/google.rpc.ResourceInfo",
        "resource_type": "pubsub", "resource_name": "bus", "owner": "", "description": expect.message,
    });
    let details = if expect.resource { json!([resource, info]) } else { json!([info]) };
    let body = json!({ "errorCode": expect.code, "message": expect.message, "details": details });
    assert_eq!(refusal.status.as_u16(), expect.status, "{error:?}");
    assert_eq!(refusal.body, body, "{error:?}");
    assert_eq!(refusal.retry_after_seconds, expect.retry_after, "{error:?}");
}

#[test]
fn a_request_that_is_wrong() {
    let request = json!({ "k": "v" });
    check(
        &PublishError::NotFound { pubsub: "bus".into() },
        &Expect {
            status: 404,
            code: "ERR_PUBSUB_NOT_FOUND",
            reason: "DAPR_PUBSUB_NOT_FOUND",
            message: "pubsub bus is not found",
            resource: false,
            metadata: request.clone(),
            retry_after: None,
        },
    );
    check(
        &PublishError::PubsubEmpty,
        &Expect {
            status: 404,
            code: "ERR_PUBSUB_EMPTY",
            reason: "DAPR_PUBSUB_NAME_EMPTY",
            message: "pubsub name is empty",
            resource: true,
            metadata: request.clone(),
            retry_after: None,
        },
    );
    check(
        &PublishError::TopicEmpty { pubsub: "bus".into() },
        &Expect {
            status: 404,
            code: "ERR_TOPIC_NAME_EMPTY",
            reason: "DAPR_PUBSUB_TOPIC_NAME_EMPTY",
            message: "topic is empty in pubsub bus",
            resource: true,
            metadata: request.clone(),
            retry_after: None,
        },
    );
    check(
        &PublishError::RawPayload { actual: "maybe".into() },
        &Expect {
            status: 400,
            code: "ERR_PUBSUB_REQUEST_METADATA",
            reason: "DAPR_PUBSUB_METADATA_DESERIALIZATION",
            message: "failed deserializing metadata. Error: rawPayload value must be a valid boolean: actual is 'maybe'",
            resource: true,
            metadata: request,
            retry_after: None,
        },
    );
}

#[test]
fn a_message_that_is_refused() {
    check(
        &PublishError::CloudEvent { error: "not an object".into() },
        &Expect {
            status: 500,
            code: "ERR_PUBSUB_CLOUD_EVENTS_SER",
            reason: "DAPR_PUBSUB_CLOUD_EVENT_CREATION",
            message: "cannot create cloudevent",
            resource: true,
            metadata: json!({ "appID": "me", "error": "not an object" }),
            retry_after: None,
        },
    );
    let denied = "topic t is not allowed for app id me";
    check(
        &PublishError::Forbidden { topic: "t".into(), app_id: "me".into() },
        &Expect {
            status: 403,
            code: "ERR_PUBSUB_FORBIDDEN",
            reason: "DAPR_PUBSUB_FORBIDDEN",
            message: denied,
            resource: true,
            metadata: json!({ "topic": "t", "error": denied }),
            retry_after: None,
        },
    );
}

fn check_broker(error: BrokerError, status: u16, cause: &str, retry_after: Option<u64>) {
    check(
        &PublishError::Broker { topic: "t".into(), pubsub: "bus".into(), error },
        &Expect {
            status,
            code: "ERR_PUBSUB_PUBLISH_MESSAGE",
            reason: "DAPR_PUBSUB_PUBLISH_MESSAGE",
            message: &format!("error when publishing to topic t in pubsub bus: {cause}"),
            resource: true,
            metadata: json!({ "topic": "t", "error": cause }),
            retry_after,
        },
    );
}

#[test]
fn a_broker_that_fails() {
    let address = || "connect to 10.0.0.7:6379: refused".to_owned();
    check_broker(
        BrokerError::Transient(address()),
        500,
        "the broker did not take the message; it may be sent again",
        None,
    );
    check_broker(
        BrokerError::Unknown(address()),
        500,
        "no answer from the broker: the message may be stored or not",
        None,
    );
    check_broker(BrokerError::Unauthorized(address()), 500, "the broker refused the credentials of this host", None);
    check_broker(BrokerError::Permanent("stream too large".into()), 500, "stream too large", None);
    check_broker(BrokerError::Invalid("topic with a space".into()), 500, "invalid: topic with a space", None);
    check_broker(BrokerError::Closed, 500, "the broker is closed", None);
    check_broker(BrokerError::Overloaded, 503, "too many publishes wait for this broker", Some(1));
}

#[test]
fn a_broker_that_asks_to_wait() {
    let throttled = |millis| BrokerError::Throttled {
        message: "10.0.0.7 says slow down".into(),
        retry_after: Duration::from_millis(millis),
    };
    check_broker(throttled(0), 503, "the broker asks to wait", Some(1));
    check_broker(throttled(1000), 503, "the broker asks to wait", Some(1));
    check_broker(throttled(2001), 503, "the broker asks to wait", Some(3));
}
