//! The host's wishes. In `Ready` it may run the pause container; in `Owned` it may start what the owner has declared,
//! by the owner's specification; a wish to stop becomes an event that the owner sees.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use postern_container::{Exit, Process, Signal, Target};
use postern_model::{ContainerName, ContainerState, OperationKind};
use postern_policy::{Declared, Permit};

use super::{
    HostId, HostTarget, PodError,
    command::{Done, Reply},
    driver::{Driver, Slot},
    pause::PauseState,
};

/// Ids that a host may have in use.
const MAX_HOST_IDS: usize = 512;
/// The owner hears of repeated wishes to stop a container no more often.
const STOP_REQUEST_INTERVAL: Duration = Duration::from_secs(10);

impl Driver {
    fn declared(&self, name: &ContainerName) -> Declared {
        match self.view.borrow().triggerable.contains(name) {
            true => Declared::Yes,
            false => Declared::No,
        }
    }

    fn target(&self, id: &HostId) -> Result<HostTarget, PodError> {
        self.host_ids.get(id).cloned().ok_or_else(|| PodError::NoSuchHostId(id.clone()))
    }

    fn name_it(&mut self, id: HostId, target: HostTarget) -> Result<(), PodError> {
        match self.host_ids.get(&id) {
            Some(known) if *known == target => Ok(()),
            Some(_) => Err(PodError::HostIdTaken),
            None if self.host_ids.len() >= MAX_HOST_IDS => {
                Err(PodError::TooMany { what: "host container ids", limit: MAX_HOST_IDS })
            }
            None => {
                self.host_ids.insert(id, target);
                self.publish();
                Ok(())
            }
        }
    }

    pub(super) fn create_pause(&mut self, permit: &Permit, id: HostId, reply: Reply) {
        let allowed =
            self.check(permit, OperationKind::Pause, Declared::No).and_then(|()| match self.pause.state {
                PauseState::Absent => self.name_it(id.clone(), HostTarget::Pause),
                PauseState::Making | PauseState::Created { .. } | PauseState::Started { .. } => {
                    Err(PodError::SandboxConfigured)
                }
            });
        if let Err(error) = allowed {
            return drop(reply.send(Err(error)));
        }
        self.pause.state = PauseState::Making;
        let (engine, sandbox) = (self.engine.clone(), Arc::clone(&self.sandbox));
        let (name, done) = (self.pause.name().clone(), self.watcher.done.clone());
        tokio::spawn(async move {
            let result = engine.create_pause(name, sandbox).await.map(|created| created.process);
            let _ = done.send(Done::PauseCreated { id, result, reply }).await;
        });
    }

    pub(super) fn pause_created(&mut self, id: HostId, result: Result<Process, PodError>, reply: Reply) {
        let result = match result {
            Ok(process) => {
                self.pause.state = PauseState::Created { process };
                Ok(())
            }
            Err(error) => {
                self.pause.state = PauseState::Absent;
                self.host_ids.remove(&id);
                self.publish();
                Err(error)
            }
        };
        let _ = reply.send(result);
    }

    pub(super) fn trigger_create(&mut self, permit: &Permit, id: HostId, name: ContainerName, reply: Reply) {
        let allowed = self
            .check(permit, OperationKind::Trigger, self.declared(&name))
            .and_then(|()| self.name_it(id, HostTarget::Declared(name.clone())));
        match (allowed, self.slots.contains_key(&name), self.manifest.get(&name)) {
            (Err(error), _, _) => drop(reply.send(Err(error))),
            // The owner has made it already; from now on the host knows it under its own id.
            (Ok(()), true, _) => drop(reply.send(Ok(()))),
            (Ok(()), false, Some(spec)) => self.create(spec.clone(), reply),
            (Ok(()), false, None) => drop(reply.send(Err(PodError::NoSuchContainer(name)))),
        }
    }

