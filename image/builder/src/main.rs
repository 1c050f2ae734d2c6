//! `postern-image`: builds, checks and shows the image a pod boots from.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong use; 3 to 6 as the help says, each one finding of one command.

use std::{io::Write as _, process::ExitCode};

use clap::Parser;

mod cli;
mod report;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => {
            // Nobody may be reading any more, which is no reason to abort.
            let _ = writeln!(std::io::stderr(), "postern-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}
