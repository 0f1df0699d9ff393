//! What the program prints about itself and its formats. Nothing is run.

use std::io::Write as _;

use whimbrel_resources::{SCHEMAS, Schema};

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

/// Whoever reads may have seen enough: a closed pipe is no failure.
fn print(text: &str) -> Exit {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
    Exit::Drained
}
