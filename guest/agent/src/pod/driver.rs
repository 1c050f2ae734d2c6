//! The one task that owns the pod's state. It decides, records and shows; work that takes time runs beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use postern_model::{ContainerName, ContainerSpec, ContainerState, OperationKind, Phase};
use postern_policy::{Declared, Permit, decide};
use tokio::sync::{broadcast, mpsc, watch};
use tracing::debug;

use super::{
    HostId, HostTarget, PodError, PodView, SandboxConfig,
    command::{Command, Done},
    container::{Container, Watcher},
    engine::Engine,
    events::EventHub,
    pause::Pause,
};
use crate::hygiene::Housekeeper;

/// Containers in one pod, those that have ended included.
pub(super) const MAX_CONTAINERS: usize = 256;

/// A name that is taken: by a container, or by one that is being made.
#[derive(Debug)]
pub(super) enum Slot {
    Making,
    Made(Box<Container>),
}

#[derive(Debug)]
pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) watcher: Watcher,
    pub(super) events: Arc<EventHub>,
    pub(super) oom: broadcast::Sender<HostId>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) done: mpsc::Receiver<Done>,
    pub(super) view: watch::Sender<Arc<PodView>>,
    pub(super) phase: Phase,
    pub(super) sandbox: Arc<SandboxConfig>,
    pub(super) slots: BTreeMap<ContainerName, Slot>,
    /// What the owner has declared with `apply`.
    pub(super) manifest: BTreeMap<ContainerName, ContainerSpec>,
    pub(super) host_ids: BTreeMap<HostId, HostTarget>,
    pub(super) pause: Pause,
    /// When the owner was last told that the host wants a container stopped.
    pub(super) stop_requests: BTreeMap<ContainerName, Instant>,
    pub(super) housekeeper: Housekeeper,
}

