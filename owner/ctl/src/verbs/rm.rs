//! `postern rm`: removes containers.

use postern_api::owner::RemoveRequest;

use super::each::each;
use crate::{
    door::{Intent, Owner},
    exit::Exit,
    failure::Failure,
    launch::parse,
    target::Target,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Its files and logs go with it; volumes stay with the pod.\n\nExamples:\n  postern rm demo/job\n  postern rm -f demo/web"
)]
pub(crate) struct Args {
    /// Containers, each as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", required = true, value_parser = parse::<Target>)]
    containers: Vec<Target>,
    /// Kill it first when it still runs
    #[arg(long, short)]
    force: bool,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    each(owner, &args.containers, Intent::Change, async |session, target| {
        let doing = format!("remove container {}", target.container);
        let request = RemoveRequest { container: target.container.to_string(), force: args.force };
        session.call(&doing, session.containers().remove(request)).await?;
        Ok(target.container.to_string())
    })
    .await
}
