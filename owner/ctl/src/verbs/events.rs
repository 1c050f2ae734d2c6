//! `postern events`: what happens in a pod, as it happens.

use postern_api::owner::EventsRequest;
use postern_model::PodName;
use serde_json::json;

use super::show;
use crate::{
    door::{Intent, Owner, Session, Subject},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    output::{self, Format, FormatArg},
    text,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Goes on until Ctrl-C or the end of the pod.\n\nExamples:\n  postern events demo\n  postern events --history demo --output json"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// Begin with what is still remembered of the past
    #[arg(long)]
    history: bool,
    #[command(flatten)]
    output: FormatArg,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let session = Session::open(owner, &args.pod, Intent::Read).await?;
    let subject = Subject { pod: session.name(), doing: "follow the pod's events" };
    let request = EventsRequest { history: args.history };
    let mut events = session.open_stream(subject, session.pod().events(request)).await?;
    while let Some(event) = events.message().await.map_err(|status| session.failure(subject, &status))? {
        if args.output.format == Format::Json {
            output::json_line(&json!({
                "time": human::rfc3339(event.unix_millis),
                "kind": event.kind,
                "subject": event.subject,
                "attributes": show::sorted(&event.attributes),
            }))?;
            continue;
        }
        let mut attributes: Vec<_> = event.attributes.iter().collect();
        attributes.sort();
        let mut line = format!("{} {} {}", human::rfc3339(event.unix_millis), event.kind, event.subject);
        attributes.iter().for_each(|(key, value)| line.push_str(&format!(" {key}={value}")));
        output::line(text::clean(&line).trim_end())?;
    }
    Ok(Exit::Done)
}
