//! `postern kill`: a signal to containers.

use postern_api::owner::KillRequest;

use super::each::each;
use crate::{
    door::{Intent, Owner},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    target::Target,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern kill demo/web\n  postern kill -s HUP demo/web")]
pub(crate) struct Args {
    /// Containers, each as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", required = true, value_parser = parse::<Target>)]
    containers: Vec<Target>,
    /// The signal: a name or a number
    #[arg(long, short, value_name = "SIGNAL", value_parser = human::parse_signal, default_value = "KILL")]
    signal: u32,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    each(owner, &args.containers, Intent::Change, async |session, target| {
        let doing = format!("send signal {} to container {}", args.signal, target.container);
        let request = KillRequest { container: target.container.to_string(), signal: args.signal };
        session.call(&doing, session.containers().kill(request)).await?;
        Ok(target.container.to_string())
    })
    .await
}
