//! An OpenAPI document as the fuzzer needs it: operations with their parameters, bodies and responses.

use std::collections::HashMap;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value};

use crate::harness::http::Answer;

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) method: String,
    /// With `{name}` where a parameter stands.
    pub(super) path: String,
    pub(super) parameters: Vec<Parameter>,
    /// Schemas of the body by content type.
    pub(super) bodies: Vec<(String, Value)>,
    responses: Map<String, Value>,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    /// `path`, `query` or `header`.
    pub(super) place: String,
    pub(super) schema: Value,
}

/// The document.
pub(super) struct Document {
    root: Value,
    pub(super) operations: Vec<Operation>,
    /// By the text of the schema.
    validators: Mutex<HashMap<String, jsonschema::Validator>>,
}

impl Document {
    pub(super) fn of(root: &Value) -> Result<Self> {
        let mut document = Self { root: root.clone(), operations: vec![], validators: Mutex::default() };
        let paths = root["paths"].as_object().context("paths")?;
        for (path, item) in paths.iter().filter(|(_, item)| item.get("servers").is_none()) {
            let methods = item.as_object().context("a path")?.iter().filter(|(name, _)| *name != "parameters");
            for (method, operation) in methods {
                let read = document.read(path, method, item, operation)?;
                document.operations.push(read);
            }
        }
        Ok(document)
    }

    fn read(&self, path: &str, method: &str, item: &Value, operation: &Value) -> Result<Operation> {
        let listed = [&item["parameters"], &operation["parameters"]];
        let parameters = listed.into_iter().filter_map(Value::as_array).flatten().map(|parameter| {
            let parameter = self.resolved(parameter);
            let text = |name: &str| parameter[name].as_str().unwrap_or_default().to_owned();
            Parameter { name: text("name"), place: text("in"), schema: parameter["schema"].clone() }
        });
        let bodies = operation["requestBody"]["content"].as_object().into_iter().flatten();
        Ok(Operation {
            id: operation["operationId"].as_str().context("an operation's id")?.to_owned(),
            method: method.to_ascii_uppercase(),
            path: path.to_owned(),
            parameters: parameters.collect(),
            bodies: bodies.map(|(content_type, body)| (content_type.clone(), body["schema"].clone())).collect(),
            responses: operation["responses"].as_object().context("responses")?.clone(),
        })
    }

    /// The one whose turn it is.
    pub(super) fn operation(&self, number: usize) -> &Operation {
        &self.operations[number % self.operations.len()]
    }

    /// What a reference stands for.
    pub(super) fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
        reference.and_then(|reference| self.root.pointer(reference)).unwrap_or(value)
    }

    /// Whether an operation declares such an answer.
    pub(super) fn fits(&self, id: &str, answer: &Answer) -> Result<bool> {
        let operation = self.operations.iter().find(|operation| operation.id == id).context("an operation")?;
        match operation.responses.get(&answer.status.to_string()) {
            Some(response) => self.is_of(self.resolved(response), false, answer),
            None => Ok(false),
        }
    }

    /// Whether any operation does, or it is what is answered where there is none. `bare`: to a request whose answer has no
    /// body.
    pub(super) fn fits_any(&self, bare: bool, answer: &Answer) -> Result<bool> {
        let status = answer.status.to_string();
        let declared = self.operations.iter().filter_map(|operation| operation.responses.get(&status));
        let elsewhere = (answer.status == 404).then_some(&self.root["components"]["responses"]["NotRouted"]);
        for response in declared.chain(elsewhere) {
            if self.is_of(self.resolved(response), bare, answer)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an answer has a content type and a body that a response declares, and its headers.
    fn is_of(&self, response: &Value, bare: bool, answer: &Answer) -> Result<bool> {
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            // The trace is there in any case, others where they are declared; a number is one.
            let given = answer.header(name);
            let is_number = header["schema"]["type"] == "integer";
            if given.is_none_or(|text| is_number && text.parse::<u64>().is_err()) {
                return Ok(false);
            }
        }
        let Some(content) = response["content"].as_object() else { return Ok(answer.body.is_empty()) };
        // What is no HTTP is answered by the library beneath, without a word.
        if bare || (answer.body.is_empty() && [400, 414, 431].contains(&answer.status)) {
            return Ok(true);
        }
        let given = answer.header("content-type").unwrap_or_default();
        let essence = given.split(';').next().unwrap_or_default().trim();
        match content.get(essence) {
            None => Ok(false),
            Some(_) if essence != "application/json" => Ok(std::str::from_utf8(&answer.body).is_ok()),
            Some(body) => self.is_valid(&body["schema"], &answer.json()?),
        }
    }

    fn is_valid(&self, schema: &Value, value: &Value) -> Result<bool> {
        let mut known = self.validators.lock().map_err(|_| anyhow!("a poisoned lock"))?;
        let key = schema.to_string();
        if !known.contains_key(&key) {
            let mut whole = schema.clone();
            whole["components"] = self.root["components"].clone();
            known.insert(key.clone(), jsonschema::validator_for(&whole).map_err(|error| anyhow!("{error}"))?);
        }
        Ok(known.get(&key).is_some_and(|validator| validator.is_valid(value)))
    }
}
