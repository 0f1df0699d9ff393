//! The program: arguments in, exit code out. Everything else is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    whimbrel::main(std::env::args_os()).into()
}
