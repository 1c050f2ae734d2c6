//! `postern pause`: freezes containers.

use postern_api::owner::PauseRequest;

use super::each::each;
use crate::{
    door::{Intent, Owner},
    exit::Exit,
    failure::Failure,
    launch::parse,
    target::Target,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern pause demo/web")]
pub(crate) struct Args {
    /// Containers, each as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", required = true, value_parser = parse::<Target>)]
    containers: Vec<Target>,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    each(owner, &args.containers, Intent::Change, async |session, target| {
        let doing = format!("freeze container {}", target.container);
        let request = PauseRequest { container: target.container.to_string() };
        session.call(&doing, session.containers().pause(request)).await?;
        Ok(target.container.to_string())
    })
    .await
}
