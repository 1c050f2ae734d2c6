//! `cleanup`: remove what crashed supervisors have left behind.

use clap::Args;
use postern_sandbox::{
    Home,
    state::{PodStatus, ShellStatus, StateError},
};

use super::{Failure, Output, print, print_json};

/// Remove what is left of pods and shells whose supervisor has crashed
#[derive(Debug, Args)]
#[command(
    after_help = "Running pods, shells of a running pool, and ended pods that `rm` has not removed, are left alone."
)]
pub(super) struct Arguments {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(home: &Home, arguments: &Arguments) -> Result<(), Failure> {
    let mut removed = Vec::new();
    for pod in home.list()? {
        if pod.status()? == PodStatus::Crashed {
            match home.remove(pod.name()) {
                // Somebody else has removed it, or has just made it.
                Err(StateError::Unknown(_) | StateError::Running(_)) => continue,
                done => done?,
            }
            removed.push(pod.name().clone());
        }
    }
    for shell in home.shells()? {
        if shell.status()? == Some(ShellStatus::Crashed) && shell.remove_if_crashed(home)? {
            removed.push(shell.name().clone());
        }
    }
    match arguments.output {
        Output::Json => print_json(&serde_json::json!({ "removed": removed })),
        Output::Text if removed.is_empty() => print("nothing to clean up\n"),
        Output::Text => removed.iter().try_for_each(|name| print(&format!("{name}: removed\n"))),
    }
}
