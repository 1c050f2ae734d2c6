//! `postern-agent`: PID 1 of a confidential pod, or an ordinary process with `--standalone`.

use std::process::ExitCode;

use postern_agent::{config::Config, guest, hygiene, standalone};

fn main() -> ExitCode {
    // First thing: a worker must not do anything of the agent's.
    postern_container::worker::main();
    let config = match Config::from_arguments(std::env::args_os().skip(1), std::process::id()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("postern-agent: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = hygiene::harden() {
        eprintln!("postern-agent: {error}");
        return ExitCode::FAILURE;
    }
    match config {
        Config::Guest => guest::run(),
        Config::Standalone(config) => match standalone::run(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("postern-agent: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}
