//! `whimbrel plugins`: which adapters there are, and what one plugin is, takes and could reach. Looks at files only: nothing
//! is compiled or run. The reference page is `page`'s.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use whimbrel_resources::{Field, PluginManifest};
use whimbrel_wasm::{Interfaces, Plugin};

use crate::args::PluginsCommand;
use crate::error::Exit;
use crate::page;
use crate::plugins::{Search, Source};

/// What an import gives to a plugin, by how its name begins.
const REACHES: [(&str, &str); 7] = [
    (
        "whimbrel:pubsub/net@",
        "the network: the addresses that its settings name, and what whimbrel.dev/network grants, nothing else",
    ),
    ("whimbrel:pubsub/publisher@", "publishing: as its own app, within its scopes"),
    ("whimbrel:pubsub/timer@", "time to wait"),
    ("whimbrel:pubsub/log@", "the log: 50 lines a second"),
    ("whimbrel:pubsub/", "the types of the contract"),
    ("wasi:sockets/", "WASI sockets: every use is refused"),
    ("wasi:", "WASI 0.2 with everything denied: clocks, random numbers and standard error are harmless"),
];

/// Prints the answer.
pub(crate) fn answer(asked: &PluginsCommand) -> Exit {
    let answer = match asked {
        PluginsCommand::List { plugins } => Ok(list(&Search::new(plugins))),
        PluginsCommand::Inspect { plugin, plugins } => inspect(plugin, &Search::new(plugins)),
        PluginsCommand::Page { plugin, plugins } => reference(plugin, &Search::new(plugins)),
    };
    match answer {
        // Whoever reads may have seen enough: a closed pipe is no failure.
        Ok(text) => {
            std::io::stdout().write_all(text.as_bytes()).ok();
            Exit::Drained
        }
        Err(error) => {
            writeln!(std::io::stderr(), "{error:#}").ok();
            Exit::Failed
        }
    }
}

fn list(search: &Search) -> String {
    let mut text = String::new();
    let mut seen = HashSet::new();
    let all = search.all();
    let width = all.iter().map(|found| found.kind.len()).max().unwrap_or(0);
    for found in &all {
        let from = match &found.source {
            Source::File(file) => file.display().to_string(),
            Source::Bundled(_) => "built in".to_owned(),
        };
        let hidden = if seen.insert(&found.kind) { "" } else { " (hidden by the one above)" };
        let what = found.source.read().and_then(|plugin| Ok(manifest(&plugin)?.map(|manifest| manifest.title)));
        let what = match what {
            Ok(title) => title.unwrap_or_else(|| "(no description)".to_owned()),
            Err(error) => format!("BROKEN: {error:#}"),
        };
        writeln!(text, "{:width$}  {what}  {from}{hidden}", found.kind).ok();
    }
    text
}

/// A file, or the first plugin of a type.
fn plugin(asked: &Path, search: &Search) -> Result<Plugin> {
    match asked.to_str() {
        Some(kind) if !asked.exists() && kind.starts_with("pubsub.") => search.of_type(kind),
        _ => Ok(Plugin::read(asked)?),
    }
}

/// The reference page of a plugin, or of a description that has none yet.
fn reference(asked: &Path, search: &Search) -> Result<String> {
    if asked.extension().is_some_and(|extension| extension == "yaml") {
        let text = std::fs::read_to_string(asked).with_context(|| asked.display().to_string())?;
        return Ok(page::page(&PluginManifest::parse(&text, asked)?));
    }
    let plugin = plugin(asked, search)?;
    let manifest = manifest(&plugin)?.context("it is not described: there is no plugin.yaml in it or beside it")?;
    Ok(page::page(&manifest))
}

fn inspect(asked: &Path, search: &Search) -> Result<String> {
    let plugin = plugin(asked, search)?;
    let Interfaces { imports, exports } = plugin.interfaces()?;
    let mut text = format!("file      {}, {} bytes\n", plugin.path.display(), plugin.bytes.len());
    let role = |name: &String| {
        let adapter = name.starts_with("whimbrel:pubsub/broker@").then_some(" (an adapter)");
        let handler = name.starts_with("whimbrel:pubsub/handler@").then_some(" (a handler)");
        format!("{name}{}", adapter.or(handler).unwrap_or_default())
    };
    lines(&mut text, "exports", exports.iter().map(role));
    lines(&mut text, "imports", imports.iter().cloned());
    let mut reaches: Vec<&str> = imports.iter().map(|import| reach(import)).collect();
    reaches.sort_unstable();
    reaches.dedup();
    lines(&mut text, "reaches", reaches.into_iter().map(str::to_owned));
    match manifest(&plugin)? {
        Some(manifest) => describe(&mut text, &manifest),
        None => text.push_str("settings  not described: there is no plugin.yaml in it or beside it\n"),
    }
    Ok(text)
}

fn reach(import: &str) -> &'static str {
    let known = REACHES.iter().find(|(prefix, _)| import.starts_with(prefix));
    known.map_or("something that this host does not offer: it will refuse the plugin", |(_, what)| what)
}

fn manifest(plugin: &Plugin) -> Result<Option<PluginManifest>> {
    let Some(text) = &plugin.description else { return Ok(None) };
    PluginManifest::parse(text, &plugin.path).map(Some).context("reading its plugin.yaml")
}

fn describe(text: &mut String, manifest: &PluginManifest) {
    writeln!(text, "type      {}/{}: {}", manifest.kind, manifest.version, manifest.title).ok();
    writeln!(text, "features  {}", manifest.features.join(", ")).ok();
    lines(text, "keeps", manifest.guarantees.iter().cloned());
    lines(text, "limits", manifest.limits.iter().cloned());
    lines(text, "settings", manifest.fields.iter().map(setting));
}

fn setting(field: &Field) -> String {
    let mut marks = vec![page::kind(field)];
    marks.extend(field.required.then(|| "required".to_owned()));
    marks.extend(field.sensitive.then(|| "secret".to_owned()));
    marks.extend(field.default.as_ref().map(|default| format!("default {default}")));
    marks.extend(field.address.is_some().then(|| "names what it may connect to".to_owned()));
    format!("{} ({}): {}", field.name, marks.join(", "), field.description)
}

/// A heading, and what stands under it, one on each line.
fn lines(text: &mut String, heading: &str, items: impl Iterator<Item = String>) {
    let mut heading = heading;
    for item in items {
        writeln!(text, "{heading:<9} {item}").ok();
        heading = "";
    }
    if !heading.is_empty() {
        writeln!(text, "{heading:<9} none").ok();
    }
}
