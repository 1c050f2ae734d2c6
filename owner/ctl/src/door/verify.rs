//! From an endpoint to a verified guest: what the owner expects of a pod, held against what answers there.

use postern_evidence::{Check, ReferenceValues};
use postern_tunnel::{
    Attested, ClientIdentity, ClientStream, ConnectError, Expectation, ExpectedInstance, InstanceKey,
    client::CheckFailure,
};

use super::{
    Owner,
    endpoint::{DialError, Endpoint, Wire},
};
use crate::{
    exit::Exit,
    failure::{Failure, OrFail},
    identity,
    record::PodRecord,
    trust::{Simulated, TrustStore},
};

/// A stream to a guest that passed every check.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) stream: ClientStream<Wire>,
    pub(crate) attested: Attested,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Everything that has to be known before the first byte is sent.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) endpoint: Endpoint,
    pub(crate) identity: ClientIdentity,
    pub(crate) expectation: Expectation,
}

impl Plan {
    /// What the owner's own files say about a pod. Nothing of it comes from the host.
    pub(crate) fn new(owner: &Owner, record: &PodRecord) -> Result<Self, Failure> {
        let name = &record.name;
        let endpoint =
            record.endpoint.parse().or_fail(|| format!("the record of pod {name} cannot be used"))?;
        let trust = TrustStore::load(&owner.home)?;
        let measurements = match record.measurements.is_empty() {
            true => trust.measurements(),
            false => record.measurements.clone(),
        };
        if measurements.is_empty() {
            return Err(Failure::new(Exit::NotVerified, format!("pod {name} cannot be verified"))
                .caused_by("there is no reference value for its measurement")
                .hint("`postern trust add --image-dir DIR` adds one"));
        }
        let instance = match &record.instance {
            None => ExpectedInstance::FirstContact,
            Some(key) => {
                let key: InstanceKey =
                    key.parse().or_fail(|| format!("the record of pod {name} cannot be used"))?;
                ExpectedInstance::Same(key)
            }
        };
        let expectation = Expectation {
            roots: trust.roots(Simulated::accepted(record.accepts_simulated))?,
            reference_values: ReferenceValues {
                measurements,
                host_data: record.host_data,
                minimum_tcb: owner.config.minimum_tcb,
            },
            instance,
            now: identity::now(),
        };
        Ok(Self { endpoint, identity: identity::client(&owner.home, owner.role)?, expectation })
    }

    /// Dials and verifies. Every step has its deadline.
    pub(crate) async fn carry_out(&self) -> Result<Verified, VerifyError> {
        let wire = self.endpoint.dial().await?;
        let (stream, attested) = postern_tunnel::connect(wire, &self.identity, &self.expectation).await?;
        Ok(Verified { stream, attested })
    }
}

impl VerifyError {
    /// The check that failed, if it was one.
    pub(crate) fn check_failure(&self) -> Option<&CheckFailure> {
        match self {
            Self::Connect(ConnectError::Check(failure)) => Some(failure),
            Self::Connect(_) | Self::Dial(_) => None,
        }
    }

    pub(crate) fn into_failure(self, record: &PodRecord) -> Failure {
        let name = &record.name;
        match self {
            Self::Dial(error) => Failure::new(
                Exit::Unreachable,
                format!("cannot reach pod {name} at {}", record.endpoint),
            )
            .caused_by(error)
            .hint(format!(
                "`postern pod inspect {name}` says whether it runs, `postern pod rm {name}` forgets it"
            )),
            Self::Connect(ConnectError::Check(failure)) => {
                let check = failure.check();
                Failure::new(
                    Exit::NotVerified,
                    format!("pod {name} is not verified, so nothing was sent to it"),
                )
                .caused_by(CheckText { check, failure })
                .hint(hint(check, name.as_str()))
            }
            Self::Connect(error @ ConnectError::Refused(_)) => {
                Failure::new(Exit::Denied, format!("cannot enter pod {name}")).caused_by(error).hint(
                    "the pod obeys the identity it was created with; see XDG_CONFIG_HOME and `postern init`",
                )
            }
            Self::Connect(error) => {
                Failure::new(Exit::Unreachable, format!("no tunnel to pod {name} at {}", record.endpoint))
                    .caused_by(error)
                    .hint("a pod that is still booting answers later; otherwise something else listens there")
            }
        }
    }
}

/// A failed check by its name, before what was found.
#[derive(Debug)]
struct CheckText {
    check: Check,
    failure: CheckFailure,
}

impl std::fmt::Display for CheckText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.check)
    }
}

impl std::error::Error for CheckText {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}

/// What an owner can do about a failed check.
pub(crate) fn hint(check: Check, pod: &str) -> String {
    match check {
        Check::VendorChain => {
            "no trusted root signs for this platform; a simulated one is accepted per pod with \
             --accept-risk=simulated-tee at `pod create` or `pod add`"
                .into()
        }
        Check::Tcb => {
            "the platform allows debugging or its firmware is older than minimum_tcb in config.toml".into()
        }
        Check::Measurement => {
            "something else was launched than what you expect: another kernel, initramfs, command \
             line or shape; do not use this pod"
                .into()
        }
        Check::HostData => format!("pod {pod} was launched with other init data than yours; do not use it"),
        Check::KeyBinding | Check::SessionBinding => {
            "somebody between you and the pod answers in its place; do not use this connection".into()
        }
        Check::Instance => {
            format!(
                "if the pod was started anew on purpose, `postern pod rm {pod}` and create or add it again"
            )
        }
    }
}
