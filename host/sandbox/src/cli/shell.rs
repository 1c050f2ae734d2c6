//! `shell`: the supervisor of one VM of a pool, from before it is anybody's to the end of the pod that it becomes.
//!
//! It ends when its standard input does, which the pool holds open, so that a pool that ends in any way takes its shells
//! along. A claim and that end are decided here, one after the other: there is no moment in which both happen.

use std::{
    io::{self, Write},
    time::Instant,
};

use clap::Args;
use postern_model::PodName;
use postern_sandbox::{
    Home,
    progress::{Listener, millis},
    supervisor::{
        Stop,
        shell::{Shell, Taker, Waited},
    },
};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::watch};

use super::{
    Failure,
    failure::Reported,
    run::{Log, SUPERVISOR_LOG, init_log, let_go_of_stdout, open_log, stop_on_signals},
    start_args,
};

/// Keep one VM ready for whoever starts a pod: part of `pool`
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    vm: start_args::VmArguments,
}

/// What a shell says on standard output, one JSON document a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub(super) enum Event {
    /// It can be claimed; how long that took.
    Ready { shell: PodName, millis: u64 },
    /// It is this pod's from now on.
    Claimed { shell: PodName, pod: PodName },
    /// It was taken down unused.
    Discarded { shell: PodName, why: String },
    /// It could not be made.
    Failed(Reported),
}

impl Event {
    pub(super) fn to_json(&self) -> String {
        // Strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

pub(super) async fn run(home: &Home, arguments: Arguments) -> Result<(), Failure> {
    rustix::process::setsid().map_err(|error| Failure::internal("cannot detach", &error))?;
    let stop = stop_on_signals()?;
    let plan = arguments.vm.plan(home).await?;
    let begun = Instant::now();
    let mut unwanted = Box::pin(unwanted(stop.clone()));
    let mut shell = match Shell::create(home, plan, &mut unwanted).await {
        Ok(shell) => shell,
        Err(error) => {
            let failure = Failure::from(error);
            say(&Event::Failed(failure.to_reported()))?;
            return Err(failure);
        }
    };
    let name = shell.name().clone();
    let log = open_log(&shell.directory().join(SUPERVISOR_LOG));
    init_log(log.map_or(Log::Stderr, Log::File));
    say(&Event::Ready { shell: name.clone(), millis: millis(begun.elapsed()) })?;
    let waited = tokio::select! {
        biased;
        () = unwanted => None,
        waited = shell.wait() => Some(waited),
    };
    match waited {
        None => Ok(shell.end().await?),
        Some(Waited::Stale(why)) => {
            shell.end().await?;
            say(&Event::Discarded { shell: name, why })
        }
        Some(Waited::Claimed(taker)) => {
            // A pool that cannot be told is one that has ended.
            let _ = say(&Event::Claimed { shell: name, pod: taker.pod().clone() });
            let_go_of_stdout().map_err(|error| Failure::internal("cannot detach", &error))?;
            serve(shell, taker, stop).await
        }
    }
}

async fn serve(shell: Shell, mut taker: Taker, stop: watch::Receiver<Stop>) -> Result<(), Failure> {
    match shell.become_pod(&mut taker, stop).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let failure = Failure::from(error);
            let _ = taker.progress.report(&failure.to_report());
            Err(failure)
        }
    }
}

/// Waits until the pool has ended, or says that this shell is to.
async fn unwanted(mut stop: watch::Receiver<Stop>) {
    let pool_ended = async {
        let pipe = rustix::io::dup(rustix::stdio::stdin()).map_err(io::Error::from);
        // Without a pipe there is no pool to wait for: a signal ends it.
        let Ok(mut pipe) = pipe.and_then(pipe::Receiver::from_owned_fd) else {
            return std::future::pending().await;
        };
        while matches!(pipe.read(&mut [0]).await, Ok(1..)) {}
    };
    tokio::select! {
        () = pool_ended => {}
        _ = stop.wait_for(|stop| *stop != Stop::No) => {}
    }
}

fn say(event: &Event) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let said = writeln!(stdout, "{}", event.to_json()).and_then(|()| stdout.flush());
    said.map_err(|error| Failure::internal("cannot write to standard output", &error))
}
