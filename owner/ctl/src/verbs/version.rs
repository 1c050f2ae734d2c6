//! `postern version`: this program's, and with a pod the guest's.

use postern_api::owner::InspectPodRequest;
use postern_model::PodName;
use serde_json::json;

use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    launch::parse,
    output::{self, Format, FormatArg},
    text,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern version\n  postern version demo --output json")]
pub(crate) struct Args {
    /// Also print the versions inside this pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: Option<PodName>,
    #[command(flatten)]
    output: FormatArg,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let client = env!("CARGO_PKG_VERSION");
    let pod = match &args.pod {
        None => None,
        Some(pod) => {
            let session = Session::open(owner, pod, Intent::Read).await?;
            Some(session.call("inspect the pod", session.pod().inspect(InspectPodRequest {})).await?)
        }
    };
    if args.output.format == Format::Json {
        let pod = pod.map(|pod| json!({"agent": pod.agent_version, "kernel": pod.kernel_release}));
        output::json(&json!({"postern": client, "protocol": "postern.v1", "pod": pod}))?;
        return Ok(Exit::Done);
    }
    output::line(&format!("postern {client} (postern.v1)"))?;
    if let Some(pod) = pod {
        let line = format!(
            "agent   {}\nkernel  {}",
            text::clean(&pod.agent_version),
            text::clean(&pod.kernel_release)
        );
        output::line(&line)?;
    }
    Ok(Exit::Done)
}
