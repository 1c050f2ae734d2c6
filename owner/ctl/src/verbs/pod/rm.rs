//! `postern pod rm`: ends pods and forgets them. Asks the pod to end itself, then takes its VM off this machine.

use std::time::Duration;

use postern_api::owner::ReleaseRequest;
use postern_model::PodName;

use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    host::HostProgram,
    launch::parse,
    output::{self, notice},
    record::{self, Origin, PodRecord},
};

/// How long a pod may take to end its containers and wipe its keys before it is ended from outside.
const RELEASE: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A pod that no longer answers, or is not verified, is taken off this machine all the same.\n\nExamples:\n  postern pod rm demo\n  postern pod rm --keep-running web      only forget it here"
)]
pub(crate) struct Args {
    /// Names of the pods
    #[arg(value_name = "POD", required = true, value_parser = parse::<PodName>)]
    pods: Vec<PodName>,
    /// Do not end a pod that was added; only forget it
    #[arg(long)]
    keep_running: bool,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let mut outcome = Ok(Exit::Done);
    for pod in &args.pods {
        match remove(owner, pod, args.keep_running).await {
            Ok(()) => output::line(pod.as_str())?,
            Err(failure) => match &outcome {
                Ok(_) => outcome = Err(failure),
                Err(_) => failure.print(),
            },
        }
    }
    outcome
}

async fn remove(owner: &Owner, pod: &PodName, keep_running: bool) -> Result<(), Failure> {
    let record = match PodRecord::load(&owner.home, pod) {
        Ok(record) => Some(record),
        Err(failure) if failure.exit() == Exit::NotFound && !PodRecord::dir(&owner.home, pod).exists() => {
            return Err(failure);
        }
        // A broken record, or one of a creation that never ended: there may be a VM all the same.
        Err(_) => None,
    };
    let origin = record.as_ref().map(|record| record.origin);
    if keep_running && origin == Some(Origin::Created) {
        return Err(Failure::usage(format!(
            "pod {pod} was created on this machine; nobody else could end it"
        ))
        .hint("leave --keep-running away"));
    }
    if !keep_running
        && origin.is_some()
        && let Err(failure) = release(owner, pod).await
        && failure.exit() != Exit::Unreachable
    {
        notice(&format!("note: {failure}"));
    }
    if origin != Some(Origin::Added) {
        match HostProgram::find(&owner.config) {
            Ok(host) => host.remove(pod, record.map(|record| record.host_data)).await?,
            Err(failure) if origin == Some(Origin::Created) => return Err(failure),
            Err(_) => {}
        }
    }
    record::remove(&owner.home, pod)
}

async fn release(owner: &Owner, pod: &PodName) -> Result<(), Failure> {
    let released = async {
        let session = Session::open(owner, pod, Intent::Read).await?;
        session.call_within(RELEASE, "release the pod", session.pod().release(ReleaseRequest {})).await
    };
    match tokio::time::timeout(RELEASE, released).await {
        Ok(released) => released.map(drop),
        Err(_) => Err(Failure::new(Exit::Unreachable, format!("pod {pod} did not answer"))),
    }
}
