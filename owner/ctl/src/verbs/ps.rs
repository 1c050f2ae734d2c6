//! `postern ps`: the containers of a pod.

use postern_api::owner::ListRequest;
use postern_model::PodName;

use super::show;
use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    output::{self, Format, FormatArg, Table},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern ps demo\n  postern ps -a demo --output json")]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// Also those that were only created or have ended
    #[arg(long, short)]
    all: bool,
    /// Print names only
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    output: FormatArg,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let session = Session::open(owner, &args.pod, Intent::Read).await?;
    let mut client = session.containers();
    let request = ListRequest { all: args.all };
    let containers = session.call("list containers", client.list(request)).await?.containers;
    if args.output.format == Format::Json {
        output::json(&containers.iter().map(show::summary).collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    if args.quiet {
        let names: String =
            containers.iter().map(|container| format!("{}\n", crate::text::clean(&container.name))).collect();
        output::print(&names)?;
        return Ok(Exit::Done);
    }
    let now = human::now_millis();
    let mut table = Table::new(&["NAME", "IMAGE", "COMMAND", "CREATED", "STATUS"]);
    for container in &containers {
        table.row([
            container.name.clone(),
            container.image.clone(),
            shortened(&container.command.join(" ")),
            human::ago(container.created_unix_millis, now),
            show::status(container, now),
        ]);
    }
    table.print()?;
    Ok(Exit::Done)
}

fn shortened(command: &str) -> String {
    const MOST: usize = 30;
    match command.chars().count() > MOST {
        true => command.chars().take(MOST - 1).chain(['…']).collect(),
        false => command.to_owned(),
    }
}
