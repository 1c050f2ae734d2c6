//! `postern image rm`: takes images out of the pod's store.

use postern_api::owner::RemoveImageRequest;
use postern_model::PodName;

use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    launch::parse,
    output,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern image rm demo busybox:latest\n  postern image rm demo sha256:…")]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// References, digests or image ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let session = Session::open(owner, &args.pod, Intent::Change).await?;
    let mut outcome = Ok(Exit::Done);
    for reference in args.images {
        let doing = format!("remove image {reference}");
        let request = RemoveImageRequest { reference: reference.clone() };
        match session.call(&doing, session.images().remove(request)).await {
            Ok(_) => output::line(&reference)?,
            Err(failure) => match &outcome {
                Ok(_) => outcome = Err(failure),
                Err(_) => failure.print(),
            },
        }
    }
    outcome
}
