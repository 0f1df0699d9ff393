//! What the program prints about itself and its formats. Nothing is run.

use std::io::Write as _;

use clap::CommandFactory as _;
use whimbrel_resources::{SCHEMAS, Schema};

use crate::args::Arguments;
use crate::error::Exit;

/// The flags of `whimbrel schema`.
#[derive(Debug, Clone, clap::Args)]
pub struct SchemaArguments {
    /// The kind, for example Component; without one, the kinds are listed.
    pub kind: Option<String>,
}

/// Prints the JSON Schema of a kind of resource, or which kinds there are.
pub(crate) fn schema(asked: &SchemaArguments) -> Exit {
    let Some(kind) = &asked.kind else {
        let line = |schema: &Schema| format!("{:<22} {:<22} {}\n", schema.name, schema.api_version, schema.kind);
        return print(&SCHEMAS.iter().map(line).collect::<String>());
    };
    match Schema::find(kind) {
        Some(schema) => print(schema.text),
        None => {
            let known: Vec<&str> = SCHEMAS.iter().map(|schema| schema.name).collect();
            writeln!(std::io::stderr(), "{kind} is no kind of resource; there are {}", known.join(", ")).ok();
            Exit::Usage
        }
    }
}

/// Prints the HTTP API as an OpenAPI document, as the host serves it.
pub(crate) fn openapi() -> Exit {
    print(whimbrel_api::OPENAPI)
}

/// The flags of `whimbrel completions`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsArguments {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// Prints what a shell completes command lines with.
pub(crate) fn completions(asked: &CompletionsArguments) -> Exit {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    clap_complete::generate(asked.shell, &mut command, "whimbrel", &mut script);
    print_bytes(&script)
}

/// Prints the manual, of the program and of each of its commands, in one page (roff).
pub(crate) fn man() -> Exit {
    let mut command = Arguments::command();
    command.build();
    let mut page = Vec::new();
    match pages(&command, &mut page) {
        Ok(()) => print_bytes(&page),
        Err(error) => {
            writeln!(std::io::stderr(), "writing the manual: {error}").ok();
            Exit::Failed
        }
    }
}

/// The program's own page, then a part for each command.
fn pages(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(page)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        part(sub, page)?;
        for below in sub.get_subcommands().filter(|below| below.get_name() != "help") {
            part(below, page)?;
        }
    }
    Ok(())
}

fn part(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = clap_mangen::Man::new(command.clone());
    let title = command.get_bin_name().unwrap_or(command.get_name()).to_ascii_uppercase();
    writeln!(page, ".SH \"{title}\"")?;
    let mut own = Vec::new();
    man.render_synopsis_section(&mut own)?;
    man.render_description_section(&mut own)?;
    man.render_options_section(&mut own)?;
    // Sections of a part are its subsections.
    page.extend_from_slice(String::from_utf8_lossy(&own).replace(".SH ", ".SS ").as_bytes());
    Ok(())
}

/// Whoever reads may have seen enough: a closed pipe is no failure.
fn print_bytes(bytes: &[u8]) -> Exit {
    let mut out = std::io::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).ok();
    Exit::Drained
}

fn print(text: &str) -> Exit {
    print_bytes(text.as_bytes())
}
