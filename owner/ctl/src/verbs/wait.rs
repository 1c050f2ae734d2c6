//! `postern wait`: until containers have ended.

use postern_api::owner::WaitRequest;

use super::each::each;
use crate::{
    door::{Intent, Owner, Subject},
    exit::Exit,
    failure::Failure,
    launch::parse,
    target::Target,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints one exit code per container; 128+n after signal n. Any number of callers may wait.\n\nExamples:\n  postern wait demo/job\n  test \"$(postern wait demo/job)\" = 0"
)]
pub(crate) struct Args {
    /// Containers, each as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", required = true, value_parser = parse::<Target>)]
    containers: Vec<Target>,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    each(owner, &args.containers, Intent::Read, async |session, target| {
        let doing = format!("wait for container {}", target.container);
        let subject = Subject { pod: session.name(), doing: &doing };
        let request = WaitRequest { container: target.container.to_string() };
        let response = session.open_stream(subject, session.containers().wait(request)).await?;
        Ok(response.exit.unwrap_or_default().code.to_string())
    })
    .await
}
