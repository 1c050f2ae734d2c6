//! `rm`: remove what is left of a pod.

use clap::Args;
use postern_model::{HostData, PodName};
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
    /// Only a pod that was started with init data of this digest; another one of the name is unknown, and left alone
    #[arg(long, value_name = "HEX", value_parser = HostData::from_hex)]
    host_data: Option<HostData>,
}

pub(super) fn run(home: &Home, arguments: Arguments) -> Result<(), Failure> {
    for name in &arguments.names {
        if arguments.host_data.is_some_and(|wanted| is_anothers(home, name, wanted)) {
            return Err(StateError::Unknown(name.clone()).into());
        }
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

/// Whether what has the name was started for somebody else. A record that cannot be read is nobody's.
fn is_anothers(home: &Home, name: &PodName, wanted: HostData) -> bool {
    let record = home.pod(name).and_then(|pod| pod.record());
    record.is_ok_and(|record| record.host_data != wanted)
}
