//! `postern image`: the images of a pod.

pub(super) mod ls;
pub(super) mod pack;
pub(super) mod pull;
pub(super) mod push;
pub(super) mod rm;
pub(super) mod verify;

use crate::{door::Owner, exit::Exit, failure::Failure};

#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Let the pod pull an image from a registry
    Pull(pull::Args),
    /// Send an image of this machine through the tunnel
    Push(push::Args),
    /// Make a disk of an image of this machine, which a host can lend to any number of pods
    Pack(pack::Args),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Remove images
    Rm(rm::Args),
    /// Compare an image of the pod with a digest or with an image of this machine
    Verify(verify::Args),
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Pull(args) => pull::run(args, owner).await,
        Verb::Push(args) => push::run(args, owner).await,
        Verb::Pack(args) => pack::run(args, owner).await,
        Verb::Ls(args) => ls::run(args, owner).await,
        Verb::Rm(args) => rm::run(args, owner).await,
        Verb::Verify(args) => verify::run(args, owner).await,
    }
}
