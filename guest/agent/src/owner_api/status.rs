//! Errors as gRPC statuses. The owner gets the whole chain of causes: it is the owner's pod.

use std::error::Error;

use postern_api::convert::ConvertError;
use postern_container::{Failure, FailureKind};
use postern_policy::{Denial, Reason};
use tonic::{Code, Status};

use crate::pod::PodError;

/// Longest text of a status; gRPC carries it in a header.
const MAX_TEXT: usize = 4096;
/// Metadata key of the exit code of a process that could not be started.
const EXIT_METADATA: &str = "postern-exit";

/// This layer's fact and every cause below it.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let fact = error.to_string();
        // Some libraries put their cause into their own text.
        if !text.ends_with(&fact) {
            text.push_str(": ");
            text.push_str(&fact);
        }
        cause = error.source();
    }
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    text
}

/// The request is not one that can be carried out.
pub(super) fn invalid(error: &(dyn Error + 'static)) -> Status {
    Status::invalid_argument(chain(error))
}

pub(super) fn bad_field(error: ConvertError) -> Status {
    invalid(&error)
}

pub(super) fn missing(field: &'static str) -> Status {
    bad_field(ConvertError::Missing { field })
}

pub(super) fn denied(denial: &Denial) -> Status {
    let code = match denial.reason() {
        Reason::Phase { .. } => Code::FailedPrecondition,
        Reason::Role { .. } | Reason::HostNever | Reason::OwnerNever | Reason::NotDeclared => {
            Code::PermissionDenied
        }
    };
    Status::new(code, chain(denial))
}

pub(super) fn pod(error: PodError) -> Status {
    let code = match &error {
        PodError::Denied(denial) => return denied(denial),
        PodError::NoSuchHostId(_) | PodError::NoSuchContainer(_) | PodError::NoSuchImage { .. } => {
            Code::NotFound
        }
        PodError::Exists(_) | PodError::HostIdTaken => Code::AlreadyExists,
        PodError::SandboxConfigured | PodError::WrongState { .. } => Code::FailedPrecondition,
        PodError::Busy { .. } => Code::Aborted,
        PodError::TooMany { .. } => Code::ResourceExhausted,
        PodError::Invalid(_) | PodError::BadSignal(_) => Code::InvalidArgument,
        PodError::Unkillable { .. } => Code::DeadlineExceeded,
        PodError::Port { .. } | PodError::Ended => Code::Unavailable,
        PodError::Failed { .. } | PodError::Undo { .. } => below(&error),
        PodError::WrongPermit { .. } => Code::Internal,
    };
    let mut status = Status::new(code, chain(&error));
    if let Some(code) = shell_code(&error) {
        // For callers that end with a process's code and got none: what a shell would have said.
        status.metadata_mut().insert(EXIT_METADATA, code.into());
    }
    status
}

/// The code of what a layer below the pod said.
fn below(error: &PodError) -> Code {
    match failure(error).map(|failure| failure.kind) {
        Some(FailureKind::CommandNotFound | FailureKind::Path) => Code::NotFound,
        Some(
            FailureKind::CommandNotExecutable
            | FailureKind::User
            | FailureKind::WorkingDirectory
            | FailureKind::Archive,
        ) => Code::InvalidArgument,
        Some(FailureKind::Limit | FailureKind::Space) => Code::ResourceExhausted,
        Some(FailureKind::Ended) => Code::FailedPrecondition,
        Some(FailureKind::System) | None => Code::Unknown,
    }
}

/// What a shell would exit with when `error` is about the command itself.
pub(super) fn shell_code(error: &PodError) -> Option<i32> {
    match failure(error)?.kind {
        FailureKind::CommandNotFound => Some(127),
        FailureKind::CommandNotExecutable => Some(126),
        FailureKind::User
        | FailureKind::WorkingDirectory
        | FailureKind::Limit
        | FailureKind::Path
        | FailureKind::Archive
        | FailureKind::Space
        | FailureKind::Ended
        | FailureKind::System => None,
    }
}

/// The container's own word on what went wrong, wherever it is in the chain.
fn failure<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Failure> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_owner_sees_the_whole_chain_once() {
        let error =
            PodError::Failed { doing: "unpacking a layer", source: io::Error::other("disk full").into() };
        let status = pod(error);
        assert_eq!(status.message(), "unpacking a layer failed: disk full");
        assert_eq!(status.code(), Code::Unknown);
    }
}
