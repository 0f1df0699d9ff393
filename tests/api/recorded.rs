//! The scenes that were recorded from the real sidecar, as they lie in the folder `golden` beside the repository.
//! Read by `golden`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::harness::app::Reply;

/// Where the scenes lie, from this package's folder.
const RECORDING: &str = "../../shared/golden/daprd-1.18.1.jsonl";

/// One scene: what was declared, what the app answers, and what was asked.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Scene {
    pub(crate) name: String,
    pub(crate) resources: Vec<String>,
    pub(crate) subscribe: String,
    app: HashMap<String, Vec<(serde_json::Value, String)>>,
    pub(crate) app_port: bool,
    /// Whether it started at all.
    pub(crate) ready: bool,
    pub(crate) steps: Vec<Step>,
}

/// One request with everything that came of it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Step {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    body: String,
    pub(crate) response: Response,
    pub(crate) deliveries: Vec<Delivery>,
}

/// What the sidecar answered.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// What the app was sent: a body, or only its length where it is long.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) headers: HashMap<String, String>,
    #[serde(default)]
    pub(crate) body: String,
    pub(crate) bytes: Option<usize>,
}

/// All scenes.
///
/// # Errors
/// The recording is missing: then nothing is tested, and that is a failure.
pub(crate) fn scenes() -> Result<Vec<Scene>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDING);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("the recording of the real sidecar is missing: {RECORDING}, seen from the folder tests/")
    })?;
    let scenes: Vec<Scene> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(!scenes.is_empty(), "{} holds no scene", path.display());
    Ok(scenes)
}

impl Scene {
    /// What the app answers, by path.
    pub(crate) fn replies(&self) -> Result<Vec<(String, Vec<Reply>)>> {
        let reply = |(status, body): &(serde_json::Value, String)| {
            if status == "bulk" {
                return Ok(Reply::Each(body.clone()));
            }
            let status = status.as_u64().and_then(|status| u16::try_from(status).ok());
            Ok(Reply::With(status.context("an answer is [status, body] or [\"bulk\", word]")?, body.clone()))
        };
        let paths = self.app.iter();
        paths.map(|(path, replies)| Ok((path.clone(), replies.iter().map(reply).collect::<Result<_>>()?))).collect()
    }

    /// Whether an app that answers asks for more, and a scene must be watched longer for what may come again.
    pub(crate) fn retries(&self) -> bool {
        self.app.values().any(|replies| replies.len() > 1)
    }
}

impl Step {
    /// The body that was sent.
    pub(crate) fn body(&self) -> Result<Vec<u8>> {
        if let Some(repeated) = self.body.strip_prefix('<') {
            let (count, _) = repeated.split_once(' ').context("`<N times x>`")?;
            return Ok(vec![b'x'; count.parse()?]);
        }
        Ok(STANDARD.decode(&self.body)?)
    }

    /// The step in a word, for messages about it.
    pub(crate) fn title(&self) -> String {
        let body = self.body().unwrap_or_default();
        let body = String::from_utf8_lossy(&body).chars().take(60).collect::<String>();
        format!("{} {} {body}", self.method, self.path)
    }
}
