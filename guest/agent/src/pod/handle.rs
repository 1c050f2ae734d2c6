//! How both endpoints ask the pod: the handle, and what owners ask of containers as wholes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use postern_container::{ProcessInfo, Runtime, Signal, Stats, Target};
use postern_model::{ContainerName, ContainerSpec, ContainerState, ExecId, OperationKind, Phase};
use postern_policy::{Declared, Permit};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{
    ContainerView, Event, EventHub, Exit, HostId, HostTarget, PodError, PodView, Removal, SandboxConfig,
    command::{Command, Freeze, Reply},
    container::Watcher,
    driver::{Driver, still_good},
    engine::Engine,
    pause::Pause,
};
use crate::{clock::unix_millis, hygiene::Housekeeper};

/// Commands that may wait for the driver; more wait at the sender.
const COMMANDS: usize = 64;
/// Reports of finished work that may wait for the driver.
const REPORTS: usize = 64;
/// Out-of-memory events that the host may lag behind before it loses some.
const OOM_BACKLOG: usize = 16;
/// How long a container may take to end once it was killed.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Asks the one pod of this guest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PodHandle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<PodView>>,
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) events: Arc<EventHub>,
    oom: broadcast::Sender<HostId>,
    execs: AtomicU64,
    housekeeper: Housekeeper,
}

impl Shared {
    pub(super) fn next_exec_id(&self) -> Result<ExecId, PodError> {
        let number = self.execs.fetch_add(1, Ordering::Relaxed);
        ExecId::new(format!("exec-{number}")).map_err(PodError::failed("naming the exec session"))
    }
}

/// The pod as a whole, for its owner.
#[derive(Debug)]
pub struct PodStatus {
    pub view: Arc<PodView>,
    pub images: usize,
}

/// What is still known of the past, and what comes from now on.
pub(crate) type EventFeed = (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>);

/// Counters of one container at one moment.
#[derive(Debug)]
pub struct ContainerSample {
    pub container: ContainerName,
    pub unix_millis: u64,
    pub stats: Stats,
}

impl PodHandle {
    /// Starts the driver. Its task ends when the pod has ended and nothing of it is left.
    pub fn start(engine: Engine, housekeeper: Housekeeper) -> Result<(Self, JoinHandle<()>), PodError> {
        let (commands, received) = mpsc::channel(COMMANDS);
        let (done, reports) = mpsc::channel(REPORTS);
        let oom = broadcast::channel(OOM_BACKLOG).0;
        let events = EventHub::new();
        let view = watch::Sender::new(Arc::new(PodView {
            phase: Phase::Booting,
            hostname: String::new(),
            containers: Default::default(),
            triggerable: Default::default(),
            host_ids: Default::default(),
        }));
        let handle = Self {
            commands,
            view: view.subscribe(),
            shared: Arc::new(Shared {
                engine: engine.clone(),
                events: Arc::clone(&events),
                oom: oom.clone(),
                execs: AtomicU64::new(0),
                housekeeper: housekeeper.clone(),
            }),
        };
        let driver = Driver {
            watcher: Watcher { runtime: engine.runtime.clone(), done },
            engine,
            events,
            oom,
            commands: received,
            done: reports,
            view,
            phase: Phase::Booting,
            sandbox: Arc::new(SandboxConfig::default()),
            slots: Default::default(),
            manifest: Default::default(),
            host_ids: Default::default(),
            pause: Pause::new().ok_or(PodError::Invalid("the pause container has no name"))?,
            stop_requests: Default::default(),
            housekeeper,
        };
        Ok((handle, tokio::spawn(driver.run())))
    }

    /// Where the pod is in its life.
    pub fn phase(&self) -> Phase {
        self.view.borrow().phase
    }

    /// Comes when the owner has taken the pod over, or it has ended.
    pub async fn owned(&self) {
        let over = |view: &Arc<PodView>| matches!(view.phase, Phase::Owned | Phase::Released);
        // Without a driver it has ended.
        let _ = self.view.clone().wait_for(over).await;
    }

