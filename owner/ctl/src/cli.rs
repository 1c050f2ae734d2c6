//! The command line: every verb, and what all verbs share.

use clap::{
    Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use postern_model::Role;

use crate::{
    config::Config,
    door::Owner,
    exit::{self, Exit},
    failure::Failure,
    home::Home,
    launch::parse,
    process::signals,
    verbs,
};

const ABOUT: &str =
    "Runs and controls containers in a confidential pod, through an attested tunnel that only you hold";

const EXAMPLES: &str = "\
Examples:
  postern init                                            make your identity
  postern pod create demo --accept-risk=simulated-tee     boot a pod on this machine
  postern pod verify demo                                 see every check
  postern run -it demo busybox -- sh                      a container with a terminal
  postern cp ./data demo/web:/srv                         files in, or out the other way round
  postern audit demo                                      what the host has tried";

#[derive(Debug, Parser)]
#[command(
    name = "postern",
    version,
    about = ABOUT,
    after_help = format!("{EXAMPLES}\n\n{}", exit::HELP),
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// Act with the client certificate of this role [default: $POSTERN_ROLE, or admin]
    #[arg(long = "as", global = true, value_name = "ROLE", value_parser = parse::<Role>)]
    role: Option<Role>,
    #[command(subcommand)]
    verb: Verb,
}

/// A risk is accepted by its name, never in general.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Risk {
    /// The platform is played in software on this machine: it shows every step and protects nothing
    SimulatedTee,
    /// Pods made with the identity that is there obey only that one
    ReplaceIdentity,
    /// Nothing keeps the pod's processes apart but the CPU: a container that tries can read the others and the agent's keys
    MitigationsOff,
}

/// For clap: a flag that takes these risks and no other.
pub(crate) fn only<const N: usize>(risks: [Risk; N]) -> impl TypedValueParser<Value = Risk> {
    let values = risks.iter().filter_map(Risk::to_possible_value);
    PossibleValuesParser::new(values).try_map(|name| Risk::from_str(&name, false))
}

macro_rules! verbs {
    ($($(#[$attribute:meta])* $variant:ident => $module:ident, $ending:ident;)*) => {
        // Made once per run: the size of its largest variant costs nothing.
        #[allow(clippy::large_enum_variant)]
        #[derive(Debug, Subcommand)]
        enum Verb {
            $($(#[$attribute])* $variant(verbs::$module::Args),)*
        }

        impl Verb {
            async fn run(self, owner: &Owner) -> Result<Exit, Failure> {
                match self {
                    $(Self::$variant(args) => ending::$ending(verbs::$module::run(args, owner)).await,)*
                }
            }
        }
    };
}

verbs! {
    /// Make your identity, or add a role to it
    Init => init, own;
    /// See and change what you trust: roots and reference values
    Trust => trust, own;
    /// Create, verify, list and remove pods
    Pod => pod, itself;
    /// Run a container from an image
    Run => run, container;
    /// Run a command in a running container
    Exec => exec, container;
    /// Connect to a running container's streams
    Attach => attach, container;
    /// Show what a container has written
    Logs => logs, own;
    /// Copy files into or out of a container
    Cp => cp, own;
    /// List containers
    Ps => ps, own;
    /// Show what containers use
    Stats => stats, own;
    /// Wait for containers to end and print their exit codes
    Wait => wait, own;
    /// Send a signal to containers
    Kill => kill, own;
    /// Stop containers: signal, grace, kill
    Stop => stop, own;
    /// Start containers that were created or have ended
    Start => start, container;
    /// Remove containers
    Rm => rm, own;
    /// Freeze containers
    Pause => pause, own;
    /// Thaw containers
    Unpause => unpause, own;
    /// Show everything about containers
    Inspect => inspect, own;
    /// Forward ports of this machine to the pod
    PortForward => port_forward, own;
    /// List the processes of a container
    Top => top, own;
    /// Follow what happens in a pod
    Events => events, own;
    /// Push, pull, list, verify and remove images of a pod; pack them into disks
    Image => image, own;
    /// Run the containers of a Kubernetes Pod manifest
    Apply => apply, own;
    /// Show every call of the host and its verdict
    Audit => audit, own;
    /// Print a completion script for a shell
    Completion => completion, own;
    /// Print versions
    Version => version, own;
}

/// What Ctrl-C and failures mean to a verb.
mod ending {
    use super::*;

    /// The verb's codes are Postern's, and an interrupt ends it.
    pub(super) async fn own(verb: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
        signals::interruptible(verb).await
    }

    /// The verb answers interrupts itself, because something has to be undone.
    pub(super) async fn itself(verb: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
        verb.await
    }

    /// The verb's codes are the container's, and so are signals once it runs.
    pub(super) async fn container(
        verb: impl Future<Output = Result<Exit, Failure>>,
    ) -> Result<Exit, Failure> {
        verb.await.map_err(Failure::of_container_verb)
    }
}

impl Cli {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let home = Home::from_environment()?;
        let config = Config::load(&home)?;
        let role = self.role.map_or_else(role_from_environment, Ok)?;
        let owner = Owner { home, config, role };
        // A verb's future is large; one allocation is cheaper than moving it about.
        Box::pin(self.verb.run(&owner)).await
    }
}

fn role_from_environment() -> Result<Role, Failure> {
    match std::env::var("POSTERN_ROLE") {
        Ok(role) => {
            role.parse().map_err(|error| Failure::usage("POSTERN_ROLE cannot be used").caused_by(error))
        }
        Err(_) => Ok(Role::Admin),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_help_with_an_example() {
        fn check(command: &clap::Command) {
            let subcommands: Vec<_> = command.get_subcommands().collect();
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            if subcommands.is_empty() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("postern "), "{} has no example", command.get_name());
            }
            subcommands.into_iter().for_each(check);
        }
        check(&Cli::command());
    }
}
