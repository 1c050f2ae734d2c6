//! A gRPC status as a failure: what the guest said, or that the tunnel is gone. The one place where wire codes become exit
//! codes.

use std::error::Error;

use postern_api::metadata;
use tonic::{Code, Status};

use crate::{exit::Exit, failure::Failure};

/// What a request was about, for its errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) pod: &'a str,
    /// "start container web"
    pub(crate) doing: &'a str,
}

/// The failure that `status` means; `end` is why the tunnel ended, when it has.
pub(crate) fn failure(subject: Subject<'_>, status: &Status, end: Option<&str>) -> Failure {
    let Subject { pod, doing } = subject;
    if let Some(reason) = cut(status, end) {
        return cut_failure(subject, &reason);
    }
    let failure =
        Failure::new(exit(status), format!("cannot {doing}")).caused_by(status.message().to_owned());
    match status.code() {
        Code::PermissionDenied => {
            failure.hint("use an identity that may do this, for example `postern --as admin …`")
        }
        Code::Unimplemented => {
            failure.hint("the pod's agent is older than this program; create the pod anew")
        }
        Code::ResourceExhausted => {
            failure.hint(format!("`postern stats {pod}` and `postern image ls {pod}` show what holds memory"))
        }
        _ => failure,
    }
}

/// The tunnel has ended, for this reason.
pub(crate) fn cut_failure(subject: Subject<'_>, reason: &str) -> Failure {
    let Subject { pod, doing } = subject;
    Failure::new(Exit::Unreachable, format!("cannot {doing}"))
        .caused_by(format!("the tunnel to pod {pod} was cut: {reason}"))
        .hint(format!("`postern pod verify {pod}` tells whether the pod still answers"))
}

fn exit(status: &Status) -> Exit {
    let told = |key| status.metadata().get(key).map(|value| value.as_bytes());
    match (told(metadata::EXIT), status.code()) {
        (Some(b"126"), _) => Exit::CannotExecute,
        (Some(b"127"), _) => Exit::CommandNotFound,
        // Whatever the word is: policy refused.
        _ if told(metadata::REFUSED).is_some() => Exit::Denied,
        (_, Code::NotFound) => Exit::NotFound,
        (_, Code::PermissionDenied | Code::Unauthenticated) => Exit::Denied,
        (_, Code::ResourceExhausted) => Exit::NoRoom,
        (_, Code::DeadlineExceeded | Code::Unavailable) => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

/// Why there was no answer at all. A status that the guest sent has no source; one that was made here has.
fn cut(status: &Status, end: Option<&str>) -> Option<String> {
    let source = status.source()?;
    if let Some(end) = end {
        return Some(end.to_owned());
    }
    let mut root: &dyn Error = source;
    while let Some(next) = root.source() {
        root = next;
    }
    Some(root.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'_> = Subject { pod: "demo", doing: "start container web" };

    fn exit_of(status: Status) -> Exit {
        failure(SUBJECT, &status, None).exit()
    }

    #[test]
    fn codes_become_exit_codes() {
        assert_eq!(exit_of(Status::not_found("x")), Exit::NotFound);
        assert_eq!(exit_of(Status::permission_denied("x")), Exit::Denied);
        assert_eq!(exit_of(Status::failed_precondition("not in this phase")), Exit::Failed);
        let mut phase = Status::failed_precondition("x");
        phase.metadata_mut().insert(metadata::REFUSED, metadata::REFUSED_PHASE.parse().unwrap());
        assert_eq!(exit_of(phase), Exit::Denied);
        assert_eq!(exit_of(Status::resource_exhausted("x")), Exit::NoRoom);
        assert_eq!(exit_of(Status::unknown("x")), Exit::Failed);
        let mut missing = Status::not_found("no such file");
        missing.metadata_mut().insert(metadata::EXIT, "127".parse().unwrap());
        assert_eq!(exit_of(missing), Exit::CommandNotFound);
    }

    #[test]
    fn a_cut_tunnel_is_told_from_an_answer() {
        let cut = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        let failure = failure(SUBJECT, &cut, Some("connection reset"));
        assert_eq!(failure.exit(), Exit::Unreachable);
        assert_eq!(
            failure.to_string(),
            "cannot start container web: the tunnel to pod demo was cut: connection reset"
        );
    }
}
