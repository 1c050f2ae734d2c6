//! `Pod.Audit`: every host call and its verdict.

use futures_util::stream;
use postern_api::owner::{AuditRecord, AuditRequest};
use postern_model::OperationKind;
use tonic::Status;

use super::{service::Answers, session::Session};
use crate::audit::{AuditEntry, Follow};

pub(super) fn audit(session: &Session, request: AuditRequest) -> Result<Answers<AuditRecord>, Status> {
    let _permit = session.permit(OperationKind::ReadAudit)?;
    let follow = if request.follow { Follow::Yes } else { Follow::No };
    let reader = session.shared.audit.subscribe(request.from, follow);
    Ok(Box::pin(stream::unfold(reader, |mut reader| async move {
        let entry = reader.next().await?;
        Some((Ok(record(entry)), reader))
    })))
}

fn record(entry: AuditEntry) -> AuditRecord {
    let AuditEntry { record, dropped_before } = entry;
    AuditRecord {
        sequence: record.sequence,
        unix_millis: record.unix_millis,
        method: record.method,
        phase: record.phase.as_str().to_owned(),
        verdict: record.verdict.as_str().to_owned(),
        request_digest: record.request_digest.to_string(),
        repeated: record.repeated,
        dropped_before,
    }
}
