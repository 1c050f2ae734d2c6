//! `Containers.List`.

use postern_api::owner::{ListRequest, ListResponse};
use postern_model::{ContainerState, OperationKind};
use tonic::Status;

use super::{session::Session, status, wire};

pub(super) fn list(session: &Session, request: ListRequest) -> Result<ListResponse, Status> {
    let permit = session.permit(OperationKind::ListContainers)?;
    let view = session.pod().list(permit).map_err(status::pod)?;
    let runs = |state| matches!(state, ContainerState::Running | ContainerState::Paused);
    let shown = view.containers.values().filter(|container| request.all || runs(container.state));
    Ok(ListResponse { containers: shown.map(|container| wire::summary(container)).collect() })
}
