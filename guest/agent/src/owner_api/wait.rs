//! `Containers.Wait`: any number of callers, none of them reaps.

use postern_api::owner::{WaitRequest, WaitResponse};
use postern_model::OperationKind;
use tonic::Status;

use super::{
    session::{Session, container},
    status, wire,
};

pub(super) async fn wait(session: &Session, request: WaitRequest) -> Result<WaitResponse, Status> {
    let name = container(request.container)?;
    let permit = session.permit(OperationKind::WaitContainer)?;
    let exit = session.pod().wait(permit, &name).await.map_err(status::pod)?;
    Ok(WaitResponse { exit: Some(wire::exit(exit)) })
}
