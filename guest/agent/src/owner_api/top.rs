//! `Containers.Top`.

use postern_api::owner::{TopRequest, TopResponse};
use postern_model::OperationKind;
use tonic::Status;

use super::{
    session::{Session, container},
    status, wire,
};

pub(super) async fn top(session: &Session, request: TopRequest) -> Result<TopResponse, Status> {
    let name = container(request.container)?;
    let permit = session.permit(OperationKind::Top)?;
    let processes = session.pod().top(permit, &name).await.map_err(status::pod)?;
    Ok(TopResponse { processes: processes.into_iter().map(wire::process).collect() })
}