impl Driver {
    /// Runs until the pod is released or destroyed, or nobody is left who could ask; then takes everything down.
    pub(super) async fn run(mut self) {
        loop {
            let command = tokio::select! {
                // Never closed: the watcher holds a sender.
                Some(done) = self.done.recv() => {
                    self.finish(done);
                    continue;
                }
                command = self.commands.recv() => command,
            };
            match command {
                Some(Command::End { permit, reply }) => {
                    let ended = self.end(&permit);
                    let over = ended.is_ok();
                    let _ = reply.send(ended);
                    if over {
                        break;
                    }
                }
                Some(Command::ShutDown) | None => {
                    self.enter(Phase::Released);
                    break;
                }
                Some(command) => self.carry_out(command),
            }
        }
        self.take_down().await;
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::ConfigureSandbox { permit, config, reply } => {
                let _ = reply.send(self.configure_sandbox(&permit, config));
            }
            Command::CreatePause { permit, id, reply } => self.create_pause(&permit, id, reply),
            Command::TriggerCreate { permit, id, name, reply } => {
                self.trigger_create(&permit, id, name, reply)
            }
            Command::TriggerStart { permit, id, reply } => self.trigger_start(&permit, &id, reply),
            Command::RequestStop { permit, id, reply } => {
                let _ = reply.send(self.request_stop(&permit, &id));
            }
            Command::Forget { permit, id, reply } => self.forget(&permit, &id, reply),
            Command::Apply { permit, specs, reply } => {
                let _ = reply.send(self.apply(&permit, specs));
            }
            Command::Create { permit, spec, reply } => {
                match self.check(&permit, OperationKind::CreateContainer, Declared::No) {
                    Ok(()) => self.create(*spec, reply),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Start { permit, name, reply } => {
                match self.check(&permit, OperationKind::StartContainer, Declared::No) {
                    Ok(()) => self.start(&name, reply),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Remove { permit, name, removal, reply } => {
                match self.check(&permit, OperationKind::RemoveContainer, Declared::No) {
                    Ok(()) => self.remove(&name, removal, Some(reply)),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Freeze { permit, name, freeze, reply } => self.freeze(&permit, name, freeze, reply),
            Command::PauseExit { permit, reply } => {
                let _ = reply.send(self.pause_exit(&permit));
            }
            Command::Handover { permit, reply } => {
                let _ = reply.send(self.handover(&permit));
            }
            // Taken out by `run`, which ends with it.
            Command::End { reply, .. } => drop(reply.send(Err(PodError::Ended))),
            Command::ShutDown => {}
        }
    }

    /// Whether `permit` is for `operation` and still holds: the phase may have moved on since it was given.
    pub(super) fn check(
        &self,
        permit: &Permit,
        operation: OperationKind,
        declared: Declared,
    ) -> Result<(), PodError> {
        still_good(permit, operation, self.phase, declared)
    }

    fn configure_sandbox(&mut self, permit: &Permit, config: SandboxConfig) -> Result<(), PodError> {
        self.check(permit, OperationKind::CreateSandbox, Declared::No)?;
        if self.phase != Phase::Booting {
            return Err(PodError::SandboxConfigured);
        }
        self.sandbox = Arc::new(config);
        self.enter(Phase::Ready);
        Ok(())
    }

    fn handover(&mut self, permit: &Permit) -> Result<bool, PodError> {
        self.check(permit, OperationKind::Handover, Declared::No)?;
        let changed = self.phase != Phase::Owned;
        if changed {
            self.enter(Phase::Owned);
            self.rehearse();
        }
        Ok(changed)
    }

    /// The pod's state does not know of it, and nothing follows from its failing.
    fn rehearse(&self) {
        let (engine, sandbox) = (self.engine.clone(), Arc::clone(&self.sandbox));
        let (name, housekeeper) = (self.pause.rehearsal().clone(), self.housekeeper.clone());
        tokio::spawn(async move {
            if let Err(error) = engine.rehearse(name, sandbox).await {
                debug!(error = &error as &dyn std::error::Error, "the rehearsal of a container failed");
            }
            housekeeper.call();
        });
    }

    fn end(&mut self, permit: &Permit) -> Result<(), PodError> {
        let operation = match permit.operation() {
            OperationKind::DestroySandbox => OperationKind::DestroySandbox,
            _ => OperationKind::Release,
        };
        self.check(permit, operation, Declared::No)?;
        self.enter(Phase::Released);
        Ok(())
    }

    fn enter(&mut self, phase: Phase) {
        if phase > self.phase {
            self.phase = phase;
            let kind = match phase {
                Phase::Booting => "boot",
                Phase::Ready => "ready",
                Phase::Owned => "handover",
                Phase::Released => "release",
            };
            self.events.tell(kind, "");
            self.publish();
        }
    }

    /// Shows the state as it is now.
    pub(super) fn publish(&self) {
        let mut containers = BTreeMap::new();
        let mut triggerable: BTreeSet<_> =
            self.manifest.values().filter(|spec| spec.host_may_start).map(|spec| spec.name.clone()).collect();
        for (name, slot) in &self.slots {
            if let Slot::Made(container) = slot {
                containers.insert(name.clone(), Arc::new(container.view.clone()));
                if container.view.spec.host_may_start {
                    triggerable.insert(name.clone());
                }
            }
        }
        self.view.send_replace(Arc::new(PodView {
            phase: self.phase,
            hostname: self.sandbox.hostname.clone().unwrap_or_default(),
            containers,
            triggerable,
            host_ids: self.host_ids.clone(),
        }));
    }

    pub(super) fn finish(&mut self, done: Done) {
        // Specifications are large while they are being made.
        self.housekeeper.call();
        match done {
            Done::Created { name, result, reply } => {
                let result = result.map(|made| {
                    let container = Container::new(*made, &self.watcher);
                    self.slots.insert(name.clone(), Slot::Made(Box::new(container)));
                });
                match &result {
                    Ok(()) => self.events.tell("create", name.as_str()),
                    Err(_) => drop(self.slots.remove(&name)),
                }
                self.publish();
                let _ = reply.send(result);
            }
            Done::Started { name, result, reply } => {
                self.started(&name, result.is_ok());
                let _ = reply.send(result);
            }
            Done::Frozen { name, to, result, reply } => {
                if let Some(Slot::Made(container)) = self.slots.get_mut(&name) {
                    container.doing = None;
                    // It may have ended while it was being frozen.
                    if result.is_ok() && container.view.state != ContainerState::Exited {
                        container.view.state = to;
                        self.events.tell(
                            if to == ContainerState::Paused { "pause" } else { "unpause" },
                            name.as_str(),
                        );
                    }
                }
                self.publish();
                let _ = reply.send(result);
            }
            Done::OutOfMemory { name, run } => self.out_of_memory(&name, run),
            Done::Exited { name, run, exit } => self.exited(&name, run, exit),
            Done::Removed { name, result, reply } => {
                self.removed(&name, result.is_ok());
                if let Some(reply) = reply {
                    let _ = reply.send(result);
                }
            }
            Done::PauseCreated { id, result, reply } => self.pause_created(id, result, reply),
        }
    }
}

/// See [`Driver::check`].
pub(super) fn still_good(
    permit: &Permit,
    operation: OperationKind,
    phase: Phase,
    declared: Declared,
) -> Result<(), PodError> {
    if permit.operation() != operation {
        return Err(PodError::WrongPermit { expected: operation, found: permit.operation() });
    }
    let _permit = decide(permit.caller(), operation, phase, declared)?;
    Ok(())
}
