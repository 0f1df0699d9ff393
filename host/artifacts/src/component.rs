//! From a core module to a component, with the plugin's description inside. Also part of `build.rs`.

use anyhow::{Context, Result};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};

/// The custom section that holds a plugin's `plugin.yaml`.
pub const DESCRIPTION_SECTION: &str = "whimbrel:plugin";

/// Encodes a core module as a component. A description goes into a custom section of its own.
///
/// # Errors
/// The module is not one, or does not fit the world it says it is for.
pub fn encode(module: &[u8], description: Option<&str>) -> Result<Vec<u8>> {
    let mut component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .context("reading the core module")?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)
        .context("adding the WASI adapter")?
        .encode()
        .context("encoding the component")?;
    if let Some(description) = description {
        append_custom_section(&mut component, DESCRIPTION_SECTION, description.as_bytes());
    }
    Ok(component)
}

/// Appends a custom section, which may stand at the end of any component (component-model Binary.md: section id 0, size, name,
/// bytes).
pub fn append_custom_section(component: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let mut content = Vec::with_capacity(name.len() + bytes.len() + 5);
    leb128(&mut content, name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(bytes);
    component.push(0);
    leb128(component, content.len());
    component.extend_from_slice(&content);
}

/// An unsigned LEB128 number.
fn leb128(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}
