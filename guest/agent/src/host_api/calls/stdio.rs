//! Stdio as the host sees it: always idle. No call here touches a stream, so a host neither reads the owner's bytes, nor
//! takes them away, nor learns when they flow; and a shim that copies output neither fails nor spins.

use postern_api::host;
use postern_model::{OperationKind, Verdict};
use postern_policy::Declared;

use super::{Admitted, Call, Status, container::Target, encoded, later, now};
use crate::pod::PodError;

/// ReadStdout, ReadStderr: nothing comes until the container ends, then end of file.
pub(super) fn read(call: &Call<'_>) -> Admitted {
    let target = Target::read(call.payload)?;
    let id = target.init(call)?;
    let _permit = call.gate.permit(OperationKind::StdioIdle, Declared::No)?;
    if target.number == 0 {
        return now(Verdict::Sanitised, &host::ReadStreamResponse::default());
    }
    let permit = call.gate.permit(OperationKind::WaitSanitised, Declared::No)?;
    let pod = call.gate.pod.clone();
    later(Verdict::Sanitised, async move {
        match pod.wait_sanitised(permit, &id).await {
            Ok(_) | Err(PodError::Ended | PodError::NoSuchHostId(_)) => {
                encoded(&host::ReadStreamResponse::default())
            }
            Err(error) => Err(Status::from(error)),
        }
    })
}

/// CloseStdin, TtyWinResize: done as far as the host can tell.
pub(super) fn ignore(call: &Call<'_>) -> Admitted {
    Target::read(call.payload)?.init(call)?;
    let _permit = call.gate.permit(OperationKind::StdioIdle, Declared::No)?;
    now(Verdict::Sanitised, &host::Empty {})
}
