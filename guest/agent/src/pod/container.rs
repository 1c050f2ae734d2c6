//! One container as the driver keeps it, and the tasks that watch its runs.
//!
//! ```text
//! (making) -> Created -> Running <-> Paused
//!                           \ ends / -> Exited -> Running (started again) ...
//! ```
//! A *run* is one life of the first process. Its pump moves output into the log; its watcher tells the driver the end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use postern_container::{Created, Process, Runtime};
use postern_model::{ContainerName, ContainerState, ExitStatus};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Exit,
    command::Done,
    engine::{Made, Plan},
    log::{LOG_CAPACITY, Log},
    output::{Output, Piece},
    view::{ContainerView, Live, Run},
};
use crate::clock::unix_millis;

/// How long the end of a container may wait for its last output to be taken by an attached reader.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// How often it is looked whether the kernel has killed a process for want of memory.
const OOM_INTERVAL: Duration = Duration::from_secs(2);

/// A container that exists.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) view: ContainerView,
    pub(super) plan: Arc<Plan>,
    /// What is being done to it at this moment; nothing else may begin meanwhile.
    pub(super) doing: Option<&'static str>,
    pub(super) run: u64,
    /// The end of a run that came in before its start was confirmed.
    pub(super) early_exit: Option<Exit>,
}

impl Container {
    /// A container fresh from the engine, and its first run, which waits to be started.
    pub(super) fn new(made: Made, watcher: &Watcher) -> Self {
        let live = Arc::new(Live {
            log: Log::new(LOG_CAPACITY),
            exit: watch::Sender::new(None),
            stdin: Arc::default(),
            run: Mutex::new(None),
        });
        let view = ContainerView {
            spec: made.spec,
            image_digest: made.image_digest,
            command: made.command,
            stop_signal: made.stop_signal,
            state: ContainerState::Created,
            created_unix_millis: unix_millis(),
            started_unix_millis: None,
            exited_unix_millis: None,
            exit: None,
            pid: Some(made.created.process.pid()),
            oci_config: made.oci_config,
            live: Arc::clone(&live),
        };
        watcher.watch(view.spec.name.clone(), 0, &live, made.created);
        Self { view, plan: made.plan, doing: None, run: 0, early_exit: None }
    }

    pub(super) fn started(&mut self) {
        self.view.state = ContainerState::Running;
        self.view.started_unix_millis = Some(unix_millis());
        self.view.exited_unix_millis = None;
        self.view.exit = None;
        self.view.pid = self.view.live.run().map(|run| run.process.pid());
    }

    pub(super) fn exited(&mut self, exit: Exit) {
        self.view.state = ContainerState::Exited;
        self.view.exited_unix_millis = Some(unix_millis());
        self.view.exit = Some(exit);
        self.view.pid = None;
        self.view.live.set_run(None);
    }
}

/// Starts the tasks that follow a run.
#[derive(Debug, Clone)]
pub(super) struct Watcher {
    pub(super) runtime: Runtime,
    pub(super) done: mpsc::Sender<Done>,
}

impl Watcher {
    /// Connects a new first process to what outlives it, and follows it to its end.
    pub(super) fn watch(&self, name: ContainerName, run: u64, live: &Arc<Live>, created: Created) {
        let Created { process, io } = created;
        live.exit.send_replace(None);
        live.log.open();
        if let Ok(mut stdin) = live.stdin.try_lock() {
            *stdin = io.stdin;
        } else {
            // A writer of the last run still holds the old input, which is closed: it lets go at its next byte.
            let (shared, fresh) = (Arc::clone(&live.stdin), io.stdin);
            tokio::spawn(async move { *shared.lock().await = fresh });
        }
        live.set_run(Some(Run { process: process.clone(), terminal: io.terminal }));
        let mut output = Output::new(io.stdout, io.stderr, process.exit());
        let log = Arc::clone(&live.log);
        let pump = tokio::spawn(async move {
            while let Piece::Output(stream, bytes) = output.next().await {
                log.append(stream, &bytes).await;
            }
            log.close();
        });
        let watcher = self.clone();
        tokio::spawn(async move {
            let (status, told) = watcher.until_exit(&name, run, &process).await;
            let _ = timeout(LAST_OUTPUT, pump).await;
            let kills = watcher.oom_kills(&name).await;
            if kills > told {
                watcher.tell(Done::OutOfMemory { name: name.clone(), run }).await;
            }
            let exit = Exit { status, oom_killed: kills > 0 };
            watcher.tell(Done::Exited { name, run, exit }).await;
        });
    }

    /// The end of the run, and of how many processes killed for want of memory the driver was told before.
    async fn until_exit(&self, name: &ContainerName, run: u64, process: &Process) -> (ExitStatus, u64) {
        let mut told = 0;
        loop {
            if let Ok(status) = timeout(OOM_INTERVAL, process.exit().wait()).await {
                return (status, told);
            }
            let kills = self.oom_kills(name).await;
            if kills > told {
                told = kills;
                self.tell(Done::OutOfMemory { name: name.clone(), run }).await;
            }
        }
    }

    async fn oom_kills(&self, name: &ContainerName) -> u64 {
        // A container whose counters are gone has been removed.
        self.runtime.stats(name).await.map_or(0, |stats| stats.oom_kills)
    }

    async fn tell(&self, report: Done) {
        // Without a driver there is no pod, and nobody to tell.
        let _ = self.done.send(report).await;
    }
}
