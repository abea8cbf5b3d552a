//! The `attache` program: parses its arguments and calls the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    attache::cli::main()
}
