//! Containers come and go: create, start, pause, remove, and the ends of runs.
//!
//! Each starts work beside the driver and marks the container until the work reports back, so that no two pieces of
//! work meet in one container.

use std::sync::Arc;

use postern_model::{ContainerName, ContainerSpec, ContainerState, ExitStatus, OperationKind};
use postern_policy::{Declared, Permit};

use super::{
    Exit, PodError, Removal,
    command::{Done, Freeze, Reply},
    container::Container,
    driver::{Driver, MAX_CONTAINERS, Slot},
};

impl Driver {
    pub(super) fn create(&mut self, spec: ContainerSpec, reply: Reply) {
        if let Err(error) = self.may_create(&spec.name) {
            drop(reply.send(Err(error)));
            return;
        }
        let name = spec.name.clone();
        self.slots.insert(name.clone(), Slot::Making);
        let (engine, sandbox, done) =
            (self.engine.clone(), Arc::clone(&self.sandbox), self.watcher.done.clone());
        tokio::spawn(async move {
            let result = engine.create(spec, sandbox).await.map(Box::new);
            let _ = done.send(Done::Created { name, result, reply }).await;
        });
    }

    fn may_create(&self, name: &ContainerName) -> Result<(), PodError> {
        if self.pause.has_name(name) {
            return Err(PodError::Invalid("this name belongs to the pod's pause container"));
        }
        if self.slots.contains_key(name) {
            return Err(PodError::Exists(name.clone()));
        }
        if self.slots.len() >= MAX_CONTAINERS {
            return Err(PodError::TooMany { what: "containers", limit: MAX_CONTAINERS });
        }
        Ok(())
    }

    /// The container, if nothing is being done to it.
    fn idle(&mut self, name: &ContainerName) -> Result<&mut Container, PodError> {
        match self.slots.get_mut(name) {
            None => Err(PodError::NoSuchContainer(name.clone())),
            Some(Slot::Making) => Err(PodError::Busy { container: name.clone(), doing: "created" }),
            Some(Slot::Made(container)) => match container.doing {
                Some(doing) => Err(PodError::Busy { container: name.clone(), doing }),
                None => Ok(container),
            },
        }
    }

