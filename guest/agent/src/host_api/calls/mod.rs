//! What is left for the host to do, one function per method: read and check the body, take a permit, say what to do.
//!
//! Nothing here acts. A call is admitted with the work still to be done ([`Reply::Later`]), so that it is in the audit
//! first. What the host supplied goes through a named check before anything else sees it.

mod container;
mod network;
mod observe;
mod sandbox;
mod stdio;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use postern_model::Verdict;
use prost::Message;

pub(super) use self::network::HostNetwork;
use super::{
    gate::Gate,
    server::{LaterAnswer, Reply},
    status::{Answer, Status},
    table::Method,
};
use crate::pod::{HostId, OomEvents};

/// What belongs to one connection of the host.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Its own copy of out-of-memory events, taken at the first call.
    oom: Arc<tokio::sync::Mutex<Option<OomEvents>>>,
    /// How many calls wait for the end of each container.
    waiters: Mutex<HashMap<HostId, usize>>,
}

/// One call, past the table and possible in this phase.
pub(super) struct Call<'a> {
    pub(super) gate: &'a Arc<Gate>,
    pub(super) session: &'a Arc<Session>,
    pub(super) method: Method,
    pub(super) payload: &'a [u8],
}

/// A call that will be answered.
pub(super) struct Admission {
    pub(super) verdict: Verdict,
    pub(super) reply: Reply,
}

/// A call that will not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub(super) verdict: Verdict,
    pub(super) status: Status,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { verdict: Verdict::Refused, status }
    }
}

pub(super) type Admitted = Result<Admission, Refusal>;

/// Checks the body of a call and says what to do.
pub(super) fn admit(call: &Call<'_>) -> Admitted {
    match call.method {
        Method::Check => observe::check(),
        Method::Version => observe::version(),
        Method::CreateSandbox => sandbox::create(call),
        Method::DestroySandbox => sandbox::destroy(call),
        Method::OnlineCpuMem => sandbox::online(call),
        Method::GetGuestDetails => observe::guest_details(call),
        Method::GetMetrics => observe::metrics(call),
        Method::GetOomEvent => observe::oom_event(call),
        Method::UpdateInterface => network::update_interface(call),
        Method::UpdateRoutes => network::update_routes(call),
        Method::AddArpNeighbors => network::add_neighbors(call),
        Method::ListInterfaces => network::list_interfaces(call),
        Method::ListRoutes => network::list_routes(call),
        Method::CreateContainer => container::create(call),
        Method::StartContainer => container::start(call),
        Method::RemoveContainer => container::remove(call),
        Method::SignalProcess => container::signal(call),
        Method::WaitProcess => container::wait(call),
        Method::StatsContainer => observe::stats(call),
        Method::ReadStdout | Method::ReadStderr => stdio::read(call),
        Method::CloseStdin | Method::TtyWinResize => stdio::ignore(call),
    }
}

fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(|_| Status::MALFORMED)
}

fn now(verdict: Verdict, answer: &impl Message) -> Admitted {
    Ok(Admission { verdict, reply: Reply::Now(Ok(answer.encode_to_vec())) })
}

fn later(verdict: Verdict, work: impl Future<Output = Answer> + Send + 'static) -> Admitted {
    let work: LaterAnswer = Box::pin(work);
    Ok(Admission { verdict, reply: Reply::Later(work) })
}

fn encoded(answer: &impl Message) -> Answer {
    Ok(answer.encode_to_vec())
}
