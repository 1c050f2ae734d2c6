//! `rm`: remove what is left of a pod.

use clap::Args;
use postern_model::PodName;
use postern_sandbox::{Home, state::StateError};

use super::{Failure, print, stop};

/// Remove a pod that has ended, with its logs
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  postern-host rm demo\n  postern-host rm --stop demo web")]
pub(super) struct Arguments {
    /// Names of the pods
    #[arg(required = true)]
    names: Vec<PodName>,
    /// Stop a pod that is running first
    #[arg(long)]
    stop: bool,
}

pub(super) fn run(home: &Home, arguments: Arguments) -> Result<(), Failure> {
    for name in &arguments.names {
        if arguments.stop {
            stop::stop(home, name, false)?;
        }
        match home.remove(name) {
            // Stopping a pod that was still starting has removed it.
            Err(StateError::Unknown(_)) if arguments.stop => {}
            removed => removed?,
        }
        print(&format!("{name}: removed\n"))?;
    }
    Ok(())
}
