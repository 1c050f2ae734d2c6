//! `postern image ls`: what the pod's store holds.

use postern_api::owner::{Image, ListImagesRequest};
use postern_model::PodName;

use super::super::show;
use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    output::{self, Format, FormatArg, Table},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern image ls demo\n  postern image ls demo --output json")]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    #[command(flatten)]
    output: FormatArg,
}

/// The images of a pod.
pub(super) async fn list(session: &Session) -> Result<Vec<Image>, Failure> {
    let mut images = session.images();
    Ok(session.call("list images", images.list(ListImagesRequest {})).await?.images)
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let session = Session::open(owner, &args.pod, Intent::Read).await?;
    let images = list(&session).await?;
    if args.output.format == Format::Json {
        output::json(&images.iter().map(show::image).collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    let now = human::now_millis();
    let mut table = Table::new(&["REFERENCE", "DIGEST", "ID", "SIZE", "LAYERS", "CREATED"]);
    for image in images {
        let created = match image.created_unix_millis {
            0 => "unknown".into(),
            millis => human::ago(millis, now),
        };
        table.row([
            image.reference,
            human::short_digest(&image.digest),
            human::short_digest(&image.config_digest),
            human::size(image.size_bytes),
            image.layers.to_string(),
            created,
        ]);
    }
    table.print()?;
    Ok(Exit::Done)
}
