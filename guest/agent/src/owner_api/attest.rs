//! `Pod.Attest`: fresh evidence over the caller's nonce and this TLS session's exporter.

use std::sync::Arc;

use postern_api::owner::{AttestRequest, AttestResponse, Evidence};
use postern_evidence::binding::{self, Purpose};
use postern_model::OperationKind;
use tonic::Status;

use super::{session::Session, status};

pub(super) async fn attest(session: &Session, request: AttestRequest) -> Result<AttestResponse, Status> {
    let nonce: [u8; 32] = request.nonce.try_into().map_err(|nonce: Vec<u8>| {
        Status::invalid_argument(format!("nonce has {} bytes, not 32", nonce.len()))
    })?;
    let _permit = session.permit(OperationKind::Attest)?;
    let report_data = binding::session(&nonce, &session.peer.exporter, Purpose::Verify);
    let source = Arc::clone(&session.shared.evidence);
    let evidence = tokio::task::spawn_blocking(move || source.evidence(&report_data)).await;
    match evidence {
        Ok(Ok(evidence)) => Ok(AttestResponse {
            evidence: Some(Evidence {
                tee: evidence.tee.as_str().to_owned(),
                report: evidence.report,
                certificates: evidence.certificates,
            }),
        }),
        Ok(Err(error)) => Err(Status::unavailable(status::chain(&error))),
        Err(_) => Err(Status::internal("the thread that asked the TEE for evidence ended early")),
    }
}
