//! The gate: every call of the host passes here, is decided, and is in the audit before anything happens.
//!
//! A method that the table or the policy refuses in this phase is answered without its body having been looked at and
//! without a lock of the pod having been taken.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use postern_api::ttrpc::Envelope;
use postern_model::{Caller, OperationKind, Phase, Sha256, Verdict};
use postern_policy::{Declared, Permit, decide};

use super::{
    HostParts,
    calls::{self, Admission, Call, Refusal, Session},
    sanitise::Sanitiser,
    server::{Broken, Incoming, LaterAnswer, Reply, Service},
    status::Status,
    table::{self, Class, Lookup, Method},
};
use crate::{
    audit::{Audit, AuditedCall},
    pod::{HostId, PodHandle},
};

/// How many ids of removed containers are remembered, so that removing one again succeeds.
const REMEMBERED: usize = 64;

/// Everything a call of the host can reach.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) pod: PodHandle,
    pub(super) network: calls::HostNetwork,
    pub(super) sanitiser: Sanitiser,
    audit: Audit,
    removed: Mutex<VecDeque<HostId>>,
}

impl Gate {
    pub(super) fn new(parts: HostParts) -> Self {
        Self {
            pod: parts.pod,
            network: calls::HostNetwork::new(parts.network),
            sanitiser: Sanitiser::new(),
            audit: parts.audit,
            removed: Mutex::default(),
        }
    }

    /// Asks the policy on the host's behalf.
    pub(super) fn permit(&self, operation: OperationKind, declared: Declared) -> Result<Permit, Status> {
        decide(Caller::Host, operation, self.pod.phase(), declared).map_err(|_| refusal(operation))
    }

    pub(super) fn remember_removed(&self, id: HostId) {
        let mut removed = self.removed();
        if removed.len() == REMEMBERED {
            removed.pop_front();
        }
        removed.push_back(id);
    }

    pub(super) fn was_removed(&self, id: &HostId) -> bool {
        self.removed().contains(id)
    }

    fn removed(&self) -> MutexGuard<'_, VecDeque<HostId>> {
        // A queue of ids is whole after any panic.
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(
        self: &Arc<Self>,
        session: &Arc<Session>,
        (envelope, whole): (Envelope<'_>, bool),
        phase: Phase,
        digest: Sha256,
    ) -> Reply {
        let unknown = |status| {
            let method = format!("{}/{}", envelope.service, envelope.method);
            self.record(&method, phase, Verdict::Unknown, digest);
            Reply::Now(Err(status))
        };
        let entry = match table::look_up(envelope.service, envelope.method) {
            Lookup::Known(entry) => entry,
            Lookup::UnknownMethod => return unknown(Status::UNKNOWN_METHOD),
            Lookup::UnknownService => return unknown(Status::UNKNOWN_SERVICE),
        };
        let admission = match (entry.class, whole) {
            (Class::Never, _) => Err(Status::REFUSED.into()),
            (Class::Served(method), whole) => {
                possible(method, phase).map_err(Refusal::from).and_then(|()| match whole {
                    true => calls::admit(&Call { gate: self, session, method, payload: envelope.payload }),
                    false => Err(Status::TOO_LARGE.into()),
                })
            }
        };
        match admission {
            Err(refusal) => {
                self.record(entry.name, phase, refusal.verdict, digest);
                Reply::Now(Err(refusal.status))
            }
            Ok(Admission { verdict, reply }) => {
                self.record(entry.name, phase, verdict, digest);
                match reply {
                    Reply::Now(answer) => Reply::Now(answer),
                    Reply::Later(answer) => Reply::Later(self.clone().watched(entry.name, digest, answer)),
                }
            }
        }
    }

    /// A refusal that only showed in the doing (the phase moved on, two raced) goes into the audit as well.
    fn watched(self: Arc<Self>, name: &'static str, digest: Sha256, answer: LaterAnswer) -> LaterAnswer {
        Box::pin(async move {
            let answer = answer.await;
            if answer.as_ref().is_err_and(|status| status.is_refusal()) {
                self.record(name, self.pod.phase(), Verdict::Refused, digest);
            }
            answer
        })
    }

    fn record(&self, method: &str, phase: Phase, verdict: Verdict, request_digest: Sha256) {
        self.audit.record(AuditedCall { method, phase, verdict, request_digest });
    }
}

impl Service for Gate {
    type Session = Session;

    fn open(&self) -> Session {
        Session::default()
    }

    fn call(self: &Arc<Self>, session: &Arc<Session>, incoming: Incoming<'_>, digest: Sha256) -> Reply {
        let phase = self.pod.phase();
        match incoming {
            Incoming::Request(envelope) => self.request(session, (envelope, true), phase, digest),
            Incoming::Beginning(envelope) => self.request(session, (envelope, false), phase, digest),
            Incoming::Broken(broken) => {
                self.record(name_of(broken), phase, Verdict::Unknown, digest);
                Reply::Now(Err(broken.status()))
            }
        }
    }

    fn may_be_large(&self, service: &str, method: &str) -> bool {
        table::may_be_large(service, method)
    }

    fn turned_away(&self) {
        self.record("(one connection too many)", self.pod.phase(), Verdict::Refused, Sha256::new([0; 32]));
    }
}

/// Whether the policy could grant any of the operations that `method` may come to, its body aside.
fn possible(method: Method, phase: Phase) -> Result<(), Status> {
    let grantable =
        |&&operation: &&OperationKind| decide(Caller::Host, operation, phase, Declared::Yes).is_ok();
    match method.operations().iter().find(grantable) {
        Some(_) => Ok(()),
        None => Err(method.operations().first().map_or(Status::REFUSED, |&operation| refusal(operation))),
    }
}

/// Only a second CreateSandbox is told apart: shims that retry one expect to hear that there is one.
fn refusal(operation: OperationKind) -> Status {
    if operation == OperationKind::CreateSandbox { Status::CONFIGURED } else { Status::REFUSED }
}

/// How something that is no request is called in the audit. Brackets keep it apart from anything a host can send.
fn name_of(broken: Broken) -> &'static str {
    match broken {
        Broken::TooLong => "(frame over 4 MiB)",
        Broken::NotARequest => "(frame that is no request)",
        Broken::BadStream => "(bad stream id)",
        Broken::Unreadable => "(unreadable request)",
        Broken::Crowded => "(one call too many)",
    }
}
