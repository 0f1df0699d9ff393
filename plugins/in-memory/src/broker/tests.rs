//! The adapter as the host uses it, in both modes. What differs between them is tested beside each.

use super::*;
use whimbrel_sdk::Property;

async fn open(properties: &[(&str, &str)]) -> (Result<InMemory, Failure>, Option<Status>) {
    let property = |(name, value): &(&str, &str)| Property { name: (*name).into(), value: (*value).into() };
    let properties = properties.iter().map(property).collect();
    let (status, mut news) = StatusSink::channel();
    let config = Config { name: "bus".into(), properties, instance: "one".into() };
    let adapter = InMemory::open(config, status).await;
    let first = news.try_recv().ok();
    (adapter, first)
}

#[tokio::test]
async fn it_serves_at_once_and_says_what_it_can_do() {
    for (mode, has, lacks) in [
        ("dapr", Feature::WILDCARDS | Feature::TOPIC_FLOW, Feature::GROUPS | Feature::TTL),
        ("queue", Feature::WILDCARDS | Feature::GROUPS | Feature::TTL | Feature::DELAY, Feature::TOPIC_FLOW),
    ] {
        let (adapter, news) = open(&[("mode", mode)]).await;
        let adapter = Rc::new(adapter.expect(mode));
        assert_eq!(news, Some(Status::Ready), "{mode}");
        let FeatureSet { abilities, max_batch, max_message_bytes } = adapter.features();
        assert_eq!(abilities & has, has, "{mode} {abilities:?}");
        assert_eq!(abilities & (lacks | Feature::DURABLE), Feature::empty(), "{mode} {abilities:?}");
        assert_eq!((max_batch, max_message_bytes > 0), (BATCH_MESSAGES_MAX, mode == "queue"));
        assert_eq!(adapter.ping().await, Ok(()));
        adapter.close().await;
    }
}

#[tokio::test]
async fn a_setting_that_does_not_parse_is_final() {
    let (adapter, news) = open(&[("maxQueueBytes", "lots")]).await;
    assert!(matches!(adapter, Err(Failure::Invalid(text)) if text.contains("maxQueueBytes")));
    assert_eq!(news, None);
}

#[test]
fn the_description_names_the_settings_that_are_read() {
    let description = include_str!("../../plugin.yaml");
    for name in ["mode", "maxQueueMessages", "maxQueueBytes"] {
        assert!(description.contains(&format!("- name: {name}\n")), "{name}");
    }
    for default in [format!("{:?}", "100000"), format!("{:?}", (32 << 20).to_string())] {
        assert!(description.contains(&format!("default: {default}\n")), "{default}");
    }
}
