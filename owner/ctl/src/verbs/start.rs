//! `postern start`: starts containers; with -a it stays and connects to the one.

use postern_api::owner::{InspectRequest, StartRequest};

use super::{attach, each::each};
use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    launch::parse,
    target::Target,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern start demo/web\n  postern start -a -i demo/shell")]
pub(crate) struct Args {
    /// Containers, each as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", required = true, value_parser = parse::<Target>)]
    containers: Vec<Target>,
    /// Connect to its output, pass signals on, and end with its exit code
    #[arg(long, short)]
    attach: bool,
    /// Also connect standard input
    #[arg(long, short, requires = "attach")]
    interactive: bool,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    if !args.attach {
        return each(owner, &args.containers, Intent::Change, async |session, target| {
            let doing = format!("start container {}", target.container);
            let request = StartRequest { container: target.container.to_string() };
            session.call(&doing, session.containers().start(request)).await?;
            Ok(target.container.to_string())
        })
        .await;
    }
    let [target] = args.containers.as_slice() else {
        return Err(
            Failure::usage("only one container can be attached to").hint("name one, or leave -a away")
        );
    };
    let session = Session::open(owner, &target.pod, Intent::Change).await?;
    let doing = format!("inspect container {}", target.container);
    let request = InspectRequest { container: target.container.to_string() };
    let found = session.call(&doing, session.containers().inspect(request)).await?;
    let spec = found.spec.unwrap_or_default();
    let how = attach::How {
        terminal: spec.terminal,
        stdin: args.interactive && spec.stdin,
        history: false,
        start: true,
    };
    attach::attach(&session, &target.container, how, None).await
}
