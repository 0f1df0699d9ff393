//! What the program prints about itself and its formats.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{ask, check};

/// Every kind that is listed has a schema, which says so.
#[test]
fn each_kind_has_its_schema() -> Result<()> {
    let listed =
        check(&["schema"], true, &["component", "subscription-v2alpha1", "Resiliency", "whimbrel.dev/v1alpha1"])?;
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, api_version, kind] = words[..] else { panic!("{line}") };
        let schema: Value = serde_json::from_str(&check(&["schema", name], true, &[])?)?;
        assert_eq!(schema["properties"]["apiVersion"]["const"], api_version, "{line}");
        assert_eq!(schema["properties"]["kind"]["const"], kind, "{line}");
    }
    assert_eq!(listed.lines().count(), 7, "{listed}");
    assert_eq!(check(&["schema", "Component"], true, &[])?, check(&["schema", "component"], true, &[])?);
    let unknown = ask(&["schema", "Deployment"])?;
    let complaint = String::from_utf8(unknown.stderr).context("text")?;
    assert_eq!(unknown.status.code(), Some(64), "{complaint}");
    assert!(complaint.contains("Deployment") && complaint.contains("resiliency"), "{complaint}");
    Ok(())
}
