use super::*;
use whimbrel_sdk::handler::take_published;

fn deliver(data: &str) -> (Result<Outcome, String>, Option<String>) {
    let event = Event {
        id: "e1".into(),
        source: "shop".into(),
        type_: "order.placed".into(),
        spec_version: "1.0".into(),
        data_content_type: Some("application/json".into()),
        subject: None,
        time: None,
        data: data.into(),
        extensions: vec![],
    };
    let info = DeliveryInfo {
        pubsub_name: "bus".into(),
        topic: "orders".into(),
        attempt: 1,
        last_attempt: false,
        metadata: vec![],
    };
    let outcome = handle(event, info);
    let mut published = take_published();
    let last = published.pop().map(|published| {
        assert_eq!((published.pubsub_name.as_str(), published.topic.as_str()), ("bus", ENRICHED_TOPIC));
        assert!(published.metadata.contains(&("cloudevent.id".into(), "e1".into())));
        String::from_utf8(published.data).expect("JSON is text")
    });
    assert!(published.is_empty());
    (outcome, last)
}

#[test]
fn good_orders_go_on_with_total_and_priority() {
    let check = |order: &str, enriched: &str| {
        assert_eq!(deliver(order), (Ok(Outcome::Success), Some(enriched.to_owned())), "{order}");
    };
    check(
        r#"{"id":"7","item":"tea","quantity":3,"price":4.1}"#,
        r#"{"id":"7","item":"tea","quantity":3,"price":4.1,"total":12.3,"priority":"normal"}"#,
    );
    check(
        r#"{"id":"8","item":"a \"pot\"","quantity":1,"price":100,"note":"gift"}"#,
        r#"{"id":"8","item":"a \"pot\"","quantity":1,"price":100.0,"total":100.0,"priority":"high"}"#,
    );
}

#[test]
fn bad_orders_are_dropped() {
    let check = |order: &str| assert_eq!(deliver(order), (Ok(Outcome::Drop), None), "{order}");
    check("");
    check("tea, please");
    check(r#"{"id":"7","item":"tea","quantity":3}"#);
    check(r#"{"id":"7","item":"tea","quantity":-3,"price":4}"#);
    check(r#"{"id":"7","item":"tea","quantity":0,"price":4}"#);
    check(r#"{"id":"","item":"tea","quantity":1,"price":4}"#);
    check(r#"{"id":"7","item":"","quantity":1,"price":4}"#);
    check(r#"{"id":"7","item":"tea","quantity":1,"price":-4}"#);
    check(r#"{"id":"7","item":"tea","quantity":1,"price":1e300}"#);
}
