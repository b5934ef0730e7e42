//! The program: all it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ctxtune::commands::run(std::env::args_os().collect())
}
