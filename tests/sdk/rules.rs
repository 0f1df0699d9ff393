//! Content rules: each event goes to the handler that its rule names. JavaScript's SDK subscribes with rules of its own;
//! Python's extensions know none, so there a declared subscription leads to the app's handlers, as Dapr's documentation has
//! it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::app::{Pair, Sdk};
use super::events::{Bus, on_with};

/// What the Python apps' subscription declares; JavaScript's app says the same in its code.
const DECLARED: &str = r#"
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: sorted
spec:
  pubsubname: bus
  topic: sorted
  routes:
    rules:
    - match: event.type == "order.urgent"
      path: /sorted/urgent
    - match: has(event.data.price) && event.data.price > 100.0
      path: /sorted/dear
    default: /sorted/others
"#;

#[test]
fn fastapi_in_memory() -> Result<()> {
    sorted(Sdk::FastApi, Bus::InMemory)
}

#[test]
fn fastapi_on_redis() -> Result<()> {
    sorted(Sdk::FastApi, Bus::Redis)
}

#[test]
fn flask_in_memory() -> Result<()> {
    sorted(Sdk::Flask, Bus::InMemory)
}

#[test]
fn flask_on_redis() -> Result<()> {
    sorted(Sdk::Flask, Bus::Redis)
}

#[test]
fn javascript_in_memory() -> Result<()> {
    sorted(Sdk::JavaScript, Bus::InMemory)
}

#[test]
fn javascript_on_redis() -> Result<()> {
    sorted(Sdk::JavaScript, Bus::Redis)
}

/// Each event by its type and its data: urgent ones, whatever they cost; dear ones; all others, a price or not.
fn orders() -> [(&'static str, Value, Value); 5] {
    let urgent = json!({"cloudevent.type": "order.urgent"});
    [
        ("urgent", json!({"key": "1", "price": 500}), urgent.clone()),
        ("dear", json!({"key": "2", "price": 100.5}), json!({})),
        ("others", json!({"key": "3", "price": 100}), json!({})),
        ("others", json!({"key": "4"}), json!({})),
        ("urgent", json!({"key": "5"}), urgent),
    ]
}

fn sorted(sdk: Sdk, bus: Bus) -> Result<()> {
    let more =
        |plan| if sdk == Sdk::JavaScript { Ok(plan) } else { crate::harness::host::HostPlan::resource(plan, DECLARED) };
    on_with(sdk, bus, more, async |pair: &Pair| {
        for (path, data, metadata) in orders() {
            pair.publish_ok("sorted", "json", data.clone(), metadata).await?;
            let key = data["key"].as_str().unwrap_or_default();
            let seen = pair.wait_for(1, path, key).await?.remove(0);
            ensure!(seen["data"] == data, "{seen:#}");
        }
        for path in ["urgent", "dear", "others"] {
            let expected = orders().iter().filter(|(to, ..)| *to == path).count();
            let seen = pair.seen(path, "")?;
            ensure!(seen.len() == expected, "{path} was told {seen:#?}");
        }
        Ok(())
    })
}
