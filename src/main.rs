//! The `tune` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tune::cli::main())
}
