//! `postern attach`: this terminal on a container's streams. Also the foreground half of `run` and `start -a`.

use postern_api::owner::{AttachStart, InspectRequest, process_input::Kind};
use postern_model::ContainerName;

use crate::{
    door::{Intent, Owner, Session, Subject},
    exit::Exit,
    failure::Failure,
    launch::parse,
    process::{
        stream::{Connection, Leave, drive},
        terminal,
    },
    target::Target,
    timeline::Moments,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with the container's exit code. ctrl-p ctrl-q leaves a container with a terminal and lets it go on.\n\nExamples:\n  postern attach demo/web\n  postern attach --no-stdin demo/web"
)]
pub(crate) struct Args {
    /// The container, as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", value_parser = parse::<Target>)]
    container: Target,
    /// Do not connect standard input
    #[arg(long)]
    no_stdin: bool,
    /// First show what it has written before
    #[arg(long)]
    history: bool,
}

/// What to connect, and whether the container is started by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) terminal: bool,
    pub(super) stdin: bool,
    pub(super) history: bool,
    pub(super) start: bool,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let Target { pod, container } = args.container;
    let session = Session::open(owner, &pod, Intent::Change).await?;
    let doing = format!("inspect container {container}");
    let request = InspectRequest { container: container.to_string() };
    let found = session.call(&doing, session.containers().inspect(request)).await?;
    let spec = found.spec.unwrap_or_default();
    let how = How {
        terminal: spec.terminal,
        stdin: spec.stdin && !args.no_stdin,
        history: args.history,
        start: false,
    };
    attach(&session, &container, how, None).await
}

/// Connects to a container and stays until it ends.
pub(super) async fn attach(
    session: &Session,
    container: &ContainerName,
    how: How,
    moments: Option<&Moments>,
) -> Result<Exit, Failure> {
    let doing = match how.start {
        true => format!("run container {container}"),
        false => format!("attach to container {container}"),
    };
    let subject = Subject { pod: session.name(), doing: &doing };
    let size = if how.terminal { terminal::window_size() } else { None };
    let first = Kind::Attach(AttachStart {
        container: container.to_string(),
        stdin: how.stdin,
        size,
        history: how.history,
        start: how.start,
    });
    let connection =
        Connection { subject, terminal: how.terminal, stdin: how.stdin, leave: Leave::GoesOn, moments };
    let mut containers = session.bulk();
    drive(session, connection, first, async |input| containers.attach(input).await).await
}
