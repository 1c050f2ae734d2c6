//! Containers as the host may wish for them: the measured pause container, triggers for what the owner has declared,
//! wishes to stop, and the class of an exit.
//!
//! The host's OCI specification is not read but for three annotations, and these are read in place.

use std::sync::{Arc, PoisonError};

use postern_api::{
    host,
    wire::{Fields, Malformed},
};
use postern_model::{ContainerName, ContainerState, OperationKind, Verdict};
use postern_policy::{Declared, Permit};

use super::{Admitted, Call, Session, Status, encoded, later, now};
use crate::{
    host_api::sanitise,
    pod::{HostId, HostTarget, PodError},
};

/// Waiting calls for one container on one connection.
const MAX_WAITERS: usize = 4;

const SIGKILL: u64 = 9;
const SIGTERM: u64 = 15;
const SIGNALS: std::ops::RangeInclusive<u64> = 1..=64;

/// What containerd and CRI-O write next to a container (pkg/cri/annotations; pkg/annotations).
const TYPE_KEYS: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
const NAME_KEYS: [&str; 2] = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name"];
const SANDBOX_TYPE: &str = "sandbox";

/// The fields that most calls begin with: container id, exec id, and a number (signal, length, time).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Target<'a> {
    container: &'a str,
    exec: &'a str,
    pub(super) number: u64,
}

impl<'a> Target<'a> {
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, Status> {
        let mut target = Self::default();
        for field in Fields::new(payload) {
            match field? {
                (1, value) => target.container = value.text()?,
                // RemoveContainer has a number here, of which no use is made.
                (2, value) => target.exec = value.text().unwrap_or_default(),
                (3, value) => target.number = value.integer()?,
                _ => {}
            }
        }
        Ok(target)
    }

    /// What the host's id stands for.
    pub(super) fn known(self, call: &Call<'_>) -> Result<(HostId, HostTarget), Status> {
        let id = HostId::new(self.container).map_err(|_| Status::NO_CONTAINER)?;
        let target = call.gate.pod.host_target(&id).ok_or(Status::NO_CONTAINER)?;
        Ok((id, target))
    }

    /// The container whose first process is meant. The owner's exec sessions do not exist for the host.
    pub(super) fn init(self, call: &Call<'_>) -> Result<HostId, Status> {
        let (id, _) = self.known(call)?;
        match self.exec.is_empty() || self.exec == self.container {
            true => Ok(id),
            false => Err(Status::NO_PROCESS),
        }
    }
}

impl From<Malformed> for Status {
    fn from(_: Malformed) -> Self {
        Self::MALFORMED
    }
}

/// What a CreateContainer request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish<'a> {
    container: &'a str,
    kind: Option<&'a str>,
    name: Option<&'a str>,
}

impl<'a> Wish<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut wish = Self::default();
        for field in Fields::new(payload) {
            match field? {
                (1, value) => wish.container = value.text()?,
                (6, specification) => wish.annotations(specification.bytes()?)?,
                _ => {}
            }
        }
        Ok(wish)
    }

    fn annotations(&mut self, specification: &'a [u8]) -> Result<(), Malformed> {
        for field in Fields::new(specification) {
            let (7, entry) = field? else { continue };
            let (mut key, mut value) = ("", "");
            for field in Fields::new(entry.bytes()?) {
                match field? {
                    (1, text) => key = text.text()?,
                    (2, text) => value = text.text()?,
                    _ => {}
                }
            }
            if TYPE_KEYS.contains(&key) {
                self.kind = Some(value);
            } else if NAME_KEYS.contains(&key) {
                self.name = Some(value);
            }
        }
        Ok(())
    }
}

pub(super) fn create(call: &Call<'_>) -> Admitted {
    let wish = Wish::read(call.payload).map_err(Status::from)?;
    let pod = call.gate.pod.clone();
    if wish.kind == Some(SANDBOX_TYPE) {
        let permit = call.gate.permit(OperationKind::Pause, Declared::No)?;
        let id = fresh_id(call, wish.container)?;
        return later(Verdict::Sanitised, async move {
            pod.create_pause(permit, id).await?;
            encoded(&host::Empty {})
        });
    }
    let name = ContainerName::new(wish.name.unwrap_or(wish.container)).ok();
    let declared = match &name {
        Some(name) if pod.is_triggerable(name) => Declared::Yes,
        Some(_) | None => Declared::No,
    };
    let permit = call.gate.permit(OperationKind::Trigger, declared)?;
    let Some(name) = name else { return Err(Status::REFUSED.into()) };
    let id = fresh_id(call, wish.container)?;
    later(Verdict::Sanitised, async move {
        pod.trigger_create(permit, id, name).await?;
        encoded(&host::Empty {})
    })
}

/// An id that the host does not use yet.
fn fresh_id(call: &Call<'_>, id: &str) -> Result<HostId, Status> {
    let id = HostId::new(id).map_err(|_| Status::invalid("container_id is not a container id"))?;
    match call.gate.pod.host_target(&id) {
        Some(_) => Err(Status::EXISTS),
        None => Ok(id),
    }
}

pub(super) fn start(call: &Call<'_>) -> Admitted {
    let (id, target) = Target::read(call.payload)?.known(call).map_err(|_| Status::NO_CONTAINER_INTERNAL)?;
    let permit = start_permit(call, &target)?;
    let pod = call.gate.pod.clone();
    later(Verdict::Allowed, async move {
        pod.trigger_start(permit, &id).await?;
        encoded(&host::Empty {})
    })
}

