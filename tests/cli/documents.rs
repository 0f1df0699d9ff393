//! What the program prints about itself and its formats.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{ask, check};
use crate::harness::{http, resource, run};

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
    assert_eq!(listed.lines().count(), 8, "{listed}");
    assert_eq!(check(&["schema", "Component"], true, &[])?, check(&["schema", "component"], true, &[])?);
    let unknown = ask(&["schema", "Deployment"])?;
    let complaint = String::from_utf8(unknown.stderr).context("text")?;
    assert_eq!(unknown.status.code(), Some(64), "{complaint}");
    assert!(complaint.contains("Deployment") && complaint.contains("resiliency"), "{complaint}");
    Ok(())
}

/// The document that is printed is the one that is served, to whoever has the token.
#[test]
fn the_api_has_its_document() -> Result<()> {
    run(async |test| {
        let printed = check(&["openapi"], true, &["\"openapi\": \"3.1.0\"", "ERR_PUBSUB_FORBIDDEN"])?;
        let host = test.host("me")?.resource(resource::queue("bus"))?.env("DAPR_API_TOKEN", "t0ken").start().await?;
        let refused = http::get(host.http()?, "/v1.0/openapi.json").await?;
        assert_eq!(refused.status, 401, "{}", refused.text());
        let token = [("dapr-api-token", "t0ken")];
        let served = http::send(host.http()?, "GET", "/v1.0/openapi.json", &token, b"").await?;
        assert_eq!((served.status, served.header("content-type")), (200, Some("application/json")));
        assert_eq!(served.text(), printed);
        Ok(())
    })
}

/// The commands, as the program lists them.
const COMMANDS: [&str; 9] =
    ["run", "plugins", "conform", "schema", "openapi", "publish", "subscribe", "completions", "man"];

#[test]
fn each_shell_completes_each_command() -> Result<()> {
    check(&["--help"], true, &COMMANDS)?;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        check(&["completions", shell], true, &COMMANDS)?;
        check(&["completions", shell], true, &["dapr-http-port", "resources-path"])?;
    }
    Ok(())
}

#[test]
fn the_manual_has_each_command() -> Result<()> {
    let page = check(&["man"], true, &[".TH whimbrel 1", ".SH NAME", r"\-\-resources\-path", r"\-\-pubsub"])?;
    for command in COMMANDS {
        let heading = format!(".SH \"WHIMBREL {}\"", command.to_ascii_uppercase());
        assert!(page.contains(&heading), "{heading} is not in the manual");
    }
    assert!(page.contains(r#".SH "WHIMBREL PLUGINS LIST""#), "commands of commands are in it");
    Ok(())
}
