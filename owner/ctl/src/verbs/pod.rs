//! `postern pod`: pods, from creation to removal.

mod add;
mod create;
mod init_data;
mod inspect;
mod ls;
mod rm;
mod verify;

use crate::{door::Owner, exit::Exit, failure::Failure, process::signals::interruptible};

#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Boot a pod on this machine, verify it and take it over
    Create(create::Args),
    /// Make the init data of a pod that somebody else starts
    InitData(init_data::Args),
    /// Know a pod that somebody else started
    Add(add::Args),
    /// Check everything that a pod has to prove
    Verify(verify::Args),
    /// List pods
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Show everything about a pod
    Inspect(inspect::Args),
    /// End pods and forget them
    Rm(rm::Args),
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    match args.verb {
        // Takes down what it has begun.
        Verb::Create(args) => create::run(args, owner).await,
        Verb::InitData(args) => interruptible(init_data::run(args, owner)).await,
        Verb::Add(args) => interruptible(add::run(args, owner)).await,
        Verb::Verify(args) => interruptible(verify::run(args, owner)).await,
        Verb::Ls(args) => interruptible(ls::run(args, owner)).await,
        Verb::Inspect(args) => interruptible(inspect::run(args, owner)).await,
        Verb::Rm(args) => interruptible(rm::run(args, owner)).await,
    }
}
