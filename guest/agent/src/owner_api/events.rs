//! `Pod.Events`: what happens in the pod, as it happens.

use futures_util::stream;
use postern_api::owner::{Event, EventsRequest};
use postern_model::OperationKind;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use super::{service::Answers, session::Session, status, wire};

pub(super) fn events(session: &Session, request: EventsRequest) -> Result<Answers<Event>, Status> {
    let permit = session.permit(OperationKind::Events)?;
    let (mut past, live) = session.pod().events(permit).map_err(status::pod)?;
    if !request.history {
        past.clear();
    }
    let state = (past.into_iter(), live);
    Ok(Box::pin(stream::unfold(state, |(mut past, mut live)| async move {
        if let Some(event) = past.next() {
            return Some((Ok(wire::event(&event)), (past, live)));
        }
        let answer = match live.recv().await {
            Ok(event) => Ok(wire::event(&event)),
            Err(RecvError::Lagged(lost)) => {
                Err(Status::data_loss(format!("{lost} events were lost because they were not read in time")))
            }
            Err(RecvError::Closed) => return None,
        };
        Some((answer, (past, live)))
    })))
}
