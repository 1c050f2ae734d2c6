//! `completion`: a script that completes commands in a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Failure, print};

/// Print a shell completion script
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  postern-host completion bash > ~/.local/share/bash-completion/completions/postern-host"
)]
pub(super) struct Arguments {
    shell: Shell,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "postern-host", &mut script);
    print(&String::from_utf8_lossy(&script))
}
