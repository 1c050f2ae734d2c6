//! What the host is told when the answer is no: a code and a constant text.
//!
//! Texts are `&'static str`, so that nothing of a request, an error chain or the owner can get into one.

use crate::pod::PodError;

/// The `google.rpc.Code`s in use (googleapis, google/rpc/code.proto).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// A failure as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) text: &'static str,
}

/// What a call comes to: an encoded message, or a status.
pub(crate) type Answer = Result<Vec<u8>, Status>;

impl Status {
    /// The one answer to everything that the host may not ask.
    pub(crate) const REFUSED: Self = Self::new(Code::PermissionDenied, "not permitted");
    pub(crate) const CONFIGURED: Self =
        Self::new(Code::FailedPrecondition, "the sandbox is configured already");
    pub(crate) const UNKNOWN_METHOD: Self = Self::new(Code::Unimplemented, "unknown method");
    pub(crate) const UNKNOWN_SERVICE: Self = Self::new(Code::InvalidArgument, "unknown service");
    pub(crate) const TOO_LARGE: Self = Self::new(Code::InvalidArgument, "request is too large");
    pub(crate) const MALFORMED: Self = Self::new(Code::InvalidArgument, "malformed request");
    pub(crate) const NOT_A_REQUEST: Self = Self::new(Code::InvalidArgument, "not a request frame");
    pub(crate) const BAD_STREAM: Self = Self::new(Code::InvalidArgument, "stream id is even or still in use");
    pub(crate) const CROWDED: Self =
        Self::new(Code::ResourceExhausted, "too many calls at once on this connection");
    pub(crate) const TIMED_OUT: Self = Self::new(Code::DeadlineExceeded, "timeout_nano has passed");
    pub(crate) const NO_CONTAINER: Self = Self::new(Code::InvalidArgument, "no such container");
    /// Kata answers some calls for an unknown container with INTERNAL, and its shims know it.
    pub(crate) const NO_CONTAINER_INTERNAL: Self = Self::new(Code::Internal, "no such container");
    pub(crate) const NO_PROCESS: Self = Self::new(Code::NotFound, "no such process");
    pub(crate) const EXISTS: Self = Self::new(Code::AlreadyExists, "container already exists");
    pub(crate) const NOT_NOW: Self =
        Self::new(Code::FailedPrecondition, "not possible in the container's present state");
    pub(crate) const EXHAUSTED: Self = Self::new(Code::ResourceExhausted, "a limit of the guest is reached");
    pub(crate) const ENDED: Self = Self::new(Code::Unavailable, "the pod has ended");
    pub(crate) const INTERNAL: Self = Self::new(Code::Internal, "the guest could not do it");

    pub(crate) const fn new(code: Code, text: &'static str) -> Self {
        Self { code, text }
    }

    /// A field that a check did not let through.
    pub(crate) const fn invalid(text: &'static str) -> Self {
        Self::new(Code::InvalidArgument, text)
    }

    /// Whether this says that the host asked for something it may not have.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(self.code, Code::PermissionDenied | Code::FailedPrecondition)
    }
}

impl From<PodError> for Status {
    fn from(error: PodError) -> Self {
        match error {
            PodError::Denied(_) => Self::REFUSED,
            PodError::NoSuchHostId(_) | PodError::NoSuchContainer(_) => Self::NO_CONTAINER,
            PodError::Exists(_) | PodError::HostIdTaken => Self::EXISTS,
            PodError::SandboxConfigured => Self::CONFIGURED,
            PodError::WrongState { .. } | PodError::Busy { .. } => Self::NOT_NOW,
            PodError::TooMany { .. } => Self::EXHAUSTED,
            PodError::Ended => Self::ENDED,
            // Causes are the owner's to read.
            _ => Self::INTERNAL,
        }
    }
}
