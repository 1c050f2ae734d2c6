//! `postern apply`: runs the containers of a Kubernetes Pod manifest.

use std::path::PathBuf;

use postern_api::owner::{ApplyRequest, ContainerSpec, CreateRequest, PullRequest, StartRequest};
use postern_model::PodName;

use super::image::pull::pull;
use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    launch::parse,
    manifest, output,
};

const EXAMPLES: &str = "\
Declares the containers, and creates and starts those that do not run yet. With restartPolicy Always or OnFailure the host
may start a declared container again, always with this specification.

Understood: metadata (name, labels) · spec.containers (name, image, command, args, env, workingDir, resources.limits,
securityContext, stdin, tty, volumeMounts) · spec.volumes (emptyDir) · hostname · restartPolicy. Anything else is refused by name.

Examples:
  postern apply demo pod.yaml
  postern apply --declare-only demo pod.yaml";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// The manifest; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Declare only; start nothing
    #[arg(long)]
    declare_only: bool,
    /// Pull missing images over HTTP without TLS
    #[arg(long)]
    plain_http: bool,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let specs = manifest::read(&args.file, &args.pod)?;
    let containers: Vec<ContainerSpec> = specs.into_iter().map(ContainerSpec::from).collect();
    let session = Session::open(owner, &args.pod, Intent::Change).await?;
    let request = ApplyRequest { containers: containers.clone() };
    let declared = session.call("declare containers", session.pod().apply(request)).await?.declared;
    for name in &declared {
        output::line(&format!("{name} declared"))?;
    }
    if !args.declare_only {
        for spec in containers {
            start(&session, spec, args.plain_http).await?;
        }
    }
    Ok(Exit::Done)
}

/// Creates and starts one container; one that is there already is left as it is.
async fn start(session: &Session, spec: ContainerSpec, plain_http: bool) -> Result<(), Failure> {
    let name = spec.name.clone();
    let image = spec.image.clone();
    let doing = format!("create container {name}");
    let request = CreateRequest { spec: Some(spec) };
    let mut containers = session.containers();
    let mut created = containers.create(request.clone()).await;
    if created.as_ref().is_err_and(|status| status.code() == tonic::Code::NotFound) {
        pull(session, PullRequest { reference: image, plain_http, ..Default::default() }).await?;
        created = containers.create(request).await;
    }
    if created.as_ref().is_err_and(|status| status.code() == tonic::Code::AlreadyExists) {
        return output::line(&format!("{name} exists"));
    }
    session.call(&doing, async { created }).await?;
    let doing = format!("start container {name}");
    session.call(&doing, containers.start(StartRequest { container: name.clone() })).await?;
    output::line(&format!("{name} started"))
}
