//! `Containers.Attach`: the streams of a container's first process. Any number may be attached; each gets all output.

use futures_util::{StreamExt, stream};
use postern_api::{
    bulk::Incoming,
    owner::{self as wire, process_input, process_output::Kind},
};
use postern_model::OperationKind;
use tonic::Status;

use super::{
    process::{Controls, follow, output, window_size},
    service::Answers,
    session::{Session, container},
    status, wire as encode,
};
use crate::pod::{Attachment, LogStream, Wanted};

pub(super) async fn attach(
    session: &Session,
    mut input: Incoming<wire::ProcessInput>,
) -> Result<Answers<wire::ProcessOutput>, Status> {
    let Some(process_input::Kind::Attach(wanted)) = input.message().await?.and_then(|message| message.kind)
    else {
        return Err(Status::invalid_argument("the first message of an attach is not attach"));
    };
    let name = container(wanted.container)?;
    let size = wanted.size.as_ref().map(window_size).transpose()?;
    let start = match wanted.start {
        true => Some(session.permit(OperationKind::StartContainer)?),
        false => None,
    };
    let permit = session.permit(OperationKind::Attach)?;
    let wishes = Wanted { history: wanted.history, start, size };
    let attachment = session.pod().attach(permit, &name, wishes).await.map_err(status::pod)?;
    let run = attachment.run();
    let controls = Controls {
        stdin: wanted.stdin.then(|| attachment.stdin()),
        terminal: run.as_ref().and_then(|run| run.terminal.clone()),
        process: run.map(|run| run.process),
    };
    let follower = follow(input, controls);
    let started = stream::iter([Ok(output(Kind::Started(wire::Started::default())))]);
    let rest = stream::unfold(Some((attachment, follower)), |state| async move {
        let (mut attachment, follower) = state?;
        let answer = next(&mut attachment).await;
        let over = matches!(&answer, Err(_) | Ok(wire::ProcessOutput { kind: Some(Kind::Exit(_)) }));
        Some((answer, (!over).then_some((attachment, follower))))
    });
    Ok(Box::pin(started.chain(rest)))
}

async fn next(attachment: &mut Attachment) -> Result<wire::ProcessOutput, Status> {
    match attachment.next().await {
        Ok(chunk) if chunk.dropped > 0 => Err(Status::data_loss(format!(
            "{} bytes of output were lost because this side took nothing for too long",
            chunk.dropped
        ))),
        Ok(chunk) => Ok(output(match chunk.stream {
            LogStream::Stdout => Kind::Stdout(chunk.data),
            LogStream::Stderr => Kind::Stderr(chunk.data),
        })),
        Err(exit) => Ok(output(Kind::Exit(encode::exit(exit)))),
    }
}
