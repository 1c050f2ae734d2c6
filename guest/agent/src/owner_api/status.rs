//! Errors as gRPC statuses. The owner gets the whole chain of causes: it is the owner's pod.

use std::error::Error;

use postern_api::convert::ConvertError;
use postern_container::{Failure, FailureKind};
use postern_policy::{Denial, Reason};
use postern_rootfs::{
    ArchiveError, LayerError, ManifestError, RemoveError, RequestError, ResolveError, StoreError,
};
use tonic::{Code, Status, metadata::MetadataValue};

use crate::pod::PodError;

/// Set when a process could not be run: what a shell would return, 126 or 127.
const EXIT_METADATA: &str = "postern-exit";
/// Longest text of a status; gRPC carries it in a header.
const MAX_TEXT: usize = 4096;

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
        PodError::NoSuchHostId(_) | PodError::NoSuchContainer(_) => Code::NotFound,
        PodError::Exists(_) | PodError::HostIdTaken => Code::AlreadyExists,
        PodError::SandboxConfigured | PodError::WrongState { .. } | PodError::Port { .. } => {
            Code::FailedPrecondition
        }
        PodError::Busy { .. } | PodError::Unkillable { .. } => Code::Aborted,
        PodError::TooMany { .. } => Code::ResourceExhausted,
        PodError::Invalid(_) | PodError::BadSignal(_) => Code::InvalidArgument,
        PodError::Ended => Code::Unavailable,
        PodError::Image(error) => unresolved(error),
        PodError::RemoveImage(RemoveError::Resolve(error)) => unresolved(error),
        PodError::RemoveImage(RemoveError::InUse { .. }) => Code::FailedPrecondition,
        PodError::RemoveImage(RemoveError::Index(_) | RemoveError::Stopped) => Code::Unknown,
        PodError::Failed { .. } | PodError::Undo { .. } => links(&error)
            .find_map(process_code)
            .or_else(|| links(&error).find_map(image_code))
            .unwrap_or(Code::Unknown),
        PodError::WrongPermit { .. } => Code::Internal,
    };
    let mut status = Status::new(code, chain(&error));
    if let Some(exit) = links(&error).find_map(shell_code) {
        status.metadata_mut().insert(EXIT_METADATA, MetadataValue::from(exit));
    }
    status
}

/// The error and its causes.
fn links<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What the container's own side said.
fn process_code(error: &(dyn Error + 'static)) -> Option<Code> {
    Some(match error.downcast_ref::<Failure>()?.kind {
        FailureKind::CommandNotFound | FailureKind::Path => Code::NotFound,
        FailureKind::CommandNotExecutable
        | FailureKind::User
        | FailureKind::WorkingDirectory
        | FailureKind::Archive => Code::InvalidArgument,
        FailureKind::Limit | FailureKind::Space => Code::ResourceExhausted,
        FailureKind::Ended => Code::FailedPrecondition,
        FailureKind::System => Code::Unknown,
    })
}

/// What a shell returns when it cannot run a command.
fn shell_code(error: &(dyn Error + 'static)) -> Option<u32> {
    match error.downcast_ref::<Failure>()?.kind {
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

/// What the registry, the archive or the store said.
fn image_code(error: &(dyn Error + 'static)) -> Option<Code> {
    if error.is::<ArchiveError>() || error.is::<LayerError>() || error.is::<ManifestError>() {
        return Some(Code::InvalidArgument);
    }
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(RequestError::NotFound { .. }), _) => Some(Code::NotFound),
        (Some(RequestError::Auth { .. }), _) => Some(Code::Unauthenticated),
        (_, Some(StoreError::Busy | StoreError::TooManyImages(_))) => Some(Code::ResourceExhausted),
        _ => None,
    }
}

fn unresolved(error: &ResolveError) -> Code {
    match error {
        ResolveError::Unknown(_) => Code::NotFound,
        ResolveError::Ambiguous(_) | ResolveError::Malformed(_) => Code::InvalidArgument,
    }
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