    pub(super) fn trigger_start(&mut self, permit: &Permit, id: &HostId, reply: Reply) {
        match self.target(id) {
            Err(error) => drop(reply.send(Err(error))),
            Ok(HostTarget::Pause) => self.start_pause(permit, reply),
            Ok(HostTarget::Declared(name)) => {
                let allowed = self.check(permit, OperationKind::Trigger, self.declared(&name));
                let runs = |state| matches!(state, ContainerState::Running | ContainerState::Paused);
                match (allowed, self.slots.get(&name)) {
                    (Err(error), _) => drop(reply.send(Err(error))),
                    (Ok(()), Some(Slot::Made(container))) if runs(container.view.state) => {
                        drop(reply.send(Ok(())));
                    }
                    (Ok(()), _) => self.start(&name, reply),
                }
            }
        }
    }

    fn start_pause(&mut self, permit: &Permit, reply: Reply) {
        if let Err(error) = self.check(permit, OperationKind::Pause, Declared::No) {
            return drop(reply.send(Err(error)));
        }
        let process = match &self.pause.state {
            PauseState::Created { process } => process.clone(),
            PauseState::Absent | PauseState::Making | PauseState::Started { .. } => {
                return drop(
                    reply.send(Err(PodError::Invalid("the pause container is not waiting to be started"))),
                );
            }
        };
        self.pause.state = PauseState::Started { process };
        let (runtime, name) = (self.engine.runtime.clone(), self.pause.name().clone());
        tokio::spawn(async move {
            let started = runtime.start(&name).await;
            let _ = reply.send(started.map_err(PodError::failed("starting the pause container")));
        });
    }

    pub(super) fn pause_exit(&self, permit: &Permit) -> Result<Exit, PodError> {
        self.check(permit, OperationKind::WaitSanitised, Declared::No)?;
        let process = self.pause.process().ok_or(PodError::Invalid("there is no pause container"))?;
        Ok(process.exit())
    }

    pub(super) fn request_stop(&mut self, permit: &Permit, id: &HostId) -> Result<(), PodError> {
        self.check(permit, OperationKind::RequestStop, Declared::No)?;
        match self.target(id)? {
            HostTarget::Pause => {
                if self.pause.process().is_some() {
                    // It has ended already, which is what was asked for.
                    let _ = self.engine.runtime.signal(self.pause.name(), Signal::KILL, Target::All);
                }
            }
            HostTarget::Declared(name) => {
                let now = Instant::now();
                let told = self.stop_requests.get(&name);
                if told.is_none_or(|told| now.duration_since(*told) >= STOP_REQUEST_INTERVAL) {
                    self.events.tell("host-stop-request", name.as_str());
                    self.stop_requests.insert(name, now);
                }
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, permit: &Permit, id: &HostId, reply: Reply) {
        let target =
            self.check(permit, OperationKind::RequestStop, Declared::No).and_then(|()| self.target(id));
        match target {
            Err(error) => drop(reply.send(Err(error))),
            Ok(HostTarget::Declared(name)) => {
                let runs = |state| matches!(state, ContainerState::Running | ContainerState::Paused);
                let alive = matches!(self.slots.get(&name), Some(Slot::Made(container)) if runs(container.view.state));
                if !alive {
                    self.host_ids.remove(id);
                    self.publish();
                }
                drop(reply.send(Ok(())));
            }
            Ok(HostTarget::Pause) => {
                if self.pause.process().is_some_and(|process| process.exit().now().is_some()) {
                    self.pause.state = PauseState::Absent;
                    self.host_ids.remove(id);
                    self.publish();
                    let (runtime, name) = (self.engine.runtime.clone(), self.pause.name().clone());
                    tokio::spawn(async move {
                        let deleted = runtime.delete(&name).await;
                        let _ = reply.send(deleted.map_err(PodError::failed("removing the pause container")));
                    });
                } else {
                    drop(reply.send(Ok(())));
                }
            }
        }
    }

    /// The host learns that one of its containers ran out of memory, under its own id.
    pub(super) fn tell_host_of_oom(&self, name: &ContainerName) {
        for (id, target) in &self.host_ids {
            if *target == HostTarget::Declared(name.clone()) {
                // Nobody listening is no fault.
                let _ = self.oom.send(id.clone());
            }
        }
    }
}
