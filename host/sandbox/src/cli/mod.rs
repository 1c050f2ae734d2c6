//! The command line: one file per verb.

mod cleanup;
mod completion;
mod failure;
mod inspect;
mod ls;
mod pool;
mod probe;
mod rm;
mod run;
mod shell;
mod start;
mod start_args;
mod stop;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Parser, Subcommand, ValueEnum};
use postern_sandbox::{Home, Outcome};

pub(crate) use self::failure::Failure;

/// Starts and ends the virtual machines of pods on this host. It lends the machine, and can do nothing inside a pod.
#[derive(Debug, Parser)]
#[command(name = "postern-host", version, propagate_version = true, after_help = after_help())]
pub(crate) struct Arguments {
    /// Directory that this host's state is kept in [default: $POSTERN_HOST_STATE, else below $XDG_STATE_HOME]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Probe(probe::Arguments),
    Start(start_args::Arguments),
    Run(run::Arguments),
    Pool(pool::Arguments),
    Shell(shell::Arguments),
    Stop(stop::Arguments),
    Ls(ls::Arguments),
    Inspect(inspect::Arguments),
    Rm(rm::Arguments),
    Cleanup(cleanup::Arguments),
    Completion(completion::Arguments),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs: one JSON document, or one per line of progress.
    Json,
}

fn after_help() -> String {
    format!(
        "Examples:\n  \
         postern-host probe\n  \
         postern-host start demo --image DIR --init-data FILE --tee simulated\n  \
         postern-host ls\n  \
         postern-host stop demo && postern-host rm demo\n\n{}",
        Outcome::table()
    )
}

/// Does what the command line asks for.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let home = match arguments.state {
        Some(state) => std::path::absolute(&state)
            .map(Home::at)
            .map_err(|error| Failure::internal("cannot find the state directory", &error))?,
        None => Home::from_environment()?,
    };
    match arguments.command {
        Command::Probe(arguments) => probe::run(&home, arguments).await,
        Command::Start(arguments) => start::run(&home, arguments).await,
        Command::Run(arguments) => run::run(&home, arguments).await,
        Command::Pool(arguments) => pool::run(&home, arguments).await,
        Command::Shell(arguments) => shell::run(&home, arguments).await,
        Command::Stop(arguments) => stop::run(&home, arguments),
        Command::Ls(arguments) => ls::run(&home, &arguments),
        Command::Inspect(arguments) => inspect::run(&home, &arguments),
        Command::Rm(arguments) => rm::run(&home, arguments),
        Command::Cleanup(arguments) => cleanup::run(&home, &arguments),
        Command::Completion(arguments) => completion::run(arguments),
    }
}

/// Prints to standard output. A reader that went away early got what it wanted.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::internal("cannot write to standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Prints `value` as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(json) => print(&(json + "\n")),
        Err(error) => Err(Failure::internal("cannot write JSON", &error)),
    }
}
