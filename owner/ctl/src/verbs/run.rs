//! `postern run`: a container from an image that the pod has, that is pushed from here, or that the pod pulls.

mod options;

use postern_api::owner::{CreateRequest, PullRequest, RemoveRequest, StartRequest};
use postern_model::{ContainerName, PodName};

pub(super) use options::variables;

use super::{
    attach::{How, attach},
    exec::terminal_fits,
    image::pull::{Credentials, pull},
};
use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    image::{ImageArgument, push},
    launch::parse,
    output,
    timeline::{self, Clock, Moments},
};

const EXAMPLES: &str = "\
IMAGE is a name in the pod's store or a registry, or an image of this machine that is pushed through the tunnel first:
  oci:DIR[:TAG]   oci-archive:FILE   docker-archive:FILE   ./path   - (standard input, with -d only)

In the foreground the container's output comes here, Ctrl-C and other signals go there, and its exit code is this program's.
125 means that Postern failed, 126 that the command cannot be executed, 127 that there is no such command.

Examples:
  postern run demo busybox -- echo hello
  postern run -it --rm demo busybox -- sh
  postern run -d --name web -e PORT=80 --memory 64M --read-only --tmpfs /tmp demo oci:./web-image
  postern run demo 10.0.2.2:5000/job:1 --plain-http --rm
  postern run -d --username me --password-stdin demo registry.example/web < token";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// The image: a name, or where it is on this machine
    #[arg(value_name = "IMAGE", value_parser = parse::<ImageArgument>)]
    image: ImageArgument,
    /// The command and its arguments, in place of the image's
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<String>,
    /// Leave it running and print its name
    #[arg(long, short)]
    detach: bool,
    /// When the pod pulls the image itself
    #[arg(long, value_enum, value_name = "WHEN", default_value = "missing")]
    pull: PullPolicy,
    /// Pull over HTTP without TLS; the content is checked against its digests all the same
    #[arg(long)]
    plain_http: bool,
    #[command(flatten)]
    credentials: Credentials,
    /// Say at the end how long each stage took, on standard error
    #[arg(long)]
    timeline: bool,
    #[command(flatten)]
    options: options::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PullPolicy {
    Missing,
    Always,
    Never,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let options = &args.options;
    if !args.detach {
        terminal_fits(options.interactive, options.tty)?;
    }
    if args.image == ImageArgument::Local(crate::image::ImageSource::Stdin) && !args.detach {
        return Err(Failure::usage("standard input cannot be both the image and the container's input")
            .hint("add -d, or push first with `postern image push`"));
    }
    if args.credentials.password_stdin && options.interactive {
        return Err(Failure::usage("standard input cannot be both a password and the container's input")
            .hint("pull first with `postern image pull --password-stdin`"));
    }
    let mut spec = options.spec(&args.image, args.command.clone())?;
    let mut request = match &args.image {
        // A digest of the store names nothing in a registry.
        ImageArgument::Reference(reference) if reference.parse::<postern_model::ImageReference>().is_ok() => {
            Some(args.credentials.request(reference.clone(), args.plain_http)?)
        }
        ImageArgument::Reference(_) | ImageArgument::Local(_) => None,
    };
    let mut clock = Clock::new();
    let session = Session::open(owner, &args.pod, Intent::Change).await?;
    clock.lap("tunnel");
    match &args.image {
        ImageArgument::Local(source) => {
            let image = push(&session, source, None).await?;
            spec.image = if image.reference.is_empty() { image.digest } else { image.reference };
        }
        ImageArgument::Reference(_) if args.pull == PullPolicy::Always => {
            if let Some(request) = request.take() {
                pull(&session, request).await?;
            }
        }
        ImageArgument::Reference(_) => {}
    }
    let may_pull = request.filter(|_| args.pull == PullPolicy::Missing);
    // Sent or pulled, checked and unpacked: the pod answers when it has the layers' files.
    clock.lap("image");
    let name = spec.name.clone();
    create(&session, spec.into(), may_pull).await?;
    clock.lap("create");
    let moments = Moments::default();
    let ended = match args.detach {
        true => start_detached(&session, &name, options.rm).await,
        false => foreground(&session, &name, options, &moments).await,
    };
    if args.timeline {
        output::notice(timeline(clock, &moments).trim_end());
    }
    ended
}

/// From the start of the container on, as far as it came.
fn timeline(mut clock: Clock, moments: &Moments) -> String {
    if let Some(started) = moments.started() {
        clock.lap_at("start", started);
    }
    if let Some(first) = moments.first_output() {
        clock.lap_at("first output", first);
    }
    clock.lap("end");
    timeline::lines(&clock.stages())
}

/// Creates the container; when the pod lacks the image and may pull it, pulls and tries once more.
async fn create(
    session: &Session,
    spec: postern_api::owner::ContainerSpec,
    may_pull: Option<PullRequest>,
) -> Result<(), Failure> {
    let doing = format!("create container {}", spec.name);
    let request = CreateRequest { spec: Some(spec) };
    let created = session.call(&doing, session.containers().create(request.clone())).await;
    match (created, may_pull) {
        (Err(failure), Some(pulled)) if failure.exit() == Exit::NotFound => {
            pull(session, pulled).await?;
            session.call(&doing, session.containers().create(request)).await.map(drop)
        }
        (Err(failure), None) if failure.exit() == Exit::NotFound => {
            Err(failure.hint(format!("`postern image ls {}` shows what the pod has", session.name())))
        }
        (created, _) => created.map(drop),
    }
}

async fn start_detached(session: &Session, name: &ContainerName, rm: bool) -> Result<Exit, Failure> {
    let doing = format!("start container {name}");
    let request = StartRequest { container: name.to_string() };
    if let Err(failure) = session.call(&doing, session.containers().start(request)).await {
        return Err(undo(session, name, rm, failure).await);
    }
    output::line(name.as_str())?;
    Ok(Exit::Done)
}

async fn foreground(
    session: &Session,
    name: &ContainerName,
    options: &options::Options,
    moments: &Moments,
) -> Result<Exit, Failure> {
    let how = How { terminal: options.tty, stdin: options.interactive, history: false, start: true };
    match attach(session, name, how, Some(moments)).await {
        Err(failure) if matches!(failure.exit(), Exit::CannotExecute | Exit::CommandNotFound) => {
            Err(undo(session, name, options.rm, failure).await)
        }
        other => other,
    }
}

/// A container that never started is removed when it was to be removed at its end.
async fn undo(session: &Session, name: &ContainerName, rm: bool, failure: Failure) -> Failure {
    if !rm {
        return failure.hint(format!(
            "container {name} stays as it was created; `postern rm {}/{name}` removes it",
            session.name()
        ));
    }
    let request = RemoveRequest { container: name.to_string(), force: true };
    let doing = format!("remove container {name}");
    match session.call(&doing, session.containers().remove(request)).await {
        Err(left) if left.exit() != Exit::NotFound => {
            left.print();
            failure
        }
        _ => failure,
    }
}
