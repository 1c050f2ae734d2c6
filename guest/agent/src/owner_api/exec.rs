//! `Containers.Exec`: a further process in a running container, with streams of its own; nothing of it is logged.

use std::path::PathBuf;

use futures_util::{StreamExt, stream};
use postern_api::{
    bulk::Incoming,
    owner::{self as wire, process_input, process_output::Kind},
};
use postern_container::{ExecProcess, Stdio};
use postern_model::OperationKind;
use tonic::Status;

use super::{
    process::{Controls, follow, output, window_size},
    service::Answers,
    session::{Session, container},
    status,
};
use crate::pod::{LogStream, Piece};

pub(super) async fn exec(
    session: &Session,
    mut input: Incoming<wire::ProcessInput>,
) -> Result<Answers<wire::ProcessOutput>, Status> {
    let Some(process_input::Kind::Exec(wanted)) = input.message().await?.and_then(|message| message.kind)
    else {
        return Err(Status::invalid_argument("the first message of an exec is not exec"));
    };
    let name = container(wanted.container.clone())?;
    let stdio = stdio(&wanted)?;
    let takes_input = wanted.stdin;
    let request = request(wanted)?;
    let permit = session.permit(OperationKind::Exec)?;
    let exec = session.pod().exec(permit, &name, request, stdio).await.map_err(status::pod)?;
    let controls = Controls {
        stdin: takes_input.then(|| exec.stdin.clone()),
        terminal: exec.terminal.clone(),
        process: Some(exec.process.clone()),
    };
    let follower = follow(input, controls);
    let started = Kind::Started(wire::Started { exec_id: exec.id.to_string() });
    let rest = stream::unfold(Some((exec, follower)), |state| async move {
        let (mut exec, follower) = state?;
        match exec.next().await {
            Piece::Output(LogStream::Stdout, data) => Some((Kind::Stdout(data), Some((exec, follower)))),
            Piece::Output(LogStream::Stderr, data) => Some((Kind::Stderr(data), Some((exec, follower)))),
            Piece::End(status) => Some((Kind::Exit(status.into()), None)),
        }
    });
    Ok(Box::pin(stream::iter([started]).chain(rest).map(|kind| Ok(output(kind)))))
}

fn stdio(wanted: &wire::ExecStart) -> Result<Stdio, Status> {
    Ok(match (wanted.terminal, wanted.stdin) {
        (true, _) => Stdio::Terminal(wanted.size.as_ref().map(window_size).transpose()?.unwrap_or_default()),
        (false, true) => Stdio::Pipes,
        (false, false) => Stdio::OutputOnly,
    })
}

fn request(wanted: wire::ExecStart) -> Result<ExecProcess, Status> {
    if wanted.args.is_empty() {
        return Err(status::missing("exec.args"));
    }
    let cwd = Some(wanted.working_dir).filter(|path| !path.is_empty()).map(PathBuf::from);
    if cwd.as_ref().is_some_and(|path| !path.is_absolute()) {
        return Err(Status::invalid_argument("exec.working_dir is not an absolute path"));
    }
    Ok(ExecProcess {
        args: wanted.args,
        env: wanted.env.into_iter().collect(),
        cwd,
        user: Some(wanted.user).filter(|user| !user.is_empty()),
    })
}