fn start_permit(call: &Call<'_>, target: &HostTarget) -> Result<Permit, Status> {
    match target {
        HostTarget::Pause => call.gate.permit(OperationKind::Pause, Declared::No),
        HostTarget::Declared(name) => {
            let declared = if call.gate.pod.is_triggerable(name) { Declared::Yes } else { Declared::No };
            call.gate.permit(OperationKind::Trigger, declared)
        }
    }
}

/// Removing cleans up the host's own books. What runs is not the host's to remove.
pub(super) fn remove(call: &Call<'_>) -> Admitted {
    let target = Target::read(call.payload)?;
    let removed = HostId::new(target.container).is_ok_and(|id| call.gate.was_removed(&id));
    let (id, target) = match target.known(call) {
        Ok(known) => known,
        Err(_) if removed => return now(Verdict::Sanitised, &host::Empty {}),
        Err(_) => return Err(Status::NO_CONTAINER_INTERNAL.into()),
    };
    let permit = call.gate.permit(OperationKind::RequestStop, Declared::No)?;
    if let HostTarget::Declared(name) = &target
        && is_live(call, name)
    {
        return Err(Status::REFUSED.into());
    }
    let gate = call.gate.clone();
    later(Verdict::Allowed, async move {
        gate.pod.forget(permit, &id).await?;
        gate.remember_removed(id);
        encoded(&host::Empty {})
    })
}

fn is_live(call: &Call<'_>, name: &ContainerName) -> bool {
    call.gate.pod.view().containers.get(name).is_some_and(|container| match container.state {
        ContainerState::Running | ContainerState::Paused => true,
        ContainerState::Created | ContainerState::Exited => false,
    })
}

/// A stop signal becomes a wish that the owner sees; any other would steer the workload.
pub(super) fn signal(call: &Call<'_>) -> Admitted {
    let target = Target::read(call.payload)?;
    let id = target.init(call)?;
    if !SIGNALS.contains(&target.number) {
        return Err(Status::invalid("signal is not within 1 to 64").into());
    }
    if target.number != SIGTERM && target.number != SIGKILL {
        return Err(Status::REFUSED.into());
    }
    let permit = call.gate.permit(OperationKind::RequestStop, Declared::No)?;
    let pod = call.gate.pod.clone();
    later(Verdict::Sanitised, async move {
        pod.request_stop(permit, &id).await?;
        encoded(&host::Empty {})
    })
}

pub(super) fn wait(call: &Call<'_>) -> Admitted {
    let id = Target::read(call.payload)?.init(call)?;
    let permit = call.gate.permit(OperationKind::WaitSanitised, Declared::No)?;
    let waiter = Waiter::enter(call.session, &id).ok_or(Status::EXHAUSTED)?;
    let pod = call.gate.pod.clone();
    later(Verdict::Sanitised, async move {
        let class = pod.wait_sanitised(permit, &id).await.map_err(|error| match error {
            PodError::NoSuchHostId(_) => Status::NO_PROCESS,
            other => Status::from(other),
        })?;
        drop(waiter);
        encoded(&host::WaitProcessResponse { status: sanitise::exit_status(class) })
    })
}

/// Counts one waiting call while it lives.
struct Waiter {
    session: Arc<Session>,
    id: HostId,
}

impl Waiter {
    fn enter(session: &Arc<Session>, id: &HostId) -> Option<Self> {
        // Counts are whole after any panic.
        let mut waiters = session.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiters.entry(id.clone()).or_default();
        if *count == MAX_WAITERS {
            return None;
        }
        *count += 1;
        Some(Self { session: session.clone(), id: id.clone() })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.session.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiters.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                waiters.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn create_request(annotations: &[(&str, &str)]) -> Vec<u8> {
        let annotations: HashMap<_, _> =
            annotations.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        host::CreateContainerRequest { container_id: "c".into(), oci: Some(host::Spec { annotations }) }
            .encode_to_vec()
    }

    #[test]
    fn reads_three_annotations_of_a_specification() {
        let request = create_request(&[
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.container-name", "web"),
            ("io.kubernetes.container.terminationMessagePath", "/t"),
        ]);
        let expected = Wish { container: "c", kind: Some("container"), name: Some("web") };
        assert_eq!(Wish::read(&request), Ok(expected));
    }

    #[test]
    fn a_specification_without_annotations_is_nobodys() {
        let expected = Wish { container: "c", kind: None, name: None };
        assert_eq!(Wish::read(&create_request(&[])), Ok(expected));
    }

    #[test]
    fn a_target_has_the_fields_of_every_call() {
        let signal = host::SignalProcessRequest { container_id: "c".into(), exec_id: "e".into(), signal: 15 };
        let payload = signal.encode_to_vec();
        let target = Target::read(&payload).unwrap();
        assert_eq!((target.container, target.exec, target.number), ("c", "e", 15));
        let remove = host::RemoveContainerRequest { container_id: "c".into(), timeout: 7 }.encode_to_vec();
        let target = Target::read(&remove).unwrap();
        assert_eq!((target.container, target.exec, target.number), ("c", "", 0));
    }

    #[test]
    fn waiters_are_counted_and_let_go() {
        let session = Arc::new(Session::default());
        let id = HostId::new("c").unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITERS).map(|_| Waiter::enter(&session, &id).unwrap()).collect();
        assert!(Waiter::enter(&session, &id).is_none());
        assert!(Waiter::enter(&session, &HostId::new("d").unwrap()).is_some());
        waiting.pop();
        assert!(Waiter::enter(&session, &id).is_some());
    }

    proptest! {
        #[test]
        fn reading_never_panics(payload in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Wish::read(&payload);
            let _ = Target::read(&payload);
        }
    }
}
