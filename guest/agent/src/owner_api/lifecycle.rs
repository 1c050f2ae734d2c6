//! `Containers.Start`, `Stop`, `Kill`, `Remove`, `Pause`, `Unpause`: one name in, done or an error out.

use std::time::Duration;

use postern_api::owner::{
    KillRequest, KillResponse, PauseRequest, PauseResponse, RemoveRequest, RemoveResponse, StartRequest,
    StartResponse, StopRequest, StopResponse, UnpauseRequest, UnpauseResponse,
};
use postern_model::OperationKind;
use tonic::Status;

use super::{
    session::{Session, container},
    status, wire,
};
use crate::pod::Removal;

/// Longest grace that is accepted; beyond it one may as well kill later.
const MAX_GRACE: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn start(session: &Session, request: StartRequest) -> Result<StartResponse, Status> {
    let name = container(request.container)?;
    let permit = session.permit(OperationKind::StartContainer)?;
    session.pod().start_container(permit, &name).await.map_err(status::pod)?;
    Ok(StartResponse {})
}

pub(super) async fn stop(session: &Session, request: StopRequest) -> Result<StopResponse, Status> {
    let name = container(request.container)?;
    let grace = Duration::from_millis(request.grace_millis).min(MAX_GRACE);
    let permit = session.permit(OperationKind::StopContainer)?;
    let exit = session.pod().stop(permit, &name, grace).await.map_err(status::pod)?;
    Ok(StopResponse { exit: Some(wire::exit(exit)) })
}

pub(super) async fn kill(session: &Session, request: KillRequest) -> Result<KillResponse, Status> {
    let name = container(request.container)?;
    let permit = session.permit(OperationKind::KillContainer)?;
    session.pod().kill(permit, &name, request.signal).await.map_err(status::pod)?;
    Ok(KillResponse {})
}

pub(super) async fn remove(session: &Session, request: RemoveRequest) -> Result<RemoveResponse, Status> {
    let name = container(request.container)?;
    let removal = if request.force { Removal::KillFirst } else { Removal::OnlyEnded };
    let permit = session.permit(OperationKind::RemoveContainer)?;
    session.pod().remove(permit, &name, removal).await.map_err(status::pod)?;
    Ok(RemoveResponse {})
}

pub(super) async fn pause(session: &Session, request: PauseRequest) -> Result<PauseResponse, Status> {
    let name = container(request.container)?;
    let permit = session.permit(OperationKind::PauseContainer)?;
    session.pod().pause(permit, &name).await.map_err(status::pod)?;
    Ok(PauseResponse {})
}

pub(super) async fn unpause(session: &Session, request: UnpauseRequest) -> Result<UnpauseResponse, Status> {
    let name = container(request.container)?;
    let permit = session.permit(OperationKind::UnpauseContainer)?;
    session.pod().unpause(permit, &name).await.map_err(status::pod)?;
    Ok(UnpauseResponse {})
}
