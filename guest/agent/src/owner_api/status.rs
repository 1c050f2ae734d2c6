//! Errors as gRPC statuses. The owner gets the whole chain of causes: it is the owner's pod.

use std::{error::Error, io};

use postern_api::{convert::ConvertError, metadata};
use postern_container::{Failure, FailureKind};
use postern_policy::{Denial, Reason};
use postern_rootfs::{
    ArchiveError, LayerError, ManifestError, NoSpace, PrepareError, RemoveError, RequestError, ResolveError,
    StoreError,
};
use rustix::io::Errno;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::pod::PodError;

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
    let (code, refused) = match denial.reason() {
        Reason::Phase { .. } => (Code::FailedPrecondition, metadata::REFUSED_PHASE),
        Reason::Role { .. } | Reason::HostNever | Reason::OwnerNever | Reason::NotDeclared => {
            (Code::PermissionDenied, metadata::REFUSED_ROLE)
        }
    };
    let mut status = Status::new(code, chain(denial));
    status.metadata_mut().insert(metadata::REFUSED, MetadataValue::from_static(refused));
    status
}

pub(super) fn pod(error: PodError) -> Status {
    let code = match &error {
        PodError::Denied(denial) => return denied(denial),
        PodError::NoSuchHostId(_) | PodError::NoSuchContainer(_) => Code::NotFound,
        PodError::Exists(_) | PodError::HostIdTaken => Code::AlreadyExists,
        PodError::KernelLacks(_)
        | PodError::SandboxConfigured
        | PodError::WrongState { .. }
        | PodError::Port { .. } => Code::FailedPrecondition,
        PodError::Busy { .. } | PodError::Unkillable { .. } => Code::Aborted,
        PodError::TooMany { .. } => Code::ResourceExhausted,
        PodError::Invalid(_) | PodError::BadSignal(_) => Code::InvalidArgument,
        PodError::Ended => Code::Unavailable,
        PodError::Image(error) => unresolved(error),
        PodError::RemoveImage(RemoveError::Resolve(error)) => unresolved(error),
        PodError::RemoveImage(RemoveError::InUse { .. }) => Code::FailedPrecondition,
        PodError::RemoveImage(RemoveError::Index(_) | RemoveError::Stopped) => Code::Unknown,
        PodError::Failed { .. } | PodError::Undo { .. } => links(&error)
            .any(is_no_space)
            .then_some(Code::ResourceExhausted)
            .or_else(|| links(&error).find_map(process_code))
            .or_else(|| links(&error).find_map(image_code))
            .unwrap_or(Code::Unknown),
        PodError::WrongPermit { .. } => Code::Internal,
    };
    let mut status = Status::new(code, chain(&error));
    if let Some(exit) = links(&error).find_map(shell_code) {
        status.metadata_mut().insert(metadata::EXIT, MetadataValue::from(exit));
    }
    status
}

/// The error and its causes.
fn links<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Whether the pod has no room for what was wanted, whichever layer noticed.
fn is_no_space(error: &(dyn Error + 'static)) -> bool {
    let full = |errno: Errno| [Errno::NOSPC, Errno::DQUOT, Errno::NOMEM].contains(&errno);
    let by_errno = match error.downcast_ref() {
        Some(PrepareError::Directory { errno, .. } | PrepareError::Mount { errno, .. }) => full(*errno),
        Some(PrepareError::NoImage(_) | PrepareError::Exists(_) | PrepareError::Stopped) | None => false,
    };
    by_errno
        || error.is::<NoSpace>()
        || error.downcast_ref().copied().is_some_and(full)
        || error.downcast_ref::<io::Error>().is_some_and(|error| {
            use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
            matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory)
        })
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
    use postern_model::{Caller, OperationKind, Phase, Role};
    use postern_policy::{Declared, decide};

    use super::*;

    #[test]
    fn a_refusal_says_whether_it_is_of_the_phase_or_of_the_role() {
        let refused = |role, phase| {
            let denial = decide(Caller::Owner(role), OperationKind::Exec, phase, Declared::No).unwrap_err();
            let status = pod(PodError::Denied(denial));
            (status.code(), status.metadata().get(metadata::REFUSED).unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(refused(Role::Admin, Phase::Ready), (Code::FailedPrecondition, "phase".into()));
        assert_eq!(refused(Role::Viewer, Phase::Owned), (Code::PermissionDenied, "role".into()));
    }

    #[test]
    fn whatever_layer_notices_it_no_space_is_no_space() {
        let code = |source: Box<dyn Error + Send + Sync>| {
            let source = PodError::Failed { doing: "pulling the image", source };
            pod(PodError::Undo { error: Box::new(source), undo: "x".into() }).code()
        };
        let layer = postern_rootfs::UnpackError::from(NoSpace::Limit { limit: 1 });
        let layer = postern_rootfs::PullError::Layer { index: 1, count: 2, source: LayerError::from(layer) };
        let container = "web".parse().unwrap();
        let rootfs = PrepareError::Directory { container, errno: Errno::NOSPC };
        let full: [Box<dyn Error + Send + Sync>; 4] = [
            Box::new(layer),
            Box::new(rootfs),
            Box::new(io::Error::from(io::ErrorKind::StorageFull)),
            Box::new(io::Error::from(Errno::NOSPC)),
        ];
        for source in full {
            let text = source.to_string();
            assert_eq!(code(source), Code::ResourceExhausted, "{text}");
        }
        assert_eq!(code(Box::new(io::Error::from(Errno::IO))), Code::Unknown);
        assert_eq!(code(Box::new(LayerError::CutOff)), Code::InvalidArgument);
    }

    #[test]
    fn the_owner_sees_the_whole_chain_once() {
        let error =
            PodError::Failed { doing: "unpacking a layer", source: io::Error::other("disk full").into() };
        let status = pod(error);
        assert_eq!(status.message(), "unpacking a layer failed: disk full");
        assert_eq!(status.code(), Code::Unknown);
    }
}
