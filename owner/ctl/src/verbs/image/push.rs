//! `postern image push`: an image of this machine into the pod.

use postern_model::{ImageReference, PodName};

use super::pull::print;
use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    image::{self, ImageSource},
    launch::parse,
    output::FormatArg,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "SOURCE: oci:DIR[:TAG] · oci-archive:FILE · docker-archive:FILE · a path · - for an archive on standard input · disk:FILE for a disk that the host has attached\n\nExamples:\n  postern image push demo oci:./busybox\n  postern image push demo web.tar example.org/web:1\n  docker save web | postern image push demo -\n  postern image push demo disk:web.disk"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// The image on this machine
    #[arg(value_name = "SOURCE", value_parser = parse::<ImageSource>)]
    source: ImageSource,
    /// Store it under this name; otherwise under the name it brings
    #[arg(value_name = "REFERENCE", value_parser = reference)]
    reference: Option<String>,
    #[command(flatten)]
    output: FormatArg,
}

/// Checked here, kept as it was typed.
fn reference(text: &str) -> Result<String, String> {
    parse::<ImageReference>(text).map(|_| text.to_owned())
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let session = Session::open(owner, &args.pod, Intent::Change).await?;
    let image = image::push(&session, &args.source, args.reference.as_deref()).await?;
    print(&image, args.output.format)?;
    Ok(Exit::Done)
}