    /// The pod at this moment.
    pub fn view(&self) -> Arc<PodView> {
        self.view.borrow().clone()
    }

    /// Whether the owner's manifest lets the host trigger `name`.
    pub fn is_triggerable(&self, name: &ContainerName) -> bool {
        self.view.borrow().triggerable.contains(name)
    }

    /// What the host's `id` stands for.
    pub fn host_target(&self, id: &HostId) -> Option<HostTarget> {
        self.view.borrow().host_ids.get(id).cloned()
    }

    /// Ends the pod without anybody's leave: the process was told to end.
    pub async fn shut_down(&self) {
        // Without a driver it has ended already.
        let _ = self.commands.send(Command::ShutDown).await;
    }

    pub(super) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, PodError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| PodError::Ended)?;
        answer.await.unwrap_or(Err(PodError::Ended))
    }

    pub(super) fn check(&self, permit: &Permit, operation: OperationKind) -> Result<(), PodError> {
        still_good(permit, operation, self.phase(), Declared::No)
    }

    /// Whom to tell that memory may have become free.
    pub(crate) fn housekeeper(&self) -> &Housekeeper {
        &self.shared.housekeeper
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.shared.engine.runtime
    }

    pub(super) fn subscribe_oom(&self) -> broadcast::Receiver<HostId> {
        self.shared.oom.subscribe()
    }

    pub(super) fn container(&self, name: &ContainerName) -> Result<Arc<ContainerView>, PodError> {
        let found = self.view.borrow().containers.get(name).cloned();
        found.ok_or_else(|| PodError::NoSuchContainer(name.clone()))
    }

    /// The container, if it has a process that runs.
    pub(super) fn running(&self, name: &ContainerName) -> Result<Arc<ContainerView>, PodError> {
        let container = self.container(name)?;
        let advice = match container.state {
            ContainerState::Running => return Ok(container),
            ContainerState::Paused => "unpause it first",
            ContainerState::Created | ContainerState::Exited => "start it first",
        };
        Err(PodError::WrongState { container: name.clone(), state: container.state, advice })
    }
}

/// What owners ask.
impl PodHandle {
    pub fn status(&self, permit: Permit) -> Result<PodStatus, PodError> {
        self.check(&permit, OperationKind::InspectPod)?;
        Ok(PodStatus { view: self.view(), images: self.shared.engine.store.list().len() })
    }

    /// Whether this call changed anything: false when the pod was owned already.
    pub async fn handover(&self, permit: Permit) -> Result<bool, PodError> {
        self.ask(|reply| Command::Handover { permit, reply }).await
    }

    /// Ends the pod. Returns when it is under way.
    pub async fn release(&self, permit: Permit) -> Result<(), PodError> {
        self.ask(|reply| Command::End { permit, reply }).await
    }

    /// Declares containers; starts none.
    pub async fn apply(
        &self,
        permit: Permit,
        specs: Vec<ContainerSpec>,
    ) -> Result<Vec<ContainerName>, PodError> {
        self.ask(|reply| Command::Apply { permit, specs, reply }).await
    }

    pub fn events(&self, permit: Permit) -> Result<EventFeed, PodError> {
        self.check(&permit, OperationKind::Events)?;
        Ok(self.shared.events.subscribe())
    }

    pub async fn create(&self, permit: Permit, spec: ContainerSpec) -> Result<(), PodError> {
        self.ask(|reply| Command::Create { permit, spec: Box::new(spec), reply }).await
    }

    pub async fn start_container(&self, permit: Permit, name: &ContainerName) -> Result<(), PodError> {
        self.ask(|reply| Command::Start { permit, name: name.clone(), reply }).await
    }