    /// Starts a container that was created, or one that has ended: again.
    pub(super) fn start(&mut self, name: &ContainerName, reply: Reply) {
        let (engine, watcher) = (self.engine.clone(), self.watcher.clone());
        let container = match self.idle(name) {
            Ok(container) => container,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let again = match container.view.state {
            ContainerState::Created => false,
            ContainerState::Exited => true,
            state @ (ContainerState::Running | ContainerState::Paused) => {
                let container = name.clone();
                let error = PodError::WrongState { container, state, advice: "it was started before" };
                return drop(reply.send(Err(error)));
            }
        };
        container.doing = Some("started");
        container.run += u64::from(again);
        let (name, run, plan) = (name.clone(), container.run, Arc::clone(&container.plan));
        let live = Arc::clone(&container.view.live);
        tokio::spawn(async move {
            let result = async {
                if again {
                    let created = engine.recreate(&plan).await?;
                    watcher.watch(name.clone(), run, &live, created);
                }
                engine.start(&name).await
            };
            let result = result.await;
            let _ = watcher.done.send(Done::Started { name, result, reply }).await;
        });
    }

    pub(super) fn freeze(&mut self, permit: &Permit, name: ContainerName, freeze: Freeze, reply: Reply) {
        let (operation, from, to, doing) = match freeze {
            Freeze::Pause => {
                (OperationKind::PauseContainer, ContainerState::Running, ContainerState::Paused, "paused")
            }
            Freeze::Unpause => {
                (OperationKind::UnpauseContainer, ContainerState::Paused, ContainerState::Running, "unpaused")
            }
        };
        let checked = self.check(permit, operation, Declared::No);
        let container = match checked.and_then(|()| self.idle(&name)) {
            Ok(container) if container.view.state == from => container,
            Ok(container) => {
                let state = container.view.state;
                let advice = match freeze {
                    Freeze::Pause => "only a running container can be paused",
                    Freeze::Unpause => "only a paused container can be unpaused",
                };
                return drop(reply.send(Err(PodError::WrongState { container: name, state, advice })));
            }
            Err(error) => return drop(reply.send(Err(error))),
        };
        container.doing = Some(doing);
        let (runtime, done) = (self.engine.runtime.clone(), self.watcher.done.clone());
        tokio::spawn(async move {
            let result = match freeze {
                Freeze::Pause => runtime.pause(&name).await,
                Freeze::Unpause => runtime.unpause(&name).await,
            };
            let result = result.map_err(PodError::failed("freezing or thawing the container"));
            let _ = done.send(Done::Frozen { name, to, result, reply }).await;
        });
    }

    pub(super) fn remove(&mut self, name: &ContainerName, removal: Removal, reply: Option<Reply>) {
        let engine = self.engine.clone();
        let done = self.watcher.done.clone();
        let answer = |error, reply: Option<Reply>| drop(reply.map(|reply| reply.send(Err(error))));
        let container = match self.idle(name) {
            Ok(container) => container,
            Err(error) => return answer(error, reply),
        };
        let state = container.view.state;
        if matches!(state, ContainerState::Running | ContainerState::Paused) && removal == Removal::OnlyEnded
        {
            let advice = "stop it first, or remove it with force";
            return answer(PodError::WrongState { container: name.clone(), state, advice }, reply);
        }
        container.doing = Some("removed");
        let (name, plan) = (name.clone(), Arc::clone(&container.plan));
        tokio::spawn(async move {
            let result = engine.remove(&plan).await;
            let _ = done.send(Done::Removed { name, result, reply }).await;
        });
    }

    pub(super) fn started(&mut self, name: &ContainerName, well: bool) {
        let Some(Slot::Made(container)) = self.slots.get_mut(name) else { return };
        container.doing = None;
        if well {
            container.started();
            self.events.tell("start", name.as_str());
        }
        let early = container.early_exit.take().map(|exit| (container.run, exit));
        self.publish();
        if let Some((run, exit)) = early {
            self.exited(name, run, exit);
        }
    }

    pub(super) fn out_of_memory(&mut self, name: &ContainerName, run: u64) {
        if matches!(self.slots.get(name), Some(Slot::Made(container)) if container.run == run) {
            self.events.tell("oom", name.as_str());
            self.tell_host_of_oom(name);
        }
    }

    pub(super) fn exited(&mut self, name: &ContainerName, run: u64, exit: Exit) {
        let Some(Slot::Made(container)) = self.slots.get_mut(name) else { return };
        if container.run != run {
            return;
        }
        if container.doing == Some("started") {
            container.early_exit = Some(exit);
            return;
        }
        container.exited(exit);
        let auto_remove = container.view.spec.auto_remove && container.doing.is_none();
        let live = Arc::clone(&container.view.live);
        self.events.tell_with("exit", name.as_str(), [("code", exit.status.code().to_string())]);
        // The new state is shown before waiters are woken: who has waited finds it exited.
        self.publish();
        live.exit.send_replace(Some(exit));
        if auto_remove {
            self.remove(name, Removal::OnlyEnded, None);
        }
    }

    pub(super) fn removed(&mut self, name: &ContainerName, well: bool) {
        let Some(Slot::Made(container)) = self.slots.get_mut(name) else { return };
        container.doing = None;
        if !well {
            return;
        }
        let live = Arc::clone(&container.view.live);
        if live.exit.borrow().is_none() {
            // Killed by the removal; whoever waits for its end learns of it here.
            let status = live.run().and_then(|run| run.process.exit().now());
            let status = status.unwrap_or(ExitStatus::Signalled(9));
            live.exit.send_replace(Some(Exit { status, oom_killed: false }));
        }
        live.set_run(None);
        self.slots.remove(name);
        self.stop_requests.remove(name);
        self.events.tell("remove", name.as_str());
        self.publish();
    }
}
