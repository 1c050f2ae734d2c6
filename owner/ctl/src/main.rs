//! `postern`: the owner's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    postern_ctl::run()
}