    /// The stop signal, then `grace`, then SIGKILL. Returns how it ended; at once when it has ended already.
    pub async fn stop(
        &self,
        permit: Permit,
        name: &ContainerName,
        grace: Duration,
    ) -> Result<Exit, PodError> {
        self.check(&permit, OperationKind::StopContainer)?;
        let container = self.container(name)?;
        if let Some(exit) = container.exit {
            return Ok(exit);
        }
        if container.state == ContainerState::Paused {
            let advice = "unpause it first";
            return Err(PodError::WrongState { container: name.clone(), state: container.state, advice });
        }
        let live = &container.live;
        if !grace.is_zero() && container.state == ContainerState::Running {
            if let Some(run) = live.run() {
                // It may end before the signal arrives, which is as good.
                let _ = run.process.signal(container.stop_signal);
            }
            if let Ok(exit) = timeout(grace, live.ended()).await {
                return Ok(exit);
            }
        }
        let _ = self.runtime().signal(name, Signal::KILL, Target::All);
        timeout(KILL_PATIENCE, live.ended())
            .await
            .map_err(|_| PodError::Unkillable { container: name.clone(), seconds: KILL_PATIENCE.as_secs() })
    }

    pub async fn kill(&self, permit: Permit, name: &ContainerName, signal: u32) -> Result<(), PodError> {
        self.check(&permit, OperationKind::KillContainer)?;
        let signal = Signal::try_from(signal).map_err(|_| PodError::BadSignal(signal))?;
        let container = self.running(name)?;
        let run = container.live.run().ok_or_else(|| PodError::NoSuchContainer(name.clone()))?;
        run.process.signal(signal).map_err(PodError::failed("sending the signal"))
    }

    pub async fn remove(
        &self,
        permit: Permit,
        name: &ContainerName,
        removal: Removal,
    ) -> Result<(), PodError> {
        self.ask(|reply| Command::Remove { permit, name: name.clone(), removal, reply }).await
    }

    pub async fn pause(&self, permit: Permit, name: &ContainerName) -> Result<(), PodError> {
        let freeze = Freeze::Pause;
        self.ask(|reply| Command::Freeze { permit, name: name.clone(), freeze, reply }).await
    }

    pub async fn unpause(&self, permit: Permit, name: &ContainerName) -> Result<(), PodError> {
        let freeze = Freeze::Unpause;
        self.ask(|reply| Command::Freeze { permit, name: name.clone(), freeze, reply }).await
    }

    /// How it ends, or has ended.
    pub async fn wait(&self, permit: Permit, name: &ContainerName) -> Result<Exit, PodError> {
        self.check(&permit, OperationKind::WaitContainer)?;
        let container = self.container(name)?;
        Ok(container.live.ended().await)
    }

    pub fn list(&self, permit: Permit) -> Result<Arc<PodView>, PodError> {
        self.check(&permit, OperationKind::ListContainers)?;
        Ok(self.view())
    }

    pub fn inspect(&self, permit: Permit, name: &ContainerName) -> Result<Arc<ContainerView>, PodError> {
        self.check(&permit, OperationKind::InspectContainer)?;
        self.container(name)
    }

    /// One sample of each container named, or of each that runs.
    pub async fn stats(
        &self,
        permit: Permit,
        names: &[ContainerName],
    ) -> Result<Vec<ContainerSample>, PodError> {
        self.check(&permit, OperationKind::Stats)?;
        let every_one = names.is_empty();
        let names = match every_one {
            false => names.to_vec(),
            true => {
                let view = self.view();
                let runs = |state| matches!(state, ContainerState::Running | ContainerState::Paused);
                view.containers.values().filter(|c| runs(c.state)).map(|c| c.spec.name.clone()).collect()
            }
        };
        let mut samples = Vec::with_capacity(names.len());
        for name in names {
            if !every_one {
                self.container(&name)?;
            }
            match self.runtime().stats(&name).await {
                Ok(stats) => {
                    samples.push(ContainerSample { container: name, unix_millis: unix_millis(), stats });
                }
                // Gone since it was listed.
                Err(_) if every_one => {}
                Err(error) => return Err(PodError::failed("reading the container's counters")(error)),
            }
        }
        Ok(samples)
    }

    pub async fn top(&self, permit: Permit, name: &ContainerName) -> Result<Vec<ProcessInfo>, PodError> {
        self.check(&permit, OperationKind::Top)?;
        self.running(name)?;
        self.runtime().top(name).await.map_err(PodError::failed("listing the container's processes"))
    }
}
