//! `Containers.Logs`: what the bounded log holds, then what is still to come.

use futures_util::stream;
use postern_api::owner::{LogsRequest, LogsResponse};
use postern_model::OperationKind;
use tonic::Status;

use super::{
    service::Answers,
    session::{Session, container},
    status, wire,
};
use crate::pod::{LogFrom, LogReader};

struct Wanted {
    reader: LogReader,
    follow: bool,
    since_unix_millis: u64,
    /// Lost bytes of pieces that were too old to be shown.
    dropped: u64,
}

pub(super) fn logs(session: &Session, request: LogsRequest) -> Result<Answers<LogsResponse>, Status> {
    let name = container(request.container)?;
    let permit = session.permit(OperationKind::Logs)?;
    let from = request.tail.map_or(LogFrom::Oldest, LogFrom::LastLines);
    let reader = session.pod().logs(permit, &name, from).map_err(status::pod)?;
    let wanted =
        Wanted { reader, follow: request.follow, since_unix_millis: request.since_unix_millis, dropped: 0 };
    Ok(Box::pin(stream::unfold(wanted, |mut wanted| async move {
        let response = wanted.next().await?;
        Some((Ok(response), wanted))
    })))
}

impl Wanted {
    async fn next(&mut self) -> Option<LogsResponse> {
        loop {
            let chunk = match self.follow {
                true => self.reader.next().await?,
                false => self.reader.try_next()?,
            };
            self.dropped += chunk.dropped;
            if chunk.unix_millis >= self.since_unix_millis {
                let dropped_bytes = std::mem::take(&mut self.dropped);
                return Some(LogsResponse {
                    unix_millis: chunk.unix_millis,
                    stream: wire::stream(chunk.stream).into(),
                    data: chunk.data,
                    dropped_bytes,
                });
            }
        }
    }
}
