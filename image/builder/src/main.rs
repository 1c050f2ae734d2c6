//! `postern-image`: builds, checks and shows the image a pod boots from.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong use; 3 `verify` found that the image is not what its manifest says.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod report;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("postern-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}
