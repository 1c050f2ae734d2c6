//! `postern top`: the processes of a container.

use postern_api::owner::TopRequest;
use serde_json::json;

use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    output::{self, Format, FormatArg, Table},
    target::Target,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern top demo/web\n  postern top demo/web --output json")]
pub(crate) struct Args {
    /// The container, as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", value_parser = parse::<Target>)]
    container: Target,
    #[command(flatten)]
    output: FormatArg,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let Target { pod, container } = args.container;
    let session = Session::open(owner, &pod, Intent::Read).await?;
    let doing = format!("list the processes of container {container}");
    let request = TopRequest { container: container.to_string() };
    let processes = session.call(&doing, session.containers().top(request)).await?.processes;
    if args.output.format == Format::Json {
        let rows = processes.iter().map(|process| {
            json!({
                "pid": process.pid,
                "parent_pid": process.parent_pid,
                "uid": process.uid,
                "state": process.state,
                "cpu_millis": process.cpu_millis,
                "resident_bytes": process.resident_bytes,
                "command": process.command,
            })
        });
        output::json(&rows.collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["PID", "PPID", "UID", "STATE", "CPU", "MEMORY", "COMMAND"]);
    for process in processes {
        table.row([
            process.pid.to_string(),
            process.parent_pid.to_string(),
            process.uid.to_string(),
            process.state,
            format!("{:.2} s", process.cpu_millis as f64 / 1000.0),
            human::memory(process.resident_bytes),
            process.command.join(" "),
        ]);
    }
    table.print()?;
    Ok(Exit::Done)
}
