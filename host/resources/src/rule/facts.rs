//! An event as rules see it: a map of what the rules look at. Numbers are doubles, as in Dapr. Made by the data plane
//! once for an event, read by each rule in turn.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, Value};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// The functions there are. Made once: it takes longer than an evaluation.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// The value of one attribute.
#[derive(Clone)]
pub enum Fact<'a> {
    /// JSON text.
    Json(&'a str),
    /// A text, decoded.
    Text(Cow<'a, str>),
}

impl fmt::Debug for Fact<'_> {
    /// Never the data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fact")
    }
}

/// The attributes of one event.
pub struct Facts {
    context: Context<'static, 'static>,
    nodes: u64,
    bytes: u64,
}

impl Facts {
    /// Of several attributes of one name the last counts.
    ///
    /// # Errors
    /// A value cannot be read: nested beyond measure, or a number out of range.
    pub fn new<'a>(attributes: impl IntoIterator<Item = (&'a str, Fact<'a>)>) -> Result<Self, String> {
        let (mut nodes, mut bytes) = (0, 0);
        let mut event = HashMap::new();
        for (name, fact) in attributes {
            let (value, length) = match fact {
                Fact::Text(text) => (Value::from(&*text), text.len()),
                Fact::Json(json) => (read(name, json)?, json.len()),
            };
            nodes += count(&value);
            bytes += length as u64;
            event.insert(Key::from(name), value);
        }
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.add_variable_from_value("event", Value::Map(Map { map: Arc::new(event) }));
        Ok(Self { context, nodes, bytes })
    }

    pub(super) fn context(&self) -> &Context<'static, 'static> {
        &self.context
    }

    /// Values in the attributes, nested ones each for itself.
    pub(super) fn nodes(&self) -> u64 {
        self.nodes
    }

    /// Bytes of the attributes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Debug for Facts {
    /// Never the data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("nodes", &self.nodes).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

fn read(name: &str, json: &str) -> Result<Value, String> {
    let Json(value) = serde_json::from_str(json).map_err(|_| format!("the rules cannot read {name} of the event"))?;
    Ok(value)
}

/// The reader of JSON stops at 128 levels, and so does this.
fn count(value: &Value) -> u64 {
    1 + match value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(map) => map.map.values().map(count).sum(),
        _ => 0,
    }
}

struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Float(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Json(item)) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::List(Arc::new(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = HashMap::new();
        while let Some((key, Json(value))) = map.next_entry::<String, Json>()? {
            entries.insert(Key::from(key), value);
        }
        Ok(Value::Map(Map { map: Arc::new(entries) }))
    }
}
