//! The owner's program: `postern`. Reaches a pod, verifies it, and works in it.
//!
//! A verb is one file in `verbs`; it turns its arguments into calls through a [`door::Session`], which exists only for a
//! verified pod. Nothing here takes an address, root or identity from the host's word.

#![forbid(unsafe_code)]

mod cli;
mod config;
mod copy;
mod door;
mod exit;
mod failure;
mod home;
mod host;
mod human;
mod identity;
mod image;
mod launch;
mod manifest;
mod output;
mod process;
mod progress;
mod record;
mod target;
mod text;
mod timeline;
mod trust;
mod verbs;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use crate::failure::{Failure, OrFail};

/// How long threads that clean up after an interrupted verb may take.
const CLEANUP: Duration = Duration::from_secs(2);

/// Runs the program with its command line; the caller exits with what it returns.
pub fn run() -> ExitCode {
    process::terminal::restore_on_panic();
    let outcome = match cli::Cli::try_parse() {
        Ok(cli) => execute(cli),
        Err(error) => {
            // Help and version are asked for and go to standard output; mistakes do not.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::Exit::Usage.code()));
        }
    };
    process::terminal::restore();
    let exit = outcome.unwrap_or_else(|failure| {
        failure.print();
        failure.exit()
    });
    ExitCode::from(exit.code())
}

fn execute(cli: cli::Cli) -> Result<exit::Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_fail(|| "cannot start the runtime".into())?;
    let outcome = runtime.block_on(cli.run());
    // A thread may sit in a read of standard input; one that removes a half-written file gets its time.
    runtime.shutdown_timeout(CLEANUP);
    outcome
}
